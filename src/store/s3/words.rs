//! Errors of several layers, and replies that are none, as words of one line.

use std::error::Error;
use std::io;

use aws_sdk_s3::error::SdkError;

/// What layers say that have nothing to say, or where in the client it was.
const EMPTY: [&str; 7] = [
    "dispatch failure",
    "io error",
    "other",
    "user error",
    "client error (Connect)",
    "client error (SendRequest)",
    "an error occurred while loading credentials",
];

/// An error and its causes. After an I/O error comes what it wraps, which its `source` skips.
pub(super) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
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

/// An error and all that caused it, in words; what two levels say alike is said once.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut words = String::new();
    let all: Vec<String> = causes(error).map(ToString::to_string).collect();
    let telling = all.iter().filter(|cause| !EMPTY.contains(&cause.as_str()));
    for cause in telling {
        if !words.contains(cause.as_str()) {
            let separator = if words.is_empty() { "" } else { ": " };
            words = format!("{words}{separator}{cause}");
        }
    }
    if words.is_empty() {
        return all.join(": ");
    }
    words
}

/// The same words on one line, and without the full stop that others put behind a sentence.
pub(super) fn one_line(words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().collect();
    words.join(" ").trim_end_matches(['.', ' ']).to_owned()
}

/// The beginning of a reply that S3's parser could make nothing of; nothing when it is empty.
pub(super) fn beginning<E: Error + 'static>(error: &SdkError<E>) -> Option<String> {
    const LONGEST: usize = 200;
    let body = error.raw_response()?.body().bytes().unwrap_or_default();
    let text = String::from_utf8_lossy(&body[..body.len().min(LONGEST)]);
    let words: Vec<&str> = text.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}
