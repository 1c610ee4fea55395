//! What servers do otherwise than AWS, in one place: what gives it away, and what is done about it.
//!
//! | server | what it does | given away by | met by |
//! |---|---|---|---|
//! | Backblaze B2 | no conditions on writes | 501 to one | none are asked for: keys are unique |
//! | `rclone serve s3` | writes parts on in order, as they come; of those before their turn it holds 256 MiB, then 60 s later says `SlowDown` | the root `InitiateMultipartUpload` | part 1, which comes last, is a volume of its own |
//! | `rclone serve s3`, moto | an XML root of another name, which the SDK refuses | the name | it is renamed |
//!
//! All of it is learned from the server's own replies: no setting can be forgotten and no host name
//! mislead. A quirk is met by asking for less, never by promising less. Sources:
//! <https://www.backblaze.com/apidocs/introduction-to-the-s3-compatible-api>,
//! <https://rclone.org/commands/rclone_serve_s3/#multipart-uploads>.
//!
//! What other servers get wrong is met by what every request says (`super`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The root of rclone's reply to a new upload.
const IN_ORDER_ROOT: &str = "InitiateMultipartUpload";

/// What one store has been found to do otherwise.
#[derive(Debug, Clone, Default)]
pub(super) struct Quirks(Arc<Found>);

#[derive(Debug, Default)]
struct Found {
    unconditional: AtomicBool,
    in_order: AtomicBool,
}

impl Quirks {
    /// Whether writes with a condition are refused.
    pub(super) fn unconditional(&self) -> bool {
        self.0.unconditional.load(Ordering::Relaxed)
    }

    /// Remembers that a condition was refused; false when that was known.
    pub(super) fn learn_unconditional(&self) -> bool {
        !self.0.unconditional.swap(true, Ordering::Relaxed)
    }

    /// Whether parts are taken in their order, and few before their turn.
    pub(super) fn in_order(&self) -> bool {
        self.0.in_order.load(Ordering::Relaxed)
    }

    /// The reply with its root called `root`, when what it is called differs in the ending alone.
    pub(super) fn mended(&self, body: Vec<u8>, root: &str) -> Vec<u8> {
        let Some(text) = std::str::from_utf8(&body).ok() else {
            return body;
        };
        let Some(found) = root_in(text) else {
            return body;
        };
        if found == IN_ORDER_ROOT {
            self.0.in_order.store(true, Ordering::Relaxed);
        }
        let stem = root.trim_end_matches("Result");
        if found == root || !found.starts_with(stem) {
            return body;
        }
        let opened = text.replacen(&format!("<{found}"), &format!("<{root}"), 1);
        let closing = format!("</{found}");
        match opened.rsplit_once(&closing) {
            Some((before, after)) => format!("{before}</{root}{after}").into_bytes(),
            None => body,
        }
    }
}

/// What the root of the reply must be called.
pub(super) fn root_of(method: &str, uri: &str) -> Option<&'static str> {
    let (_, query) = uri.split_once('?')?;
    let has = |name| {
        query
            .split('&')
            .any(|pair| pair.split('=').next() == Some(name))
    };
    match method {
        "POST" if has("uploads") => Some("InitiateMultipartUploadResult"),
        "POST" if has("uploadId") => Some("CompleteMultipartUploadResult"),
        "GET" if has("uploadId") => Some("ListPartsResult"),
        "GET" if has("uploads") => Some("ListMultipartUploadsResult"),
        "GET" if has("list-type") => Some("ListBucketResult"),
        _ => None,
    }
}

/// Name of the first element, declarations and comments left aside.
fn root_in(text: &str) -> Option<&str> {
    let mut rest = text;
    loop {
        rest = &rest[rest.find('<')? + 1..];
        if !rest.starts_with(['?', '!']) {
            let end = rest.find(|c: char| c.is_whitespace() || c == '>' || c == '/')?;
            return Some(&rest[..end]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_of_another_name_is_renamed_and_nothing_else() {
        let quirks = Quirks::default();
        for (found, root) in [
            ("InitiateMultipartUpload", "InitiateMultipartUploadResult"),
            ("ListPartsResponse", "ListPartsResult"),
        ] {
            let reply = |name: &str| {
                format!(
                    "<?xml version=\"1.0\"?>\n<{name} xmlns=\"x\"><Key>{found}</Key></{name}>\n"
                )
            };
            assert_eq!(
                quirks.mended(reply(found).into(), root),
                reply(root).into_bytes()
            );
            for other in [root, "Error", "html"] {
                assert_eq!(
                    quirks.mended(reply(other).into(), root),
                    reply(other).into_bytes()
                );
            }
        }
        for odd in [
            "",
            "<",
            "<?xml?>",
            "<!doctype html",
            "no xml at all",
            "<ListParts/>",
        ] {
            assert_eq!(quirks.mended(odd.into(), "ListPartsResult"), odd.as_bytes());
        }
    }

    #[test]
    fn only_rclones_reply_tells_that_parts_are_taken_in_order() {
        let quirks = Quirks::default();
        let root = "InitiateMultipartUploadResult";
        quirks.mended(format!("<{root}></{root}>").into(), root);
        assert!(!quirks.in_order());
        quirks.mended(format!("<{IN_ORDER_ROOT}></{IN_ORDER_ROOT}>").into(), root);
        assert!(quirks.in_order());
    }
}
