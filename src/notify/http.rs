//! One POST, by the HTTP client that the stores use; tried again while whoever asks has patience.
//! A redirect is an error: it would take a secret elsewhere.

use std::error::Error;
use std::time::Duration;

use aws_smithy_http_client::{Connector, tls};
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::http::Request;
use aws_smithy_types::body::SdkBody;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::store::s3::Proxies;

/// Before the second try; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Posts `body` to `address`, whose path gets `suffix`. Runs until it is answered with other than
/// 429 and 5xx: the caller bounds it.
///
/// Returns what was answered.
///
/// # Errors
/// What was answered; never more of the address than its host.
pub async fn post(
    address: &SecretString,
    suffix: &str,
    content_type: &str,
    headers: &[(String, SecretString)],
    body: Vec<u8>,
) -> Result<String, String> {
    let mut url = Url::parse(address.expose_secret()).map_err(|_| "its address is no URL")?;
    let path = format!("{}{suffix}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    let whose = url.host_str().unwrap_or_default().to_owned();
    let connector = Connector::builder()
        .proxy_config(Proxies::from_env().config())
        .tls_provider(tls::Provider::Rustls(
            tls::rustls_provider::CryptoMode::Ring,
        ))
        .build();
    let mut pause = FIRST_PAUSE;
    loop {
        let request =
            request(&url, content_type, headers, &body).map_err(|why| format!("{whose}: {why}"))?;
        let failed = match connector.call(request).await {
            Ok(response) if response.status().is_success() => {
                return Ok(format!("{whose} answered {}", response.status().as_u16()));
            }
            Ok(response) => {
                let status = response.status().as_u16();
                if status != 429 && status < 500 {
                    return Err(format!("{whose} answered {status}"));
                }
                format!("{whose} answered {status}")
            }
            Err(error) => format!("{whose}: {}", innermost(&error)),
        };
        tracing::debug!("a notice did not arrive, trying again: {failed}");
        if pause > crate::notify::LONGEST / 4 {
            return Err(failed);
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

fn request(
    url: &Url,
    content_type: &str,
    headers: &[(String, SecretString)],
    body: &[u8],
) -> Result<Request, &'static str> {
    let mut request = Request::new(SdkBody::from(body.to_vec()));
    request.set_method("POST").map_err(|_| "no method")?;
    request
        .set_uri(url.as_str())
        .map_err(|_| "its address is no URL")?;
    let agent = concat!("tapline/", env!("CARGO_PKG_VERSION"));
    let all = request.headers_mut();
    all.insert("content-type", content_type.to_owned());
    all.insert("user-agent", agent);
    for (name, value) in headers {
        // It may be refused for its value, which is a secret.
        all.try_append(name.to_ascii_lowercase(), value.expose_secret().to_owned())
            .map_err(|_| "the value of a header is none")?;
    }
    Ok(request)
}

/// The last cause says what happened; those before it may say to whom.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
