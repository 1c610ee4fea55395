//! A store whose operations are tried again when that can help.
//!
//! Each operation has its own patience, a time and not a count: an outage of the store must not
//! kill a dump of ten hours, whose tool just waits on its pipe meanwhile. The delay before try n is
//! random between 0 and `first × 2^n`, at most `longest` ("full jitter",
//! <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>), so that the many
//! parts that failed together do not come back together.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use super::{
    Checksum, ChecksumKind, ErrorKind, Limits, ObjectInfo, OpenUpload, Page, PartBody, PartReceipt,
    Result, SharedStore, Store, StoreError, Upload, UploadInfo, Version, Written,
};

/// How patient to be with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How long one operation is tried again.
    pub for_at_most: Duration,
    /// The longest possible delay before the second try; it doubles from there.
    pub first: Duration,
    /// No delay is longer.
    pub longest: Duration,
}

impl RetryPolicy {
    /// The usual delays, for `for_at_most`.
    pub fn lasting(for_at_most: Duration) -> Self {
        Self {
            for_at_most,
            first: Duration::from_millis(200),
            longest: Duration::from_secs(20),
        }
    }
}

/// The end of all patience, which somebody else may set while operations are under way: then the
/// one that is being tried is the last try.
#[derive(Debug, Clone, Default)]
pub struct Hurry(Arc<Mutex<Haste>>);

#[derive(Debug, Clone, Copy, Default)]
enum Haste {
    #[default]
    NotYet,
    Until(Instant),
    NoMore,
}

impl Hurry {
    /// From now on patience lasts so long at most. The first who says so counts.
    pub fn within(&self, time: Duration) {
        let mut haste = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Haste::NotYet, Some(end)) = (*haste, Instant::now().checked_add(time)) {
            *haste = Haste::Until(end);
        }
    }

    /// Nobody waits for the store any more.
    pub fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Haste::NoMore;
    }

    fn left(&self) -> Duration {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Haste::Until(end) => end.saturating_duration_since(Instant::now()),
            Haste::NotYet | Haste::NoMore => Duration::MAX,
        }
    }
}

/// One operation's patience, from its first failure to its last.
#[derive(Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    hurry: Hurry,
    /// The first failure; a try itself may take as long as its bytes move.
    start: Option<Instant>,
    ceiling: Duration,
    tries: u32,
    /// Whether one of the tries may have been carried out although it failed.
    unanswered: bool,
    unheard: bool,
}

impl Backoff {
    /// All of the patience.
    pub fn new(policy: RetryPolicy) -> Self {
        Self {
            policy,
            hurry: Hurry::default(),
            start: None,
            ceiling: policy.first,
            tries: 0,
            unanswered: false,
            unheard: false,
        }
    }

    /// No longer than `hurry` lets it last.
    #[must_use]
    pub fn hurried_by(self, hurry: &Hurry) -> Self {
        let hurry = hurry.clone();
        Self { hurry, ..self }
    }

    /// Whether one of the tries so far may have been carried out although it failed.
    pub fn unanswered(&self) -> bool {
        self.unanswered
    }

    /// Whether the patience is at its end.
    pub fn is_over(&self) -> bool {
        let is_late = |start: Instant| start.elapsed() >= self.policy.for_at_most;
        self.hurry.left().is_zero() || self.start.is_some_and(is_late)
    }

    /// After a failure: waits for the delay before the next try, or gives `error` back when it
    /// cannot help or the patience is at its end. The last try begins when the patience ends, and
    /// not before.
    ///
    /// # Errors
    /// `error`, with how often and how long it was tried.
    pub async fn after(&mut self, error: StoreError) -> Result<()> {
        self.tries += 1;
        self.unanswered |= error.unanswered();
        self.unheard |= error.unheard();
        let elapsed = self.start.get_or_insert_with(Instant::now).elapsed();
        let left = self.policy.for_at_most.saturating_sub(elapsed);
        let left = left.min(self.hurry.left());
        if !error.may_pass() || left.is_zero() {
            return Err(error
                .maybe_done(self.unanswered)
                .maybe_coming(self.unheard)
                .with_tries(self.tries, elapsed));
        }
        let asked = error.retry_after().unwrap_or_default();
        let delay = self.ceiling.mul_f64(fastrand::f64()).max(asked).min(left);
        if self.tries == 1 {
            let patience = self.policy.for_at_most;
            tracing::warn!(%error, "a request failed; trying again for up to {patience:?}");
        } else {
            tracing::debug!(%error, tries = self.tries, ?delay, "trying again");
        }
        tokio::time::sleep(delay).await;
        self.ceiling = (self.ceiling * 2).min(self.policy.longest);
        Ok(())
    }
}

/// A store whose operations are tried again.
pub struct PatientStore {
    store: SharedStore,
    policy: RetryPolicy,
    hurry: Hurry,
    on_retry: Arc<dyn Fn() + Send + Sync>,
}

impl PatientStore {
    /// Wraps `store`; `on_retry` is called before each new try.
    pub fn new(
        store: SharedStore,
        policy: RetryPolicy,
        on_retry: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self {
            store,
            policy,
            hurry: Hurry::default(),
            on_retry,
        }
    }

    /// The same, no longer patient than `hurry` lets it.
    #[must_use]
    pub fn hurried_by(self, hurry: Hurry) -> Self {
        Self { hurry, ..self }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.policy).hurried_by(&self.hurry)
    }

    async fn retry<T, F: Future<Output = Result<T>> + Send>(
        &self,
        operation: impl Fn() -> F + Send,
    ) -> Result<T> {
        let mut backoff = self.backoff();
        loop {
            match operation().await {
                Err(error) => backoff.after(error).await?,
                done => return done,
            }
            (self.on_retry)();
        }
    }
}

/// Whether an object may be what was sent: of that size, and of that checksum where it has one.
fn same(object: &ObjectInfo, size: u64, sent: Option<Checksum>) -> bool {
    let differs =
        |(stored, sent): (Checksum, Checksum)| stored.kind() == sent.kind() && stored != sent;
    object.size == size && !object.checksum.zip(sent).is_some_and(differs)
}

/// Whether an object is the volume of a backup; the second argument says whether that may be there.
fn of_backup(
    backup_id: &str,
    size: u64,
    checksum: Option<Checksum>,
) -> impl Fn(&ObjectInfo, bool) -> bool + Send + Sync {
    move |object, sent| {
        let named = match &object.backup_id {
            Some(id) => id == backup_id,
            // The server keeps no metadata.
            None => sent,
        };
        named && same(object, size, checksum)
    }
}

/// What a look at the object says of a write.
enum Look {
    Ours,
    Other(String),
    Absent,
    /// Whether a later look may say more is the error's to tell.
    Refused(StoreError),
}

impl PatientStore {
    /// Writes an object of which there must be exactly one, until that is proven: by the reply, and
    /// by a look at what is there. Where looking is not allowed (a key that may only write is a
    /// usual protection) the reply is proof enough. `ours` says whether an object is the one; its
    /// second argument is whether ours may be there at all.
    async fn write<F: Future<Output = Result<Written>> + Send>(
        &self,
        key: &str,
        request: impl Fn() -> F + Send,
        ours: impl Fn(&ObjectInfo, bool) -> bool + Send + Sync,
    ) -> Result<Written> {
        let mut backoff = self.backoff();
        let mut proof = None;
        loop {
            let reply = match proof.take() {
                Some(written) => Ok(written),
                None => request().await,
            };
            let doubtful =
                backoff.unanswered() || reply.as_ref().is_err_and(StoreError::unanswered);
            let failed_for_good = reply.as_ref().is_err_and(|error| !error.may_pass());
            if let Ok(Written {
                is_proven: true, ..
            }) = reply
            {
                return reply;
            }
            let look = if reply.is_ok() || doubtful || failed_for_good {
                let sent = reply.is_ok() || doubtful;
                self.look(key, |object| ours(object, sent)).await
            } else {
                Look::Absent
            };
            let error = match (reply, look) {
                (Ok(written), Look::Ours) => return Ok(written),
                (Err(_), Look::Ours) => return Ok(Written::default()),
                (Ok(_), Look::Other(found)) => {
                    return Err(StoreError::new(ErrorKind::Invalid, found).maybe_done(true));
                }
                (Ok(_), Look::Absent) => {
                    let words = format!("{key} was written and is not there");
                    StoreError::new(ErrorKind::Transient, words).maybe_done(true)
                }
                (Ok(written), Look::Refused(error)) => {
                    if !error.may_pass() || backoff.is_over() {
                        return Ok(written);
                    }
                    proof = Some(written);
                    error
                }
                // The key is unique, so what has it now is what an earlier try has put there.
                (Err(error), Look::Refused(refused))
                    if doubtful
                        && error.kind() == ErrorKind::AlreadyExists
                        && !refused.may_pass() =>
                {
                    return Ok(Written::default());
                }
                // What the server says of a second try says nothing of the first; only a look does.
                (Err(error), Look::Refused(refused)) if doubtful => {
                    let worse = if error.may_pass() { error } else { refused };
                    worse.passing(true).maybe_done(true)
                }
                (Err(error), Look::Absent) if doubtful => error.passing(true).maybe_done(true),
                (Err(error), _) => error,
            };
            backoff.after(error).await?;
            (self.on_retry)();
        }
    }

    async fn look(&self, key: &str, ours: impl Fn(&ObjectInfo) -> bool + Send) -> Look {
        match self.store.head(key).await {
            Ok(Some(object)) if ours(&object) => Look::Ours,
            Ok(Some(object)) => Look::Other(format!(
                "the store took {key}, and has an object of {} bytes there that is another",
                object.size
            )),
            Ok(None) => Look::Absent,
            Err(error) => Look::Refused(error),
        }
    }
}

#[async_trait]
impl Store for PatientStore {
    fn address(&self) -> String {
        self.store.address()
    }

    fn limits(&self) -> Limits {
        self.store.limits()
    }

    fn checksum_kind(&self) -> Option<ChecksumKind> {
        self.store.checksum_kind()
    }

    fn clock_offset(&self) -> Option<i64> {
        self.store.clock_offset()
    }

    async fn create_upload(&self, key: &str, backup_id: &str) -> Result<Upload> {
        let mut backoff = self.backoff();
        loop {
            match self.store.create_upload(key, backup_id).await {
                Ok(upload) => {
                    return Ok(Upload {
                        has_twin: upload.has_twin || backoff.unanswered(),
                        ..upload
                    });
                }
                Err(error) => backoff.after(error).await?,
            }
            (self.on_retry)();
        }
    }

    async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<PartReceipt> {
        self.retry(|| self.store.put_part(upload, number, body.clone(), checksum))
            .await
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[PartReceipt],
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        let size = parts.iter().map(|part| part.size).sum();
        let ours = of_backup(&upload.backup_id, size, checksum);
        let request = || self.store.complete_upload(upload, parts, checksum);
        self.write(&upload.key, request, ours).await
    }

    async fn put_volume(
        &self,
        key: &str,
        backup_id: &str,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        let ours = of_backup(backup_id, body.len(), checksum);
        let request = || {
            self.store
                .put_volume(key, backup_id, body.clone(), checksum)
        };
        self.write(key, request, ours).await
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        self.retry(|| self.store.abort_upload(upload)).await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<Written> {
        let checksum = self.checksum_kind().map(|kind| Checksum::of(kind, &body));
        let ours =
            |object: &ObjectInfo, sent: bool| sent && same(object, body.len() as u64, checksum);
        self.write(key, || self.store.put(key, body.clone()), ours)
            .await
    }

    async fn replace(&self, key: &str, body: Bytes) -> Result<Written> {
        self.retry(|| self.store.replace(key, body.clone())).await
    }

    async fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.retry(|| self.store.get(key, range.clone())).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.retry(|| self.store.head(key)).await
    }

    async fn list(&self, prefix: &str, page: Option<String>) -> Result<Page<ObjectInfo>> {
        self.retry(|| self.store.list(prefix, page.clone())).await
    }

    async fn list_uploads(&self, prefix: &str, page: Option<String>) -> Result<Page<OpenUpload>> {
        self.retry(|| self.store.list_uploads(prefix, page.clone()))
            .await
    }

    async fn upload_info(&self, key: &str, upload_id: &str) -> Result<UploadInfo> {
        self.retry(|| self.store.upload_info(key, upload_id)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.retry(|| self.store.delete(key)).await
    }

    async fn lock_joined(&self, key: &str) -> Result<()> {
        self.retry(|| self.store.lock_joined(key)).await
    }

    async fn keeps_versions(&self) -> Option<bool> {
        self.store.keeps_versions().await
    }

    async fn list_versions(&self, prefix: &str, page: Option<String>) -> Result<Page<Version>> {
        self.retry(|| self.store.list_versions(prefix, page.clone()))
            .await
    }

    async fn delete_version(&self, version: &Version) -> Result<()> {
        self.retry(|| self.store.delete_version(version)).await
    }

    // A connection that breaks in the body is worth a second one, too.
    async fn get_small(&self, key: &str, limit: usize) -> Result<Bytes> {
        self.retry(|| self.store.get_small(key, limit)).await
    }
}
