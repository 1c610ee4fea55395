//! What is a wrong setting at the beginning, and passes in the middle; and a store that gives too
//! little to go on with.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tapline::archive::Compression;
use tapline::restore::{RestoreError, Stored, Target, restore};
use tapline::store::retry::RetryPolicy;
use tapline::store::{PartBody, PartReceipt, Result, Store};
use tokio_util::sync::CancellationToken;

use super::restore::stored;
use super::store_http::{Server, error, patient, reply, upload};

async fn put_part(store: &dyn Store) -> Result<PartReceipt> {
    let body: PartBody = bytes::Bytes::from("bytes").into();
    store.put_part(&upload(), 1, body, None).await
}

/// In hour ten a proxy has lost its way, a clock was set, a packet was damaged: nothing to lose a
/// dump for. At the first request all but damage is how things are.
#[tokio::test]
async fn what_stands_between_may_hiccup_once_the_store_has_accepted_something() {
    for (status, code) in [
        (307, "TemporaryRedirect"),
        (400, ""),
        (400, "BadRequest"),
        (400, "BadDigest"),
        (400, "IncompleteBody"),
        (400, "XAmzContentSHA256Mismatch"),
        (400, "ExpiredToken"),
        (403, "RequestTimeTooSkewed"),
    ] {
        let refusals = Arc::new(Mutex::new(0));
        let left = refusals.clone();
        let server = Server::start(0, move |_| {
            let mut left = left.lock().unwrap();
            if *left == 0 {
                return reply(200, "ETag: \"e\"", "");
            }
            *left -= 1;
            match code {
                "" => reply(status, "", ""),
                code => error(status, code),
            }
        })
        .await;
        let case = format!("{status} {code}");
        let store = patient(server.store().await, Duration::from_secs(20));
        put_part(&store).await.unwrap();
        *refusals.lock().unwrap() = 2;
        put_part(&store).await.expect(&case);
        assert_eq!(server.asked().len(), 4, "{case}");

        let fresh = patient(server.store().await, Duration::from_secs(20));
        *refusals.lock().unwrap() = 1;
        let refused = put_part(&fresh).await.expect_err(&case);
        assert_eq!(refused.tries(), 1, "{case}: {refused}");
    }
}

/// 7,700 requests for 30 bytes each were made of one archive.
#[tokio::test]
async fn a_store_that_gives_a_few_bytes_at_a_time_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump");
    std::fs::write(&dump, vec![7; 90_000]).unwrap();
    let (_, manifest) = stored(&dump, Compression::None).await;
    let size = manifest.archive.size;
    let server = Server::start(0, move |asked| {
        let range = asked.header("range").strip_prefix("bytes=");
        let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
            return format!("HTTP/1.1 200 X\r\nContent-Length: {size}\r\nETag: \"e\"\r\n\r\n");
        };
        let [from, to]: [u64; 2] = [first, last].map(|number| number.parse().unwrap());
        let (length, few) = (to + 1 - from, "x".repeat(30));
        format!(
            "HTTP/1.1 206 X\r\nContent-Length: {length}\r\nContent-Range: bytes {from}-{to}/{size}\r\n\
             Connection: close\r\n\r\n{few}"
        )
    })
    .await;
    let backup = Stored {
        store: Arc::new(server.store().await),
        manifest,
        retry: RetryPolicy {
            for_at_most: Duration::from_secs(1),
            first: Duration::from_millis(5),
            longest: Duration::from_millis(20),
        },
        identities: Arc::default(),
        progress: Arc::default(),
    };
    let cancel = CancellationToken::new();
    let restored = restore(Arc::new(backup), Target::Nowhere, &cancel).await;
    let failed = restored.unwrap_err();
    assert!(matches!(failed, RestoreError::Store(_)), "{failed}");
}
