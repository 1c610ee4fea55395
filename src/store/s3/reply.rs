//! The reply to a request: waited for as long as there is sense in it, and judged.

use std::sync::PoisonError;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::S3Store;
use super::explain::{self, explain};
use crate::store::progress::Progress;
use crate::store::{ErrorKind, NOTES, Result, StoreError};

/// A key that may do one of these may do the others; it need not be one that may look.
const WRITES: [&str; 4] = [
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "PutObject",
];
const READS: [&str; 3] = ["HeadObject", "GetObject", "ListObjectsV2"];

impl S3Store {
    /// Waits for the reply to one request.
    pub(super) async fn reply<T, E>(
        &self,
        operation: &'static str,
        key: Option<&str>,
        request: impl Future<Output = std::result::Result<T, SdkError<E>>> + Send,
    ) -> Result<T>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let limit = match operation {
            "CompleteMultipartUpload" => self.settings.timeouts.completion,
            _ => self.settings.timeouts.small,
        };
        let timeout = async {
            tokio::time::sleep(limit).await;
            format!("no reply within {} s", limit.as_secs())
        };
        self.judge(operation, key, request, timeout).await
    }

    /// Waits for the reply to a request with a body, for as long as that moves.
    pub(super) async fn sent<T, E>(
        &self,
        operation: &'static str,
        key: &str,
        progress: &Progress,
        request: impl Future<Output = std::result::Result<T, SdkError<E>>> + Send,
    ) -> Result<T>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let standstill = progress.standstill(self.settings.timeouts);
        self.judge(operation, Some(key), request, standstill).await
    }

    async fn judge<T, E>(
        &self,
        operation: &'static str,
        key: Option<&str>,
        request: impl Future<Output = std::result::Result<T, SdkError<E>>> + Send,
        end: impl Future<Output = String> + Send,
    ) -> Result<T>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let accepted = || self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let result = tokio::select! {
            biased;
            result = Box::pin(request) => result.map_err(|error| explain(error, !accepted().is_empty())),
            words = end => Err(StoreError::new(ErrorKind::Transient, words)
                .maybe_done(true)
                .maybe_coming(true)),
        };
        let error = match result {
            Ok(done) => {
                // Who may leave a note need not be allowed to write backups.
                if !key.is_some_and(|key| key.starts_with(NOTES)) {
                    accepted().insert(operation);
                }
                return Ok(done);
            }
            Err(error) => error.with_request(operation, key).with_store(&*self.place),
        };
        match error.kind() {
            ErrorKind::Denied => {
                self.keys.forget().await;
                let accepted = accepted();
                let is_write = |operation| WRITES.contains(operation);
                // What may not be deleted may be locked, and what may not be looked at secret:
                // only another of its kind says that this one was allowed.
                let hiccup = explain::is_about_keys(&error) && !accepted.is_empty()
                    || is_write(&operation) && accepted.iter().any(is_write)
                    || READS.contains(&operation) && accepted.contains(operation);
                Err(error.passing(hiccup))
            }
            // The server knows who asks, and would have done it.
            ErrorKind::NotFound | ErrorKind::AlreadyExists => {
                accepted().insert(operation);
                Err(error)
            }
            _ => Err(error),
        }
    }

    /// An error about a reply that is none: whatever sent it, it is not known what was done.
    pub(super) fn no_reply(&self, operation: &'static str, key: &str, words: &str) -> StoreError {
        StoreError::new(ErrorKind::Transient, words)
            .maybe_done(true)
            .with_request(operation, Some(key))
            .with_store(&*self.place)
    }
}
