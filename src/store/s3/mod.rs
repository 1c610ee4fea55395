//! AWS S3 and the servers that speak its protocol.
//!
//! What each server gets wrong is met by asking for less: the checksum of a part is computed before
//! it is sent (the body then goes out as it is, in several buffers, with no copy), the algorithm is
//! always named beside it, and the type beside the object's checksum. Source:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPart.html> and its neighbours.
//!
//! The SDK tries nothing again and times nothing but connecting: [`super::retry`] and `body` do.

mod body;
mod explain;
mod keys;
mod quirks;
mod settings;
mod wire;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketVersioningStatus, ChecksumAlgorithm, ChecksumMode, ChecksumType,
    CompletedMultipartUpload, CompletedPart, ExpirationStatus, ServerSideEncryption, StorageClass,
};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use md5::{Digest, Md5};

use super::progress::Progress;
pub use super::progress::Timeouts;
use super::{
    Checksum, ChecksumKind, ErrorKind, Limits, NOTES, ObjectInfo, OpenUpload, Page, PartBody,
    PartReceipt, Result, Store, StoreError, Upload, UploadInfo, Written,
};
use crate::archive::hex;
use body::stream_of;
use explain::{chain, explain};
use keys::Keys;
pub use keys::{AccessKey, KeySource};
use quirks::Quirks;
pub use settings::S3Settings;
use wire::ServerClock;

/// The backup id in an object's metadata.
const METADATA: &str = "tapline-backup-id";
/// An abort is repeated while parts that were in flight still arrive.
const ABORTS: usize = 5;
/// A key that may do one of these may do the others; it need not be one that may look.
const WRITES: [&str; 4] = [
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "PutObject",
];
const READS: [&str; 3] = ["HeadObject", "GetObject", "ListObjectsV2"];

/// A bucket and prefix on an S3 server.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    settings: Arc<S3Settings>,
    /// Bucket, prefix and endpoint, for messages.
    place: Arc<str>,
    keys: Keys,
    clock: ServerClock,
    /// The operations that the server has carried out in this run: what is refused after that may
    /// be a hiccup.
    accepted: Arc<Mutex<HashSet<&'static str>>>,
    quirks: Quirks,
}

impl S3Store {
    /// Connects to nothing yet. Credentials come from `keys`, by default from the standard AWS
    /// chain, which also says the region and the endpoint where the settings have none.
    ///
    /// # Errors
    /// When the file with certificates cannot be used.
    pub async fn open(settings: &S3Settings, keys: Option<Arc<dyn KeySource>>) -> Result<Self> {
        let clock = ServerClock::default();
        let quirks = Quirks::default();
        let http = wire::client(settings.ca_file.as_deref(), clock.clone(), quirks.clone())
            .map_err(|why| StoreError::new(ErrorKind::Invalid, why))?;
        let shared = keys::chain(&http, settings.region.clone().map(Region::new)).await;
        let region = shared
            .region()
            .cloned()
            .unwrap_or_else(|| Region::new("us-east-1"));
        let endpoint = settings.endpoint.as_deref().or(shared.endpoint_url());
        let keys = Keys::new(keys, http.clone(), region.clone());
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(settings.timeouts.connect)
            .build();
        let mut config = aws_sdk_s3::config::Builder::from(&shared)
            .http_client(http)
            .region(region)
            .credentials_provider(keys.clone())
            .identity_cache(IdentityCache::no_cache())
            .force_path_style(settings.path_style.unwrap_or(endpoint.is_some()))
            .timeout_config(timeouts)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(endpoint) = endpoint {
            // Without a slash at its end the SDK glues bucket and path together.
            config = config.endpoint_url(format!("{}/", endpoint.trim_end_matches('/')));
        }
        let address = address(settings);
        let place = endpoint.map_or(address.clone(), |endpoint| {
            format!("{address} at {endpoint}")
        });
        Ok(Self {
            client: Client::from_conf(config.build()),
            settings: Arc::new(settings.clone()),
            place: place.into(),
            keys,
            clock,
            accepted: Arc::default(),
            quirks,
        })
    }

    /// Waits for the reply to one request.
    async fn reply<T, E>(
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
    async fn sent<T, E>(
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
    fn no_reply(&self, operation: &'static str, key: &str, words: &str) -> StoreError {
        StoreError::new(ErrorKind::Transient, words)
            .maybe_done(true)
            .with_request(operation, Some(key))
            .with_store(&*self.place)
    }

    fn half_a_listing(&self, operation: &'static str) -> StoreError {
        StoreError::new(
            ErrorKind::Transient,
            "the listing says that there is more, and not where",
        )
        .with_request(operation, None)
        .with_store(&*self.place)
    }

    /// `*` when the object must be new and the server can be told so.
    fn none_match(&self) -> Option<String> {
        (!self.quirks.unconditional()).then(|| "*".to_owned())
    }

    /// Remembers that conditions are refused; whether the request is worth another try without.
    fn without_condition(&self, error: &StoreError) -> bool {
        error.kind() == ErrorKind::Unsupported && self.quirks.learn_unconditional()
    }

    /// Server-side encryption and its key.
    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        let sse = self.settings.sse.as_deref();
        match sse.and_then(|sse| sse.strip_prefix("aws:kms:")) {
            Some(key) => (Some(ServerSideEncryption::AwsKms), Some(key.to_owned())),
            None => (sse.map(ServerSideEncryption::from), None),
        }
    }

    fn storage_class(&self) -> Option<StorageClass> {
        self.settings
            .storage_class
            .as_deref()
            .map(StorageClass::from)
    }

    fn full(&self, key: &str) -> String {
        if self.settings.prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{}/{key}", self.settings.prefix)
        }
    }

    fn relative(&self, key: &str) -> Option<String> {
        if self.settings.prefix.is_empty() {
            return Some(key.to_owned());
        }
        Some(
            key.strip_prefix(&self.settings.prefix)?
                .strip_prefix('/')?
                .to_owned(),
        )
    }

    /// A small body, and its checksum of the store's kind.
    fn with_checksum(&self, body: Bytes) -> (PartBody, Option<Checksum>) {
        let kind = self.settings.checksum;
        let checksum = kind.map(|kind| Checksum::of(kind, &body));
        (body.into(), checksum)
    }

    /// One PutObject: with the backup that it is of, if it is a volume; with the condition that no
    /// object has the key, or without.
    async fn put_object(
        &self,
        key: &str,
        backup_id: Option<&str>,
        (body, checksum): (PartBody, Option<Checksum>),
        is_new: bool,
    ) -> Result<Written> {
        let (sse, kms_key) = self.encryption();
        let send = async || {
            let progress = Progress::of(body.len());
            let request = self
                .client
                .put_object()
                .bucket(&self.settings.bucket)
                .key(self.full(key))
                .set_metadata(backup_id.map(|id| [(METADATA.to_owned(), id.to_owned())].into()))
                .set_if_none_match(self.none_match().filter(|_| is_new))
                .set_storage_class(self.storage_class())
                .set_server_side_encryption(sse.clone())
                .set_ssekms_key_id(kms_key.clone())
                .set_checksum_algorithm(checksum.map(|checksum| algorithm(checksum.kind())))
                .set_checksum_crc64_nvme(value(checksum, ChecksumKind::Crc64Nvme))
                .set_checksum_crc32(value(checksum, ChecksumKind::Crc32))
                .content_length(body.len().cast_signed())
                .body(stream_of(body.clone(), progress.clone()));
            let request = Box::pin(request.send());
            self.sent("PutObject", key, &progress, request).await
        };
        let done = match send().await {
            Err(error) if self.without_condition(&error) => send().await?,
            result => result?,
        };
        // Something between (a captive portal, a firewall) may say 200, too.
        let Some(etag) = done.e_tag().filter(|etag| !etag.is_empty()) else {
            return Err(self.no_reply("PutObject", key, "the reply has no ETag"));
        };
        Ok(Written {
            etag: Some(etag.to_owned()),
            checksum,
            is_proven: is_md5_of(etag, &body).await,
        })
    }

    /// Whether what is deleted stays as a version; `None` when the bucket would not say.
    pub async fn keeps_versions(&self) -> Option<bool> {
        let request = self
            .client
            .get_bucket_versioning()
            .bucket(&self.settings.bucket);
        let found = request.send().await.ok()?;
        Some(found.status() == Some(&BucketVersioningStatus::Enabled))
    }

    /// Whether the bucket has a rule that aborts incomplete uploads; `None` when it would not say.
    pub async fn aborts_incomplete_uploads(&self) -> Option<bool> {
        let request = self
            .client
            .get_bucket_lifecycle_configuration()
            .bucket(&self.settings.bucket);
        match request.send().await {
            Ok(found) => Some(found.rules().iter().any(|rule| {
                rule.status() == &ExpirationStatus::Enabled
                    && rule.abort_incomplete_multipart_upload().is_some()
            })),
            Err(error) if error.code() == Some("NoSuchLifecycleConfiguration") => Some(false),
            Err(_) => None,
        }
    }
}

fn address(settings: &S3Settings) -> String {
    let S3Settings { bucket, prefix, .. } = settings;
    let slash = if prefix.is_empty() { "" } else { "/" };
    format!("s3://{bucket}{slash}{prefix}")
}

/// Whether a reply of this `Content-Range` and length is the range that was asked for.
fn covers(content_range: Option<&str>, length: Option<i64>, range: &Range<u64>) -> bool {
    let size = range.end.saturating_sub(range.start);
    if length.is_some_and(|length| length.unsigned_abs() != size) {
        return false;
    }
    let bounds = content_range.and_then(|text| {
        text.strip_prefix("bytes ")?
            .split('/')
            .next()?
            .split_once('-')
    });
    match bounds {
        Some((first, last)) => {
            first.parse() == Ok(range.start) && last.parse() == Ok(range.end.saturating_sub(1))
        }
        // The range is the whole object, and a server may say so by 200.
        None => range.start == 0 && length.is_some(),
    }
}

/// Whether an entity tag is the MD5 of a body, as it is of an object that was put as it is and not
/// encrypted with a key of KMS's: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html>.
/// Then whoever replied has read all of it.
async fn is_md5_of(etag: &str, body: &PartBody) -> bool {
    let tag = etag.trim_matches('"').to_ascii_lowercase();
    if tag.len() != 32 || !tag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return false;
    }
    let body = body.clone();
    let digest = tokio::task::spawn_blocking(move || {
        let mut digest = Md5::new();
        for buffer in body.buffers() {
            digest.update(buffer);
        }
        hex(&digest.finalize())
    });
    digest.await.is_ok_and(|digest| digest == tag)
}

fn algorithm(kind: ChecksumKind) -> ChecksumAlgorithm {
    match kind {
        ChecksumKind::Crc64Nvme => ChecksumAlgorithm::Crc64Nvme,
        ChecksumKind::Crc32 => ChecksumAlgorithm::Crc32,
    }
}

/// The value for the request field of `kind`, when the checksum is of it.
fn value(checksum: Option<Checksum>, kind: ChecksumKind) -> Option<String> {
    checksum
        .filter(|checksum| checksum.kind() == kind)
        .map(Checksum::to_base64)
}

#[async_trait]
impl Store for S3Store {
    fn address(&self) -> String {
        address(&self.settings)
    }

    fn clock_offset(&self) -> Option<i64> {
        self.clock.offset()
    }

    fn limits(&self) -> Limits {
        Limits {
            max_parts: self.settings.max_parts,
            in_order: self.quirks.in_order(),
            ..Limits::S3
        }
    }

    fn checksum_kind(&self) -> Option<ChecksumKind> {
        self.settings.checksum
    }

    async fn create_upload(&self, key: &str, backup_id: &str) -> Result<Upload> {
        let kind = self.settings.checksum;
        let (sse, kms_key) = self.encryption();
        let request = self
            .client
            .create_multipart_upload()
            .bucket(&self.settings.bucket)
            .key(self.full(key))
            .metadata(METADATA, backup_id)
            .set_checksum_algorithm(kind.map(algorithm))
            .set_checksum_type(kind.map(|_| ChecksumType::FullObject))
            .set_storage_class(self.storage_class())
            .set_server_side_encryption(sse)
            .set_ssekms_key_id(kms_key);
        let operation = "CreateMultipartUpload";
        let created = self
            .reply(operation, Some(key), Box::pin(request.send()))
            .await?;
        let id = created
            .upload_id
            .filter(|id| !id.is_empty())
            .ok_or_else(|| self.no_reply(operation, key, "the reply has no upload id"))?;
        Ok(Upload {
            key: key.to_owned(),
            id,
            backup_id: backup_id.to_owned(),
            has_twin: false,
        })
    }

    async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<PartReceipt> {
        let size = body.len();
        let progress = Progress::of(size);
        let request = self
            .client
            .upload_part()
            .bucket(&self.settings.bucket)
            .key(self.full(&upload.key))
            .upload_id(&upload.id)
            .part_number(number.cast_signed())
            .content_length(size.cast_signed())
            .set_checksum_algorithm(checksum.map(|checksum| algorithm(checksum.kind())))
            .set_checksum_crc64_nvme(value(checksum, ChecksumKind::Crc64Nvme))
            .set_checksum_crc32(value(checksum, ChecksumKind::Crc32))
            .body(stream_of(body, progress.clone()));
        let put = self
            .sent("UploadPart", &upload.key, &progress, request.send())
            .await?;
        let etag = put
            .e_tag
            .filter(|etag| !etag.is_empty())
            .ok_or_else(|| self.no_reply("UploadPart", &upload.key, "the reply has no ETag"))?;
        Ok(PartReceipt {
            number,
            size,
            etag,
            checksum,
        })
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[PartReceipt],
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        let operation = "CompleteMultipartUpload";
        let completed = parts.iter().map(|part| {
            CompletedPart::builder()
                .part_number(part.number.cast_signed())
                .e_tag(&part.etag)
                .set_checksum_crc64_nvme(value(part.checksum, ChecksumKind::Crc64Nvme))
                .set_checksum_crc32(value(part.checksum, ChecksumKind::Crc32))
                .build()
        });
        let list = CompletedMultipartUpload::builder()
            .set_parts(Some(completed.collect()))
            .build();
        let request = self
            .client
            .complete_multipart_upload()
            .bucket(&self.settings.bucket)
            .key(self.full(&upload.key))
            .upload_id(&upload.id)
            .multipart_upload(list)
            // A value without its type is taken for a composite one, a type without a value for
            // nonsense.
            .set_checksum_type(checksum.map(|_| ChecksumType::FullObject))
            .set_checksum_crc64_nvme(value(checksum, ChecksumKind::Crc64Nvme))
            .set_checksum_crc32(value(checksum, ChecksumKind::Crc32));
        let send = async || {
            let request = request.clone().set_if_none_match(self.none_match());
            self.reply(operation, Some(&upload.key), request.send())
                .await
        };
        let done = match send().await {
            Err(error) if self.without_condition(&error) => send().await?,
            result => result?,
        };
        let etag = done.e_tag().filter(|etag| !etag.is_empty());
        // Ceph replies with key and location and an empty ETag.
        let names = [done.key(), done.location()];
        if etag.is_none() && !names.iter().flatten().any(|name| !name.is_empty()) {
            let words = "the reply does not say what was completed";
            return Err(self.no_reply(operation, &upload.key, words));
        }
        let echo = checksum.and_then(|sent| {
            let text = match sent.kind() {
                ChecksumKind::Crc64Nvme => done.checksum_crc64_nvme(),
                ChecksumKind::Crc32 => done.checksum_crc32(),
            };
            Checksum::from_base64(sent.kind(), text?)
        });
        if let (Some(sent), Some(echo)) = (checksum, echo)
            && sent != echo
        {
            let words = format!(
                "the store's checksum of it is {}, and {} was sent",
                echo.to_base64(),
                sent.to_base64()
            );
            return Err(StoreError::new(ErrorKind::Invalid, words)
                .maybe_done(true)
                .with_request(operation, Some(&upload.key))
                .with_store(&*self.place));
        }
        Ok(Written {
            etag: etag.map(str::to_owned),
            checksum: echo,
            is_proven: false,
        })
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        for _ in 0..ABORTS {
            let request = self
                .client
                .abort_multipart_upload()
                .bucket(&self.settings.bucket)
                .key(self.full(&upload.key))
                .upload_id(&upload.id);
            let aborted = self
                .reply("AbortMultipartUpload", Some(&upload.key), request.send())
                .await;
            match aborted {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            match self.upload_info(&upload.key, &upload.id).await {
                Ok(UploadInfo { parts: 1.., .. }) => {}
                Ok(_) => return Ok(()),
                // The abort was accepted; a key that may not look takes that for the answer.
                Err(error) if error.kind() == ErrorKind::Denied => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Err(self.no_reply("AbortMultipartUpload", &upload.key, "parts keep arriving"))
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<Written> {
        let sent = self.with_checksum(body);
        self.put_object(key, None, sent, true).await
    }

    async fn replace(&self, key: &str, body: Bytes) -> Result<Written> {
        let sent = self.with_checksum(body);
        self.put_object(key, None, sent, false).await
    }

    async fn put_volume(
        &self,
        key: &str,
        backup_id: &str,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        let sent = (body, checksum);
        self.put_object(key, Some(backup_id), sent, true).await
    }

    async fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let asked = range
            .clone()
            .map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        let request = self
            .client
            .get_object()
            .bucket(&self.settings.bucket)
            .key(self.full(key))
            .set_range(asked);
        let got = self.reply("GetObject", Some(key), request.send()).await?;
        // A proxy's page, or an error in a 200: no object comes without either.
        if range.is_none() && got.e_tag().is_none() && got.last_modified().is_none() {
            let words = "the reply has neither an ETag nor a date: it is no object's";
            return Err(self.no_reply("GetObject", key, words));
        }
        // A server that ignores ranges would be asked for the rest for ever.
        if let Some(range) = range
            && !covers(got.content_range(), got.content_length(), &range)
        {
            let has = got.content_range().unwrap_or("all of it");
            let words = format!("bytes {range:?} were asked for, and the reply is {has}");
            return Err(self.no_reply("GetObject", key, &words));
        }
        let (key, place) = (key.to_owned(), self.place.clone());
        let stall = self.settings.timeouts.stall;
        let broken = move |words: String| {
            StoreError::new(ErrorKind::Transient, words)
                .with_request("GetObject", Some(&key))
                .with_store(&*place)
        };
        let next = move |(mut body, broken): (ByteStream, _)| async move {
            let bytes = match tokio::time::timeout(stall, body.next()).await {
                Ok(None) => return None,
                Ok(Some(bytes)) => bytes.map_err(|error| chain(&error)),
                Err(_) => Err(format!("not a byte came within {} s", stall.as_secs())),
            };
            Some((bytes.map_err(&broken), (body, broken)))
        };
        Ok(stream::unfold((got.body, broken), next).boxed())
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let request = self
            .client
            .head_object()
            .bucket(&self.settings.bucket)
            .key(self.full(key));
        let mode = self.settings.checksum.map(|_| ChecksumMode::Enabled);
        let request = request.set_checksum_mode(mode);
        let head = match self.reply("HeadObject", Some(key), request.send()).await {
            Ok(head) => head,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let checksum = self.settings.checksum.and_then(|kind| {
            let text = match kind {
                ChecksumKind::Crc64Nvme => head.checksum_crc64_nvme(),
                ChecksumKind::Crc32 => head.checksum_crc32(),
            };
            Checksum::from_base64(kind, text?)
        });
        Ok(Some(ObjectInfo {
            key: key.to_owned(),
            size: head.content_length().unwrap_or_default().unsigned_abs(),
            modified: head
                .last_modified()
                .map_or(0, aws_sdk_s3::primitives::DateTime::secs),
            checksum,
            backup_id: head
                .metadata()
                .and_then(|metadata| metadata.get(METADATA))
                .cloned(),
        }))
    }

    async fn list(&self, prefix: &str, page: Option<String>) -> Result<Page<ObjectInfo>> {
        let request = self
            .client
            .list_objects_v2()
            .bucket(&self.settings.bucket)
            .prefix(self.full(prefix))
            .set_continuation_token(page);
        let found = self.reply("ListObjectsV2", None, request.send()).await?;
        let items = found.contents().iter().filter_map(|object| {
            Some(ObjectInfo {
                key: self.relative(object.key()?)?,
                size: object.size().unwrap_or_default().unsigned_abs(),
                modified: object
                    .last_modified()
                    .map_or(0, aws_sdk_s3::primitives::DateTime::secs),
                checksum: None,
                backup_id: None,
            })
        });
        let next = match found.next_continuation_token() {
            Some(token) if found.is_truncated().unwrap_or_default() => Some(token.to_owned()),
            None if found.is_truncated().unwrap_or_default() => {
                return Err(self.half_a_listing("ListObjectsV2"));
            }
            _ => None,
        };
        Ok(Page {
            items: items.collect(),
            next,
        })
    }

    async fn list_uploads(&self, prefix: &str, page: Option<String>) -> Result<Page<OpenUpload>> {
        // A page is named by a key and an upload id; neither holds a line break.
        let (key, id) = match page.as_deref().and_then(|page| page.split_once('\n')) {
            Some((key, id)) => (Some(key.to_owned()), Some(id.to_owned())),
            None => (None, None),
        };
        let request = self
            .client
            .list_multipart_uploads()
            .bucket(&self.settings.bucket)
            .prefix(self.full(prefix))
            .set_key_marker(key)
            .set_upload_id_marker(id);
        let found = self
            .reply("ListMultipartUploads", None, request.send())
            .await?;
        let items = found.uploads().iter().filter_map(|upload| {
            Some(OpenUpload {
                key: self.relative(upload.key()?)?,
                id: upload.upload_id()?.to_owned(),
                initiated: upload
                    .initiated()
                    .map_or(0, aws_sdk_s3::primitives::DateTime::secs),
            })
        });
        let next = match found.next_key_marker() {
            Some(key) if found.is_truncated().unwrap_or_default() => {
                let id = found.next_upload_id_marker().unwrap_or_default();
                Some(format!("{key}\n{id}"))
            }
            None if found.is_truncated().unwrap_or_default() => {
                return Err(self.half_a_listing("ListMultipartUploads"));
            }
            _ => None,
        };
        Ok(Page {
            items: items.collect(),
            next,
        })
    }

    async fn upload_info(&self, key: &str, upload_id: &str) -> Result<UploadInfo> {
        let request = self
            .client
            .list_parts()
            .bucket(&self.settings.bucket)
            .key(self.full(key))
            .upload_id(upload_id);
        let mut pages = request.into_paginator().send();
        let mut info = UploadInfo::default();
        while let Some(page) = pages.next().await {
            match self.reply("ListParts", Some(key), async { page }).await {
                Ok(page) => page.parts().iter().for_each(|part| {
                    let arrived = part
                        .last_modified()
                        .map_or(0, aws_sdk_s3::primitives::DateTime::secs);
                    info.add(part.size().unwrap_or_default().unsigned_abs(), arrived);
                }),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Ok(UploadInfo::default());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(info)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let request = self
            .client
            .delete_object()
            .bucket(&self.settings.bucket)
            .key(self.full(key));
        match self.reply("DeleteObject", Some(key), request.send()).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
