//! A store whose operations are tried again when that can help.
//!
//! Each operation has its own patience, a time and not a count: an outage of the store must not
//! kill a dump of ten hours, whose tool just waits on its pipe meanwhile. The delay before try n is
//! random between 0 and `first × 2^n`, at most `longest` ("full jitter",
//! <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>), so that the many
//! parts that failed together do not come back together.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use super::{
    Checksum, ChecksumKind, ErrorKind, Limits, ObjectInfo, OpenUpload, Page, PartBody, PartReceipt,
    Result, SharedStore, Store, StoreError, Upload, UploadInfo,
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

/// One operation's patience, from its first failure to its last.
#[derive(Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    start: Instant,
    ceiling: Duration,
    tries: u32,
}

impl Backoff {
    /// All of the patience, from now on.
    pub fn new(policy: RetryPolicy) -> Self {
        Self {
            policy,
            start: Instant::now(),
            ceiling: policy.first,
            tries: 1,
        }
    }

    /// After a failure: waits for the delay before the next try, or gives `error` back when it
    /// cannot help or the patience is at its end.
    ///
    /// # Errors
    /// `error`, with how often and how long it was tried.
    pub async fn after(&mut self, error: StoreError) -> Result<()> {
        if error.kind() != ErrorKind::Transient {
            return Err(error);
        }
        let delay = self.ceiling.mul_f64(fastrand::f64());
        if self.start.elapsed() + delay >= self.policy.for_at_most {
            let (tries, seconds) = (self.tries, self.start.elapsed().as_secs());
            return Err(error.context(format!("after {tries} tries in {seconds} s (retry_for)")));
        }
        tracing::debug!(%error, tries = self.tries, ?delay, "trying again");
        tokio::time::sleep(delay).await;
        self.ceiling = (self.ceiling * 2).min(self.policy.longest);
        self.tries += 1;
        Ok(())
    }
}

/// A store whose operations are tried again.
pub struct Retrying {
    store: SharedStore,
    policy: RetryPolicy,
    on_retry: Arc<dyn Fn() + Send + Sync>,
}

impl Retrying {
    /// Wraps `store`; `on_retry` is called before each new try.
    pub fn new(
        store: SharedStore,
        policy: RetryPolicy,
        on_retry: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self {
            store,
            policy,
            on_retry,
        }
    }

    async fn retry<T, F: Future<Output = Result<T>> + Send>(
        &self,
        operation: impl Fn() -> F + Send,
    ) -> Result<T> {
        let mut backoff = Backoff::new(self.policy);
        loop {
            match operation().await {
                Err(error) => backoff.after(error).await?,
                done => return done,
            }
            (self.on_retry)();
        }
    }
}

#[async_trait]
impl Store for Retrying {
    fn address(&self) -> String {
        self.store.address()
    }

    fn limits(&self) -> Limits {
        self.store.limits()
    }

    fn checksum_kind(&self) -> Option<ChecksumKind> {
        self.store.checksum_kind()
    }

    async fn create_upload(&self, key: &str, backup_id: &str) -> Result<Upload> {
        self.retry(|| self.store.create_upload(key, backup_id))
            .await
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
    ) -> Result<ObjectInfo> {
        self.retry(|| self.store.complete_upload(upload, parts, checksum))
            .await
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        self.retry(|| self.store.abort_upload(upload)).await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<()> {
        self.retry(|| self.store.put(key, body.clone())).await
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
}
