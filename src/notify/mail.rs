//! A notice by mail: SMTP, its TLS by rustls with the authorities that everything else has.

use std::error::Error;

use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use secrecy::ExposeSecret;

use super::{LONGEST, Notice};
use crate::config::{MailSettings, MailTls};

/// Sends it, and returns what the server said.
///
/// # Errors
/// What went wrong, with the server's name and words.
pub async fn send(settings: &MailSettings, notice: &Notice) -> Result<String, String> {
    let server = &settings.server;
    let message = message(settings, notice)?;
    let words = |error: &dyn Error| format!("{server}: {}", chain(error));
    let tls = || async {
        let mut parameters = TlsParameters::builder(server.clone());
        if let Some(file) = &settings.ca_file {
            let pem = tokio::fs::read(file).await;
            let pem = pem.map_err(|error| format!("ca_file {}: {error}", file.display()))?;
            let certificate = Certificate::from_pem(&pem);
            let certificate = certificate.map_err(|error| words(&error))?;
            parameters = parameters.add_root_certificate(certificate);
        }
        parameters.build_rustls().map_err(|error| words(&error))
    };
    let tls = match settings.tls {
        MailTls::Starttls => Tls::Required(tls().await?),
        MailTls::Tls => Tls::Wrapper(tls().await?),
        MailTls::None => Tls::None,
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server)
        .port(settings.port)
        .tls(tls)
        .hello_name(ClientId::Domain(notice.host.clone()))
        .timeout(Some(LONGEST));
    if let Some((user, password)) = &settings.login {
        let password = password.resolve(LONGEST).await;
        let password = password.map_err(|error| error.to_string())?;
        let password = password.expose_secret().to_owned();
        transport = transport.credentials(Credentials::new(user.clone(), password));
    }
    let sent = transport.build().send(message).await;
    let answer = sent.map_err(|error| words(&error))?;
    Ok(format!("{server} took it: {}", answer.code()))
}

fn message(settings: &MailSettings, notice: &Notice) -> Result<Message, String> {
    // A header is one line.
    let title = notice.title.replace(char::is_control, " ");
    let mut message = Message::builder()
        .from(settings.from.clone())
        .subject(title)
        .date_now()
        .header(ContentType::TEXT_PLAIN);
    for to in &settings.to {
        message = message.to(to.clone());
    }
    message
        .body(notice.text.clone())
        .map_err(|error| format!("no message: {error}"))
}

/// An error with its causes, each that says something more.
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !words.contains(&said) {
            words = format!("{words}: {said}");
        }
        cause = error.source();
    }
    words
}
