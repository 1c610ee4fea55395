//! Who may look, and who may press a button.
//!
//! On loopback a request must name a loopback host, so that no page of another site reaches it
//! under a name of its own; beyond loopback there must be a token. What changes something must come
//! from a page of ours: the browser says so (`Origin`, `Sec-Fetch-Site`), and the form has a secret
//! of this process in it, which no other site can read. TLS is a proxy's to add.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

/// Who may look.
#[derive(Clone)]
pub(super) struct Guard {
    /// SHA-256 of the token: compared so, its length and beginning cannot be found out by time.
    pub token: Option<[u8; 32]>,
    pub is_loopback: bool,
}

pub(super) async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if guard.is_loopback
        && guard.token.is_none()
        && !text(headers, header::HOST.as_str()).is_some_and(is_local)
    {
        return (StatusCode::FORBIDDEN, "this is for loopback alone\n").into_response();
    }
    if let Some(token) = &guard.token
        && !text(headers, header::AUTHORIZATION.as_str())
            .is_some_and(|given| is_token(given, token))
    {
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"tapline\"")];
        return (StatusCode::UNAUTHORIZED, ask, "a token is asked for\n").into_response();
    }
    next.run(request).await
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether a `Host` names this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    ["localhost", "127.0.0.1", "::1"].contains(&name.unwrap_or_default())
}

fn is_token(given: &str, token: &[u8; 32]) -> bool {
    let (kind, value) = given.split_once(' ').unwrap_or_default();
    let value = match kind.to_ascii_lowercase().as_str() {
        "bearer" => value.trim().as_bytes().to_vec(),
        "basic" => {
            let decoded = STANDARD.decode(value.trim()).unwrap_or_default();
            let at = decoded.iter().position(|byte| *byte == b':');
            at.map_or(Vec::new(), |at| decoded[at + 1..].to_vec())
        }
        _ => return false,
    };
    let hash: [u8; 32] = Sha256::digest(value).into();
    hash == *token
}

/// A secret of this process, which its own forms have in them.
pub(super) struct FormSecret(String);

impl FormSecret {
    /// A new one; `None` when the machine has no randomness.
    pub fn new() -> Option<Self> {
        let mut bytes = [0; 24];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Why a form is not from a page of ours, if it is not.
    pub fn refuse(&self, headers: &HeaderMap, given: &str) -> Option<&'static str> {
        let is_ours = match (text(headers, "origin"), text(headers, "sec-fetch-site")) {
            (Some(origin), _) => {
                let host = text(headers, header::HOST.as_str());
                origin.split_once("://").map(|(_, host)| host) == host
            }
            (None, site) => site == Some("same-origin"),
        };
        if !is_ours {
            return Some("this comes from another site, or does not say from where\n");
        }
        let hash = |text: &str| Sha256::digest(text);
        (hash(given) != hash(&self.0))
            .then_some("this form is of an earlier start; load it again\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_bearers_or_a_password_and_nothing_else() {
        let token: [u8; 32] = Sha256::digest("0123456789abcdef").into();
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert!(is_token("Bearer 0123456789abcdef", &token));
        assert!(is_token(&basic("anybody:0123456789abcdef"), &token));
        for given in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Digest x",
            "Basic !",
        ] {
            assert!(!is_token(given, &token), "{given}");
        }
        assert!(!is_token(&basic("0123456789abcdef"), &token));
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["localhost", "localhost:80", "127.0.0.1:8737", "[::1]:8737"] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn a_form_counts_only_from_our_own_page_and_with_its_secret() {
        let secret = FormSecret::new().unwrap();
        let refused = |pairs: &[(&'static str, &str)], given: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("host", "localhost:8737".parse().unwrap());
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            secret.refuse(&headers, given).is_some()
        };
        let ours = ("origin", "http://localhost:8737");
        assert!(!refused(&[ours], secret.as_str()));
        assert!(!refused(
            &[("sec-fetch-site", "same-origin")],
            secret.as_str()
        ));
        assert!(refused(&[ours], ""));
        assert!(refused(&[ours], "x"));
        assert!(refused(&[], secret.as_str()));
        for elsewhere in ["http://evil.example", "null", "http://localhost:1", ""] {
            assert!(
                refused(&[("origin", elsewhere)], secret.as_str()),
                "{elsewhere}"
            );
        }
        assert!(refused(
            &[("sec-fetch-site", "cross-site")],
            secret.as_str()
        ));
    }
}
