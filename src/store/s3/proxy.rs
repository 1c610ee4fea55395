//! The proxy that the environment names: which requests go through it, and that a failure on the way
//! is told as one of the proxy's.

use std::error::Error;
use std::fmt;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_runtime_api::client::result::ConnectorError;
use hyper_util::client::proxy::matcher::Matcher;

/// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in small letters, too.
#[derive(Debug, Clone)]
pub(crate) struct Proxies(Option<std::sync::Arc<Matcher>>);

impl Proxies {
    pub(crate) fn from_env() -> Self {
        Self((!is_off()).then(|| Matcher::from_env().into()))
    }

    /// As the SDK's client takes it.
    pub(crate) fn config(&self) -> ProxyConfig {
        match self.0 {
            Some(_) => ProxyConfig::from_env(),
            None => ProxyConfig::disabled(),
        }
    }

    /// The proxy that a request to `uri` goes through, with no user in it.
    pub(super) fn of(&self, uri: &str) -> Option<String> {
        let proxy = self.0.as_ref()?.intercept(&uri.parse().ok()?)?;
        let uri = proxy.uri();
        let port = uri.port().map_or(String::new(), |port| format!(":{port}"));
        Some(format!("{}{port}", uri.host()?))
    }
}

/// Whether nothing goes through a proxy: to the client, a `*` is any name and no address.
fn is_off() -> bool {
    let rules = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy"));
    rules.is_ok_and(|rules| rules.split(',').any(|rule| rule.trim() == "*"))
}

/// A request that failed on its way through a proxy.
#[derive(Debug)]
pub(super) struct ThroughProxy {
    pub(super) proxy: String,
    pub(super) error: ConnectorError,
}

impl fmt::Display for ThroughProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "through the proxy {}", self.proxy)
    }
}

impl Error for ThroughProxy {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}
