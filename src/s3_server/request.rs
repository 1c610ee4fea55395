//! Which of S3's operations an HTTP request is, and the log of all that arrived.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

/// An operation of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    Create,
    Part,
    Complete,
    Abort,
    ListParts,
    ListUploads,
    List,
    Put,
    Get,
    Head,
    Delete,
    /// What no backup needs: a bucket's settings, for example.
    Other,
}

/// A request, as far as its head tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    pub op: Op,
    /// The object's key; for listings the prefix. Empty when the request has none.
    pub key: String,
    /// Number of the part, when it is one.
    pub part: Option<u32>,
}

impl Asked {
    /// `method`, and a path-style `/bucket/key` with its query.
    pub(super) fn new(method: &str, path: &str, query: &str) -> Self {
        let parameter = |wanted: &str| {
            query.split('&').find_map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (name == wanted).then(|| percent_decode_str(value).decode_utf8_lossy().into_owned())
            })
        };
        let has = |wanted| parameter(wanted).is_some();
        let (_, key) = path
            .trim_start_matches('/')
            .split_once('/')
            .unwrap_or_default();
        let part = parameter("partNumber").and_then(|number| number.parse().ok());
        let op = match method {
            "POST" if has("uploads") => Op::Create,
            "POST" if has("uploadId") => Op::Complete,
            "PUT" if part.is_some() => Op::Part,
            "PUT" if !key.is_empty() => Op::Put,
            "DELETE" if has("uploadId") => Op::Abort,
            "DELETE" if !key.is_empty() => Op::Delete,
            "GET" if has("uploadId") => Op::ListParts,
            "GET" if has("uploads") => Op::ListUploads,
            "GET" if has("list-type") => Op::List,
            "GET" if !key.is_empty() => Op::Get,
            "HEAD" if !key.is_empty() => Op::Head,
            _ => Op::Other,
        };
        let key = match op {
            Op::List | Op::ListUploads => parameter("prefix").unwrap_or_default(),
            _ => percent_decode_str(key).decode_utf8_lossy().into_owned(),
        };
        Self { op, key, part }
    }
}

/// All requests so far, in the order in which their heads arrived.
#[derive(Debug, Default)]
pub struct Log {
    asked: Mutex<Vec<Asked>>,
    more: Condvar,
    /// Requests that are still being worked on, those of clients that are gone, too.
    pending: AtomicUsize,
}

/// A request is being worked on for as long as this lives.
pub(super) struct Pending(Arc<Log>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Release);
    }
}

impl Log {
    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().expect("no holder panics")
    }

    pub(super) fn add(self: &Arc<Self>, asked: Asked) -> Pending {
        self.pending.fetch_add(1, Ordering::Acquire);
        self.asked().push(asked);
        self.more.notify_all();
        Pending(self.clone())
    }

    /// How many requests are still being worked on, those of clients that are gone, too.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// All that was asked so far.
    pub fn all(&self) -> Vec<Asked> {
        self.asked().clone()
    }

    /// Waits on the calling thread until the log holds enough; false when that takes longer than
    /// `patience`.
    pub fn wait(&self, patience: Duration, enough: impl Fn(&[Asked]) -> bool) -> bool {
        let end = Instant::now() + patience;
        let mut asked = self.asked();
        while !enough(&asked) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            asked = self
                .more
                .wait_timeout(asked, left)
                .expect("no holder panics")
                .0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_told_by_method_path_and_query() {
        let asked = |method, path, query| {
            let Asked { op, key, part } = Asked::new(method, path, query);
            (op, key, part)
        };
        let key = || "a/b c".to_owned();
        for (method, query, op, part) in [
            ("POST", "uploads=", Op::Create, None),
            ("POST", "uploads", Op::Create, None),
            (
                "PUT",
                "x-id=UploadPart&partNumber=12&uploadId=u",
                Op::Part,
                Some(12),
            ),
            ("POST", "uploadId=u", Op::Complete, None),
            ("DELETE", "uploadId=u", Op::Abort, None),
            ("GET", "uploadId=u", Op::ListParts, None),
            ("PUT", "x-id=PutObject", Op::Put, None),
            ("GET", "x-id=GetObject", Op::Get, None),
            ("HEAD", "", Op::Head, None),
            ("DELETE", "", Op::Delete, None),
        ] {
            assert_eq!(asked(method, "/bucket/a/b%20c", query), (op, key(), part));
        }
        for (query, op) in [
            ("list-type=2&prefix=a%2Fb%20c", Op::List),
            ("uploads&prefix=a%2Fb%20c", Op::ListUploads),
        ] {
            assert_eq!(asked("GET", "/bucket", query), (op, key(), None));
            assert_eq!(asked("GET", "/bucket/", query), (op, key(), None));
        }
        assert_eq!(
            asked("GET", "/bucket", "lifecycle"),
            (Op::Other, String::new(), None)
        );
        assert_eq!(
            asked("HEAD", "/bucket", ""),
            (Op::Other, String::new(), None)
        );
    }
}
