//! `[notify]`, from the file as written to the model.

use toml::Spanned;
use url::Url;

use super::place::{File, Result};
use super::{Address, NotifySettings, raw};

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
        command: raw
            .command
            .as_ref()
            .map(|argv| argv.get_ref().clone())
            .unwrap_or_default(),
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
