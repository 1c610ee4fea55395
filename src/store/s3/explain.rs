//! What an SDK error means to a caller, with the server's own code and words.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::store::gate::THROTTLED;
use crate::store::{ErrorKind, StoreError};

const NO_CREDENTIALS: &str = "set the store's access_key and secret_key, or the AWS environment";
const REFUSED: &str =
    "check the store's access_key and secret_key or the AWS environment, and what they may do";
const DISTRUST: &str = "where the server's certificate is of an authority of your own, name that in the store's ca_file";
const NO_TLS: &str = "check the store's endpoint: https:// or http://, and the port";
const NO_HOST: &str = "check the host in the store's endpoint";

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
    let (kind, advice) = match status {
        None => unsent(&error),
        Some(status) => answered(said, status),
    };
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
    let words = match error.message().filter(|words| !words.is_empty()) {
        Some(words) => words.to_owned(),
        // Ceph has a code and no words.
        None if code.is_some() && status.is_some() => "the server says no more".into(),
        None if status.is_some() => beginning(&error),
        None => chain(&error),
    };
    let retry_after = error
        .raw_response()
        .and_then(|response| response.headers().get("retry-after")?.parse().ok())
        .map(Duration::from_secs);
    let explained = StoreError::new(kind, words)
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
pub(super) fn is_about_keys(error: &StoreError) -> bool {
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
    match find::<rustls::Error>(error) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            return (ErrorKind::Unreachable, Some(DISTRUST));
        }
        Some(_) => return (ErrorKind::Unreachable, Some(NO_TLS)),
        None => {}
    }
    if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) {
        return (ErrorKind::Unreachable, Some(NO_TLS));
    }
    let words = chain(error);
    // The resolver has no error codes of its own in Rust; "temporary failure" is another sentence.
    if words.contains("failed to lookup address information")
        && !words.contains("Temporary failure")
        && !words.contains("Try again")
    {
        return (ErrorKind::Unreachable, Some(NO_HOST));
    }
    match error {
        SdkError::ConstructionFailure(_) => (ErrorKind::Invalid, None),
        _ => (ErrorKind::Transient, None),
    }
}

fn answered(code: &str, status: u16) -> (ErrorKind, Option<&'static str>) {
    let kind = match (code, status) {
        ("PreconditionFailed", _) | (_, 412) => ErrorKind::AlreadyExists,
        ("NotImplemented" | "MethodNotAllowed", _) | (_, 405 | 501) => ErrorKind::Unsupported,
        (_, 404) => ErrorKind::NotFound,
        (code, _) if CREDENTIALS.contains(&code) => ErrorKind::Denied,
        (_, 401 | 403 | 407) => ErrorKind::Denied,
        (code, _) if THROTTLED.contains(&code) || PASSING.contains(&code) => ErrorKind::Transient,
        // A 200 that is no reply of S3's comes from something between, or says an error late.
        (_, ..300 | 408 | 409 | 425 | 429 | 500..) => ErrorKind::Transient,
        _ => ErrorKind::Invalid,
    };
    (kind, (kind == ErrorKind::Denied).then_some(REFUSED))
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

/// An error and its causes. After an I/O error comes what it wraps, which its `source` skips.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// An error and all that caused it, in words; what two levels say alike is said once.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut words = String::new();
    for cause in causes(error).map(ToString::to_string) {
        if !words.contains(&cause) {
            let separator = if words.is_empty() { "" } else { ": " };
            words = format!("{words}{separator}{cause}");
        }
    }
    words
}

/// The beginning of a reply that S3's parser could make nothing of.
fn beginning<E: Error + 'static>(error: &SdkError<E>) -> String {
    const LONGEST: usize = 200;
    let body = error
        .raw_response()
        .and_then(|response| response.body().bytes())
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&body[..body.len().min(LONGEST)]);
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() {
        return "the reply says no more".into();
    }
    format!("the reply is not S3's, it begins {:?}", words.join(" "))
}
