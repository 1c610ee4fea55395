//! What an SDK error means to a caller, with the server's own code and words.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::proxy::ThroughProxy;
use super::words::{beginning, causes, chain, one_line};
use crate::store::gate::THROTTLED;
use crate::store::{ErrorKind, StoreError};

const NO_CREDENTIALS: &str = "set the store's access_key and secret_key, or the AWS environment";
const REFUSED: &str =
    "check the store's access_key and secret_key or the AWS environment, and what they may do";
const DISTRUST: &str = "where the server's certificate is of an authority of your own, name that in the store's ca_file";
const NO_TLS: &str = "check the store's endpoint: https:// or http://, and the port";
const NO_HOST: &str =
    "check the host in the store's endpoint; with path_style = false the bucket stands before it";
const NOBODY: &str = "check the host and the port in the store's endpoint";
const NO_PROXY: &str = "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment";
const NO_S3: &str = "check the store's endpoint: what answers there may be no S3 server";
const NO_BUCKET: &str = "check the bucket in the store's url; tapline makes none";
const ELSEWHERE: &str = "check the store's region and endpoint";
const SKEWED: &str = "set this machine's clock";
const EXPIRED: &str = "renew the session that the store's credentials are of";
const FULL: &str = "make room there, or raise the quota";

/// Codes by which a server says that the credentials, and not the request, are the trouble. Some of
/// them come with 400.
const CREDENTIALS: [&str; 9] = [
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "AuthorizationHeaderMalformed",
];
/// Codes of what may be well the next time.
const PASSING: [&str; 5] = [
    "RequestTimeout",
    "ConditionalRequestConflict",
    "OperationAborted",
    "InternalError",
    "ServiceUnavailable",
];
/// Codes of what was damaged or cut on its way; the second try sends the same bytes once more.
const DAMAGED: [&str; 3] = ["BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"];

/// What an SDK error means. `accepted`: the server has carried out a request of this run before, so
/// that what would be a wrong setting at the beginning is a hiccup now.
pub(super) fn explain<E>(error: SdkError<E>, accepted: bool) -> StoreError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let status = error
        .raw_response()
        .map(|response| response.status().as_u16());
    let code = error.code().map(str::to_owned);
    let said = code.as_deref().unwrap_or_default();
    let kind_and_advice = match status {
        None => unsent(&error),
        Some(status) => {
            let kind = answered(said, status);
            (kind, advice(kind, said, status))
        }
    };
    let (kind, mut advice) = kind_and_advice;
    let unanswered = match status {
        // What was never connected was never asked.
        None => kind == ErrorKind::Transient && !was_refused(&error),
        // Any 5xx but a throttle may come from a proxy that got no answer.
        Some(500..) => kind == ErrorKind::Transient && !THROTTLED.contains(&said),
        Some(status) => status < 300,
    };
    let passing = accepted
        && match kind {
            ErrorKind::Unreachable => true,
            // A redirect, and a 400 without a code of S3's, come from something between.
            ErrorKind::Invalid => {
                DAMAGED.contains(&said)
                    || matches!(status, Some(300..400))
                    || status == Some(400) && ["", "BadRequest"].contains(&said)
            }
            _ => false,
        };
    let mut words = match error.message().filter(|words| !words.is_empty()) {
        Some(words) => words.to_owned(),
        // Ceph has a code and no words.
        None if code.is_some() && status.is_some() => "the server says no more".into(),
        None if status.is_some() => match beginning(&error) {
            Some(beginning) => {
                // What may pass is a server's that is in trouble.
                if kind != ErrorKind::Transient && status != Some(407) {
                    advice = Some(NO_S3);
                }
                format!("the reply is not S3's, it begins {beginning:?}")
            }
            None => "the reply says no more".into(),
        },
        None => chain(&error),
    };
    if let Some(place) = elsewhere(&error) {
        words = format!("{} ({place})", one_line(&words));
    }
    let retry_after = error
        .raw_response()
        .and_then(|response| response.headers().get("retry-after")?.parse().ok())
        .map(Duration::from_secs);
    let explained = StoreError::new(kind, one_line(&words))
        .passing(passing)
        .maybe_done(unanswered)
        .maybe_coming(unanswered && status.is_none())
        .with_reply(status, code.as_deref())
        .with_retry_after(retry_after)
        .with_source(Arc::new(error));
    match advice {
        Some(advice) => explained.with_advice(advice),
        None => explained,
    }
}

/// Whether a refusal is of who asks, and not of what was asked for.
pub(crate) fn is_about_keys(error: &StoreError) -> bool {
    match error.code() {
        Some("AccessDenied") => false,
        Some(code) => CREDENTIALS.contains(&code),
        // The provider of the credentials failed.
        None => error.status().is_none(),
    }
}

/// A request to which no answer came.
fn unsent<E: Error + 'static>(error: &SdkError<E>) -> (ErrorKind, Option<&'static str>) {
    if find::<CredentialsError>(error).is_some() {
        return (ErrorKind::Denied, Some(NO_CREDENTIALS));
    }
    let proxied = find::<ThroughProxy>(error).is_some();
    let (no_tls, no_host, nobody) = if proxied {
        (NO_PROXY, NO_PROXY, NO_PROXY)
    } else {
        (NO_TLS, NO_HOST, NOBODY)
    };
    match find::<rustls::Error>(error) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            return (ErrorKind::Unreachable, Some(DISTRUST));
        }
        Some(_) => return (ErrorKind::Unreachable, Some(no_tls)),
        None => {}
    }
    if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) {
        return (ErrorKind::Unreachable, Some(no_tls));
    }
    let words = chain(error);
    // The resolver has no error codes of its own in Rust; "temporary failure" is another sentence.
    if words.contains("failed to lookup address information")
        && !words.contains("Temporary failure")
        && !words.contains("Try again")
    {
        return (ErrorKind::Unreachable, Some(no_host));
    }
    match error {
        SdkError::ConstructionFailure(_) => (ErrorKind::Invalid, None),
        _ if proxied || was_refused(error) => (ErrorKind::Transient, Some(nobody)),
        // Something that speaks before it is asked; a server that hangs up late may look so, too.
        _ if words.contains("received unexpected message") => (ErrorKind::Transient, Some(no_tls)),
        _ => (ErrorKind::Transient, None),
    }
}

fn answered(code: &str, status: u16) -> ErrorKind {
    match (code, status) {
        ("PreconditionFailed", _) | (_, 412) => ErrorKind::AlreadyExists,
        ("NotImplemented" | "MethodNotAllowed", _) | (_, 405 | 501) => ErrorKind::Unsupported,
        (_, 404) => ErrorKind::NotFound,
        (code, _) if CREDENTIALS.contains(&code) => ErrorKind::Denied,
        (_, 401 | 403 | 407) => ErrorKind::Denied,
        (code, _) if THROTTLED.contains(&code) || PASSING.contains(&code) => ErrorKind::Transient,
        // A 200 that is no reply of S3's comes from something between, or says an error late.
        (_, ..300 | 408 | 409 | 425 | 429 | 500..) => ErrorKind::Transient,
        _ => ErrorKind::Invalid,
    }
}

/// What to do about an answer.
fn advice(kind: ErrorKind, code: &str, status: u16) -> Option<&'static str> {
    Some(match (code, status) {
        ("NoSuchBucket", _) => NO_BUCKET,
        ("AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _)
        | (_, 300..400) => ELSEWHERE,
        ("RequestTimeTooSkewed" | "RequestExpired", _) => SKEWED,
        ("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired", _) => EXPIRED,
        ("QuotaExceeded" | "InsufficientStorage", _) | (_, 507) => FULL,
        (_, 407) => NO_PROXY,
        _ if kind == ErrorKind::Denied => REFUSED,
        _ => return None,
    })
}

/// Where a redirect leads to, and where AWS says that the bucket is.
fn elsewhere<E>(error: &SdkError<E>) -> Option<String> {
    let response = error.raw_response()?;
    if !(300..400).contains(&response.status().as_u16()) {
        return None;
    }
    let header = |name| response.headers().get(name);
    match (header("x-amz-bucket-region"), header("location")) {
        (Some(region), _) => Some(format!("the bucket's region is {region}")),
        // What follows may be a signature.
        (None, Some(location)) => {
            let place = location.split('?').next().unwrap_or_default();
            Some(format!("it leads to {place}"))
        }
        (None, None) => None,
    }
}

fn was_refused<E: Error + 'static>(error: &SdkError<E>) -> bool {
    find::<io::Error>(error).is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
        )
    })
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}
