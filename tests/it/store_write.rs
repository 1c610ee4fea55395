//! A write is proven by its reply and by a look, whatever happens to either.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tapline::store::memory::MemoryStore;
use tapline::store::retry::{PatientStore, RetryPolicy};
use tapline::store::{
    Checksum, ChecksumKind, ErrorKind, Limits, Result, Store, StoreError, Written,
};

use super::meddled::{Meddled, Meddler};

/// What becomes of a request and its reply.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Good,
    /// Carried out, and the reply is lost.
    Lost,
    /// Not carried out, and no reply.
    Dropped,
    /// Not carried out, and the reply says that it was.
    Lie,
    /// 503.
    Busy,
    Denied,
    /// 404: of a completion that the upload is gone.
    Gone,
    /// The same when a try that was given up long ago has done it.
    Come,
}
use Fate::{Busy, Come, Denied, Dropped, Gone, Good, Lie, Lost};

/// A script for the writes and one for the looks; the last line of each repeats.
struct Scripted {
    writes: Mutex<VecDeque<Fate>>,
    heads: Mutex<VecDeque<Fate>>,
}

fn next(script: &Mutex<VecDeque<Fate>>) -> Fate {
    let mut script = script.lock().unwrap();
    if script.len() > 1 {
        script.pop_front().unwrap()
    } else {
        script[0]
    }
}

fn failure(fate: Fate) -> StoreError {
    match fate {
        Denied => StoreError::new(ErrorKind::Denied, "AccessDenied"),
        Busy => StoreError::new(ErrorKind::Transient, "SlowDown"),
        Gone | Come => StoreError::new(ErrorKind::NotFound, "NoSuchUpload"),
        _ => StoreError::new(ErrorKind::Transient, "connection reset").maybe_done(true),
    }
}

impl Meddler for Scripted {
    async fn meet<T: Send>(
        &self,
        operation: &'static str,
        _: &str,
        lie: Option<T>,
        carry_out: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let fate = match operation {
            "complete" | "put" => next(&self.writes),
            "head" => next(&self.heads),
            _ => Good,
        };
        match fate {
            Good => carry_out.await,
            Lie => Ok(lie.expect("of writes and looks alone")),
            Lost | Come => carry_out.await.and(Err(failure(fate))),
            _ => Err(failure(fate)),
        }
    }
}

const KEY: &str = "a/archive";

/// Completes an upload, and puts an object, by the same scripts; returns what came of each, and
/// whether the object is there.
async fn written(
    writes: &[Fate],
    heads: &[Fate],
    patience: Duration,
) -> [(Result<Written>, bool); 2] {
    let scripted = || {
        let memory = MemoryStore::new(Limits::S3, Some(ChecksumKind::Crc64Nvme));
        let store = Meddled {
            store: memory.clone(),
            meddler: Scripted {
                writes: Mutex::new(writes.iter().copied().collect()),
                heads: Mutex::new(heads.iter().copied().collect()),
            },
        };
        let policy = RetryPolicy {
            for_at_most: patience,
            first: Duration::from_millis(5),
            longest: Duration::from_millis(20),
        };
        let store = PatientStore::new(Arc::new(store), policy, Arc::new(|| ()));
        (memory, store)
    };
    let (memory, store) = scripted();
    let upload = store.create_upload(KEY, "id").await.unwrap();
    let checksum = Some(Checksum::of(ChecksumKind::Crc64Nvme, b"bytes"));
    let body = Bytes::from("bytes").into();
    let part = store.put_part(&upload, 1, body, checksum).await.unwrap();
    let completed = store.complete_upload(&upload, &[part], checksum).await;
    let completed = (completed, memory.read(KEY).is_some());
    let (memory, store) = scripted();
    let put = store.put(KEY, "bytes".into()).await;
    [completed, (put, memory.read(KEY).is_some())]
}

#[tokio::test]
async fn a_write_ends_well_whatever_happens_to_single_replies() {
    let patience = Duration::from_secs(10);
    for writes in [
        &[Good][..],
        &[Lost, Good],
        &[Dropped, Good],
        &[Lie, Good],
        &[Busy, Lost, Dropped, Lie, Good],
        &[Lost, Lost, Lost, Good],
    ] {
        for heads in [
            &[Good][..],
            &[Busy, Good],
            &[Dropped, Dropped, Good],
            &[Busy, Dropped, Busy, Good],
        ] {
            for (result, is_there) in written(writes, heads, patience).await {
                assert!(
                    result.is_ok() && is_there,
                    "{writes:?} {heads:?} {result:?}"
                );
            }
        }
    }
}

/// A completion that takes minutes: the first try's reply does not come, the second is told that
/// there is no such upload, and the object appears later.
#[tokio::test]
async fn an_upload_that_is_gone_after_a_lost_reply_may_still_become_its_object() {
    let writes = [Dropped, Gone, Gone, Come];
    for (result, is_there) in written(&writes, &[Good], Duration::from_secs(10)).await {
        assert!(result.is_ok() && is_there, "{result:?}");
    }
}

#[tokio::test]
async fn a_good_reply_is_proof_where_nobody_may_look() {
    for heads in [Denied, Busy, Dropped] {
        for (result, is_there) in written(&[Good], &[heads], Duration::from_millis(100)).await {
            assert!(result.is_ok() && is_there, "{heads:?} {result:?}");
        }
    }
    // The condition of the second try is answered by what the first has left.
    let [_, (put, _)] = written(&[Lost, Good], &[Denied], Duration::from_secs(10)).await;
    assert!(put.is_ok(), "{put:?}");
}

#[tokio::test]
async fn a_write_that_is_not_proven_fails_and_says_that_it_may_be_there() {
    let patience = Duration::from_millis(100);
    for (writes, heads, doubtful) in [
        (&[Lost][..], Busy, true),
        (&[Lost], Dropped, true),
        (&[Dropped], Good, true),
        (&[Lie], Good, true),
        (&[Busy], Good, false),
        (&[Denied], Good, false),
        // One lost reply among others that were none.
        (&[Dropped, Busy], Good, true),
    ] {
        for (result, _) in written(writes, &[heads], patience).await {
            let error = result.expect_err(&format!("{writes:?} {heads:?}"));
            assert_eq!(error.unanswered(), doubtful, "{writes:?} {heads:?} {error}");
            assert_eq!(error.kind() == ErrorKind::Denied, writes == [Denied]);
        }
    }
}

#[tokio::test]
async fn what_somebody_else_has_written_is_not_taken_for_ours() {
    let memory = MemoryStore::new(Limits::S3, Some(ChecksumKind::Crc64Nvme));
    memory.put(KEY, "bytes".into()).await.unwrap();
    let policy = RetryPolicy::lasting(Duration::from_secs(10));
    let store = PatientStore::new(Arc::new(memory), policy, Arc::new(|| ()));
    let put = store.put(KEY, "bytes".into()).await.unwrap_err();
    assert_eq!(put.kind(), ErrorKind::AlreadyExists);
    let upload = store.create_upload(KEY, "id").await.unwrap();
    let part = store.put_part(&upload, 1, Bytes::from("bytes").into(), None);
    let parts = [part.await.unwrap()];
    let completed = store
        .complete_upload(&upload, &parts, None)
        .await
        .unwrap_err();
    assert_eq!(completed.kind(), ErrorKind::AlreadyExists);
}

/// It gave up as soon as the next delay did not fit, at 12 s of 20.
#[tokio::test]
async fn the_last_try_is_made_when_the_patience_ends() {
    for _ in 0..5 {
        let patience = Duration::from_millis(600);
        let start = std::time::Instant::now();
        let [(completed, _), (put, _)] = written(&[Busy], &[Good], patience).await;
        assert!(start.elapsed() >= 2 * patience, "{:?}", start.elapsed());
        for error in [completed.unwrap_err(), put.unwrap_err()] {
            assert!(error.tries() > 10 && error.elapsed() >= patience, "{error}");
        }
    }
}
