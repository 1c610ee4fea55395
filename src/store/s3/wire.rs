//! The HTTP client: whom it trusts, through which proxy it goes; and what is done to each reply
//! before the SDK parses it.
//!
//! - The server's `Date` is remembered, for its clock is the one that dates what it has.
//! - An XML root that means what it should and is called otherwise is renamed (`quirks`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_sdk_s3::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat, SdkBody};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::proxy::{Proxies, ThroughProxy};
use super::quirks::{Quirks, lists_objects_instead, root_of};

/// What a server should have said that passes over what it does not know.
const NOT_IMPLEMENTED: u16 = 501;
const NO_UPLOADS: &[u8] =
    b"<Error><Code>NotImplemented</Code><Message>the reply lists objects, not \
    uploads</Message></Error>";

/// The offset of a server's clock against this machine's, in seconds, once a reply has told.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerClock(Arc<Mutex<Option<i64>>>);

impl ServerClock {
    pub(super) fn offset(&self) -> Option<i64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, response: &HttpResponse) {
        let date = response.headers().get("date");
        let Some(server) =
            date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok())
        else {
            return;
        };
        let here = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |time| time.as_secs().cast_signed());
        let offset = server.secs().saturating_sub(here);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(offset);
    }
}

/// The client for a store. `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are honoured; trusted are the
/// system's certificates (`SSL_CERT_FILE`) and those of `ca_file`, or of `AWS_CA_BUNDLE`.
///
/// # Errors
/// When that file cannot be used.
pub(super) fn client(
    ca_file: Option<&Path>,
    clock: ServerClock,
    quirks: Quirks,
) -> Result<SharedHttpClient, String> {
    let bundle = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty());
    let mut trusted = TrustStore::default();
    if let Some((path, name)) = ca_file
        .map(|path| (path.to_owned(), "ca_file"))
        .or_else(|| Some((PathBuf::from(bundle?), "AWS_CA_BUNDLE")))
    {
        let pem =
            certificates(&path).map_err(|why| format!("{name}: {}: {why}", path.display()))?;
        trusted.add_pem_certificate(pem);
    }
    let context = TlsContext::builder()
        .with_trust_store(trusted)
        .build()
        .map_err(|error| error.to_string())?;
    let proxies = Proxies::from_env();
    let config = proxies.config();
    let plain = Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder();
        if let Some(settings) = settings {
            builder = builder.connector_settings(settings.clone());
        }
        builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        builder
            .proxy_config(config.clone())
            .tls_provider(Provider::Rustls(rustls_provider::CryptoMode::Ring))
            .tls_context(context.clone())
            .build()
    });
    let wrap = move |settings: &HttpConnectorSettings, components: &RuntimeComponents| {
        let below = plain.http_connector(settings, components);
        SharedHttpConnector::new(Wire {
            below,
            proxies: proxies.clone(),
            clock: clock.clone(),
            quirks: quirks.clone(),
        })
    };
    Ok(http_client_fn(wrap))
}

/// The certificates in a file; the client would panic at one that is none.
fn certificates(path: &Path) -> Result<Vec<u8>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("not PEM: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("not a certificate: {error}"))?;
    }
    if roots.is_empty() {
        return Err("no certificate is in it (-----BEGIN CERTIFICATE-----)".into());
    }
    Ok(pem)
}

#[derive(Debug)]
struct Wire {
    below: SharedHttpConnector,
    proxies: Proxies,
    clock: ServerClock,
    quirks: Quirks,
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let root = root_of(request.method(), request.uri());
        let proxy = self.proxies.of(request.uri());
        let reply = self.below.call(request);
        let (clock, quirks) = (self.clock.clone(), self.quirks.clone());
        HttpConnectorFuture::new(async move {
            let mut response = match (reply.await, proxy) {
                (Err(error), Some(proxy)) => {
                    let error = ThroughProxy { proxy, error };
                    return Err(ConnectorError::other(error.into(), None));
                }
                (reply, _) => reply?,
            };
            clock.learn(&response);
            if let Some(server) = response.headers().get("server") {
                quirks.learn_server(server);
            }
            if let Some(root) = root
                && response.status().is_success()
            {
                let body = ByteStream::new(response.take_body()).collect().await;
                let body = body.map_err(|error| ConnectorError::io(error.into()))?;
                let mut body = quirks.mended(body.into_bytes().into(), root);
                if lists_objects_instead(&body, root) {
                    *response.status_mut() = NOT_IMPLEMENTED.try_into().expect("a status");
                    body = NO_UPLOADS.into();
                }
                response.headers_mut().remove("content-length");
                *response.body_mut() = SdkBody::from(body);
            }
            Ok(response)
        })
    }
}
