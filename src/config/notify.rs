//! `[notify]`, from the file as written to the model.

use lettre::message::Mailbox;
use toml::Spanned;
use url::Url;

use super::place::{File, Result};
use super::{Address, MailSettings, MailTls, NotifySettings, raw};
use crate::notify::template::Template;

const EVENTS: [&str; 3] = ["failure", "recovery", "success"];

pub(super) fn notify(file: &File, raw: &raw::Notify) -> Result<NotifySettings> {
    let on = match &raw.on {
        None => vec!["failure", "recovery"],
        Some(on) => {
            let events = on.get_ref().iter();
            let known = events.map(|event| EVENTS.into_iter().find(|known| known == event));
            let Some(known) = known.collect::<Option<Vec<_>>>() else {
                let why = "holds \"failure\", \"recovery\" and \"success\" alone";
                return file.wrong(&on.span(), "notify.on", why);
            };
            known
        }
    };
    let is_on = |event| on.contains(&event);
    if let Some(command) = raw
        .command
        .as_ref()
        .filter(|argv| argv.get_ref().is_empty())
    {
        let why = "is empty; write [\"program\", \"argument\"]";
        return file.wrong(&command.span(), "notify.command", why);
    }
    let mut headers = Vec::new();
    for (name, secret) in raw.headers.iter().flatten() {
        let key = format!("notify.headers.{}", name.get_ref());
        let is_token = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if name.get_ref().is_empty() || !name.get_ref().chars().all(is_token) {
            return file.wrong(&name.span(), "notify.headers", "a name is no header's");
        }
        if raw.webhook.is_none() {
            return file.wrong(&name.span(), &key, "goes with webhook; add webhook = \"…\"");
        }
        headers.push((name.get_ref().clone(), file.secret(secret, &key)?));
    }
    Ok(NotifySettings {
        on_failure: is_on("failure"),
        on_recovery: is_on("recovery"),
        on_success: is_on("success"),
        ping: address(file, raw.ping.as_ref(), "notify.ping")?,
        webhook: address(file, raw.webhook.as_ref(), "notify.webhook")?,
        headers,
        template: template(file, raw)?,
        email: match &raw.email {
            Some(mail) => Some(email(file, mail)?),
            None => None,
        },
        command: raw
            .command
            .as_ref()
            .map(|argv| argv.get_ref().clone())
            .unwrap_or_default(),
    })
}

/// A template that comes with the program, or a file.
fn template(file: &File, raw: &raw::Notify) -> Result<Option<Template>> {
    const KEY: &str = "notify.template";
    let Some(value) = &raw.template else {
        return Ok(None);
    };
    let wrong = |why: String| file.wrong(&value.span(), KEY, why);
    if raw.webhook.is_none() {
        return wrong("goes with webhook; add webhook = \"…\"".into());
    }
    let name = file.text(value, KEY)?;
    if let Some(own) = Template::named(&name) {
        return Ok(Some(own));
    }
    if !name.contains(['/', '.']) {
        let names = Template::names();
        return wrong(format!(
            "there is {names}, or a file of your own, \"./x.json\""
        ));
    }
    let path = file.relative(name.as_ref());
    let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
    match text.and_then(|text| Template::parse(&text)) {
        Ok(template) => Ok(Some(template)),
        Err(why) => wrong(format!("{}: {why}", path.display())),
    }
}

fn email(file: &File, mail: &Spanned<raw::Mail>) -> Result<MailSettings> {
    let raw = mail.get_ref();
    let missing = |key: &str, example: &str| {
        let why = format!("{key} is missing; add {key} = {example}");
        file.wrong(&mail.span(), "notify.email", why)
    };
    let Some(server) = &raw.server else {
        return missing("server", "\"smtp.example.com\"");
    };
    let Some(from) = &raw.from else {
        return missing("from", "\"tapline@example.com\"");
    };
    let Some(to) = raw.to.as_ref().filter(|to| !to.get_ref().is_empty()) else {
        return missing("to", "[\"me@example.com\"]");
    };
    let tls = match raw.tls.as_ref().map(|tls| tls.get_ref().as_str()) {
        None | Some("starttls") => MailTls::Starttls,
        Some("tls") => MailTls::Tls,
        Some("none") => MailTls::None,
        Some(_) => {
            let span = raw.tls.as_ref().map_or(mail.span(), Spanned::span);
            let why = "must be \"starttls\" (587), \"tls\" (465) or \"none\" (25)";
            return file.wrong(&span, "notify.email.tls", why);
        }
    };
    let usual = match tls {
        MailTls::Starttls => 587,
        MailTls::Tls => 465,
        MailTls::None => 25,
    };
    let port = raw.port.as_ref().map_or(usual, |port| *port.get_ref());
    if let Some(zero) = raw.port.as_ref().filter(|port| *port.get_ref() == 0) {
        return file.wrong(&zero.span(), "notify.email.port", "must be from 1 to 65535");
    }
    let login = match (&raw.user, &raw.password) {
        (None, None) => None,
        (Some(user), Some(password)) if tls == MailTls::None => {
            let _ = password;
            let why = "a password is not sent in the open; say tls = \"starttls\" or \"tls\"";
            return file.wrong(&user.span(), "notify.email.user", why);
        }
        (Some(user), Some(password)) => Some((
            file.text(user, "notify.email.user")?,
            file.secret(password, "notify.email.password")?,
        )),
        (Some(_), None) => return missing("password", "{ file = \"…\" }"),
        (None, Some(_)) => return missing("user", "\"…\""),
    };
    let readers = to.get_ref().iter();
    let to = readers.map(|reader| mailbox(file, reader, "notify.email.to"));
    Ok(MailSettings {
        server: file.text(server, "notify.email.server")?,
        port,
        tls,
        ca_file: raw
            .ca_file
            .as_ref()
            .map(|path| file.relative(path.get_ref())),
        from: mailbox(file, from, "notify.email.from")?,
        to: to.collect::<Result<_>>()?,
        login,
    })
}

fn mailbox(file: &File, value: &Spanned<String>, key: &str) -> Result<Mailbox> {
    value.get_ref().parse().or_else(|_| {
        let why = "is no address; one looks like \"me@example.com\" or \"Me <me@example.com>\"";
        file.wrong(&value.span(), key, why)
    })
}

fn address(
    file: &File,
    value: Option<&Spanned<raw::Address>>,
    key: &str,
) -> Result<Option<Address>> {
    let Some(value) = value else { return Ok(None) };
    match value.get_ref() {
        raw::Address::Text(text) => match address_flaw(text) {
            Some(why) => file.wrong(&value.span(), key, why),
            None => Ok(Some(Address::Text(text.clone()))),
        },
        raw::Address::Secret(secret) => {
            let secret = Spanned::new(value.span(), secret.clone());
            Ok(Some(Address::Secret(file.secret(&secret, key)?)))
        }
    }
}

/// What keeps a text from being an address that can be posted to; never the text itself.
pub(crate) fn address_flaw(text: &str) -> Option<&'static str> {
    let Ok(url) = Url::parse(text) else {
        return Some("is no URL; one looks like https://hc-ping.com/…");
    };
    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
        return Some("must begin with https:// or http://");
    }
    (!url.username().is_empty() || url.password().is_some())
        .then_some("has a user in it; webhook takes Authorization in headers")
}
