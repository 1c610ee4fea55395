//! A store in memory, with somebody between each request and its reply.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tapline::store::memory::MemoryStore;
use tapline::store::{
    Checksum, ChecksumKind, Limits, ObjectInfo, OpenUpload, Page, PartBody, PartReceipt, Result,
    Store, Upload, UploadInfo, Written,
};

/// Who decides what becomes of a request: whether it is carried out, and what is heard of it.
pub trait Meddler: Send + Sync {
    /// `key` is what it is about, or the prefix of that. `carry_out` does what was asked; `lie` is a reply that says so, where there is one that can
    /// be made up.
    fn meet<T: Send>(
        &self,
        operation: &'static str,
        key: &str,
        lie: Option<T>,
        carry_out: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send;

    /// The store is asked for its limits, which is no request.
    fn limits(&self, limits: Limits) -> Limits {
        limits
    }
}

#[derive(Clone)]
pub struct Meddled<M> {
    pub store: MemoryStore,
    pub meddler: M,
}

#[async_trait]
impl<M: Meddler> Store for Meddled<M> {
    fn address(&self) -> String {
        self.store.address()
    }

    fn limits(&self) -> Limits {
        self.meddler.limits(self.store.limits())
    }

    fn checksum_kind(&self) -> Option<ChecksumKind> {
        self.store.checksum_kind()
    }

    async fn create_upload(&self, key: &str, backup_id: &str) -> Result<Upload> {
        let request = self.store.create_upload(key, backup_id);
        self.meddler.meet("create", key, None, request).await
    }

    async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<PartReceipt> {
        let request = self.store.put_part(upload, number, body, checksum);
        self.meddler.meet("part", &upload.key, None, request).await
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[PartReceipt],
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        let request = self.store.complete_upload(upload, parts, checksum);
        let lie = Some(Written::default());
        self.meddler
            .meet("complete", &upload.key, lie, request)
            .await
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        let request = self.store.abort_upload(upload);
        self.meddler
            .meet("abort", &upload.key, Some(()), request)
            .await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<Written> {
        let lie = Some(Written::default());
        let request = self.store.put(key, body);
        self.meddler.meet("put", key, lie, request).await
    }

    async fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let request = self.store.get(key, range);
        self.meddler.meet("get", key, None, request).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let request = self.store.head(key);
        self.meddler.meet("head", key, Some(None), request).await
    }

    async fn list(&self, prefix: &str, page: Option<String>) -> Result<Page<ObjectInfo>> {
        let request = self.store.list(prefix, page);
        self.meddler.meet("list", prefix, None, request).await
    }

    async fn list_uploads(&self, prefix: &str, page: Option<String>) -> Result<Page<OpenUpload>> {
        let request = self.store.list_uploads(prefix, page);
        self.meddler.meet("list", prefix, None, request).await
    }

    async fn upload_info(&self, key: &str, upload_id: &str) -> Result<UploadInfo> {
        let request = self.store.upload_info(key, upload_id);
        self.meddler.meet("info", key, None, request).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let request = self.store.delete(key);
        self.meddler.meet("delete", key, Some(()), request).await
    }
}
