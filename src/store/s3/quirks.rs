//! What servers do otherwise than AWS, in one place: what gives it away, and what is done about it.
//!
//! | server | what it does | given away by | met by |
//! |---|---|---|---|
//! | Backblaze B2 | no conditions on writes | 501 to one | none are asked for: keys are unique |
//! | Backblaze B2, GCS | none of the newer checksums | 400 that names the header, `ExcessHeaderValues` | `Content-MD5` |
//! | `rclone serve s3` | writes parts on in order, as they come; of those before their turn it holds 256 MiB, then 60 s later says `SlowDown` | the root `InitiateMultipartUpload` | part 1, which comes last, is a volume of its own |
//! | many small ones | no list of uploads | the root `ListBucketResult`: a bucket's objects | it is taken for 501 |
//! | `rclone serve s3`, moto | an XML root of another name, which the SDK refuses | the name | it is renamed |
//!
//! All of it is learned from the server's own replies: no setting can be forgotten and no host name
//! mislead. What is known before is in `profile`. A quirk is met by asking for less, never by
//! promising less. Sources:
//! <https://www.backblaze.com/apidocs/introduction-to-the-s3-compatible-api>,
//! <https://rclone.org/commands/rclone_serve_s3/#multipart-uploads>.
//!
//! What other servers get wrong is met by what every request says (`super`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::profile::Profile;
use crate::store::{ErrorKind, StoreError};

/// The root of rclone's reply to a new upload.
const IN_ORDER_ROOT: &str = "InitiateMultipartUpload";

/// What a request says that not every server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    /// That it is done only if no object has the key.
    pub condition: bool,
    /// A checksum of AWS's newer kind, where the store is to have one.
    pub checksum: bool,
}

/// What one store has been found to do otherwise.
#[derive(Debug, Clone, Default)]
pub(super) struct Quirks(Arc<Found>);

#[derive(Debug, Default)]
struct Found {
    unconditional: AtomicBool,
    unchecked: AtomicBool,
    in_order: AtomicBool,
    /// By what it calls itself.
    profile: OnceLock<&'static Profile>,
}

impl Quirks {
    /// Whether writes with a condition are refused.
    pub(super) fn unconditional(&self) -> bool {
        self.0.unconditional.load(Ordering::Relaxed)
    }

    /// Whether the newer checksums are refused.
    pub(super) fn unchecked(&self) -> bool {
        self.0.unchecked.load(Ordering::Relaxed)
    }

    pub(super) fn learn_unchecked(&self) {
        self.0.unchecked.store(true, Ordering::Relaxed);
    }

    /// Whether a request that said this is worth another try that says less, by how it was refused.
    pub(super) fn learn(&self, error: &StoreError, asked: Ask) -> bool {
        let refused = [ErrorKind::Unsupported, ErrorKind::Invalid].contains(&error.kind());
        let words = error.words().to_ascii_lowercase();
        let names = |header| words.contains(header);
        let of_checksum = error.code() == Some("ExcessHeaderValues")
            || names("x-amz-checksum")
            || names("x-amz-sdk-checksum");
        if refused && asked.checksum && of_checksum {
            self.learn_unchecked();
            return true;
        }
        let unsupported = error.kind() == ErrorKind::Unsupported;
        if unsupported && asked.condition {
            self.0.unconditional.store(true, Ordering::Relaxed);
            return true;
        }
        false
    }

    /// Remembers what a reply's `Server` says.
    pub(super) fn learn_server(&self, server: &str) {
        if self.0.profile.get().is_none()
            && let Some(profile) = Profile::of_server(server)
        {
            let _ = self.0.profile.set(profile);
        }
    }

    /// The profile of whoever the server says that it is.
    pub(super) fn profile(&self) -> Option<&'static Profile> {
        let said = self.0.profile.get().copied();
        said.or_else(|| Profile::called("rclone").filter(|_| self.in_order()))
    }

    /// Whether parts are taken in their order, and few before their turn.
    pub(super) fn in_order(&self) -> bool {
        self.0.in_order.load(Ordering::Relaxed)
    }

    /// The reply with its root called as it must be, when what it is called means the same.
    pub(super) fn mended(&self, body: Vec<u8>, root: Root) -> Vec<u8> {
        let Root(root, stem) = root;
        let Some(text) = std::str::from_utf8(&body).ok() else {
            return body;
        };
        let Some(found) = root_in(text) else {
            return body;
        };
        if found == IN_ORDER_ROOT {
            self.0.in_order.store(true, Ordering::Relaxed);
        }
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

/// Whether a reply lists objects where uploads were asked for: a server that does not know `?uploads`
/// passes it over.
pub(super) fn lists_objects_instead(body: &[u8], root: Root) -> bool {
    root.0 == "ListMultipartUploadsResult"
        && std::str::from_utf8(body).ok().and_then(root_in) == Some("ListBucketResult")
}

/// What the root of a reply must be called, and with what one begins that means the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root(&'static str, &'static str);

/// The root of the reply to such a request.
pub(super) fn root_of(method: &str, uri: &str) -> Option<Root> {
    let (_, query) = uri.split_once('?')?;
    let has = |name| {
        query
            .split('&')
            .any(|pair| pair.split('=').next() == Some(name))
    };
    Some(match method {
        "POST" if has("uploads") => {
            Root("InitiateMultipartUploadResult", "InitiateMultipartUpload")
        }
        "POST" if has("uploadId") => {
            Root("CompleteMultipartUploadResult", "CompleteMultipartUpload")
        }
        "GET" if has("uploadId") => Root("ListPartsResult", "ListParts"),
        "GET" if has("uploads") => Root("ListMultipartUploadsResult", "ListMultipartUploads"),
        "GET" if has("list-type") => Root("ListBucketResult", "ListBucket"),
        "GET" if has("versions") => Root("ListVersionsResult", "ListVersions"),
        "GET" if has("versioning") => Root("VersioningConfiguration", "GetBucketVersioning"),
        _ => return None,
    })
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
        for (found, method, query) in [
            ("InitiateMultipartUpload", "POST", "uploads"),
            ("ListPartsResponse", "GET", "uploadId=u"),
            ("GetBucketVersioningResponse", "GET", "versioning"),
        ] {
            let root = root_of(method, &format!("http://host/bucket?{query}")).unwrap();
            let Root(called, _) = root;
            let reply = |name: &str| {
                format!(
                    "<?xml version=\"1.0\"?>\n<{name} xmlns=\"x\"><Key>{found}</Key></{name}>\n"
                )
            };
            assert_eq!(
                quirks.mended(reply(found).into(), root),
                reply(called).into_bytes()
            );
            for other in [called, "Error", "html"] {
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
            let root = Root("ListPartsResult", "ListParts");
            assert_eq!(quirks.mended(odd.into(), root), odd.as_bytes());
        }
    }

    #[test]
    fn what_is_refused_is_asked_for_no_more_and_nothing_else_is_given_up() {
        let all = Ask {
            condition: true,
            checksum: true,
        };
        let error = |kind, code, words: &str| {
            StoreError::new(kind, words).with_reply(Some(400), Some(code))
        };
        let (invalid, unsupported) = (ErrorKind::Invalid, ErrorKind::Unsupported);
        let b2 = "Unsupported header 'x-amz-sdk-checksum-algorithm' received for this API call.";
        for (error, condition, checksum) in [
            (error(invalid, "InvalidArgument", b2), true, false),
            (error(invalid, "ExcessHeaderValues", ""), true, false),
            (
                error(unsupported, "NotImplemented", "not implemented"),
                false,
                true,
            ),
            (
                error(invalid, "InvalidArgument", "key is too long"),
                true,
                true,
            ),
            (
                error(ErrorKind::Denied, "AccessDenied", "x-amz-checksum-crc32"),
                true,
                true,
            ),
        ] {
            let quirks = Quirks::default();
            let again = quirks.learn(&error, all);
            assert_eq!(again, !(condition && checksum), "{error}");
            assert_eq!(quirks.unconditional(), !condition, "{error}");
            assert_eq!(quirks.unchecked(), !checksum, "{error}");
            // What was not said is not the reason.
            let less = Ask {
                condition: false,
                checksum: false,
            };
            assert!(!quirks.learn(&error, less), "{error}");
            // Requests that were on their way at the same time are refused alike, and tried alike.
            assert_eq!(quirks.learn(&error, all), again, "{error}");
        }
    }

    #[test]
    fn only_rclones_reply_tells_that_parts_are_taken_in_order() {
        let quirks = Quirks::default();
        let root = root_of("POST", "http://host/key?uploads").unwrap();
        let Root(called, _) = root;
        quirks.mended(format!("<{called}></{called}>").into(), root);
        assert!(!quirks.in_order());
        quirks.mended(format!("<{IN_ORDER_ROOT}></{IN_ORDER_ROOT}>").into(), root);
        assert!(quirks.in_order());
    }
}
