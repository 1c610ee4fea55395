//! AWS S3 and the servers that speak its protocol.
//!
//! What each server gets wrong is met by asking for less: the checksum of a part is computed before
//! it is sent (the body then goes out as it is, in several buffers, with no copy), the algorithm is
//! always named beside it, and the type beside the object's checksum. Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPart.html> and
//! its neighbours.

use std::collections::HashSet;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart,
    ExpirationStatus, ServerSideEncryption, StorageClass,
};
use aws_smithy_http_client::{Builder as HttpBuilder, tls};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use secrecy::{ExposeSecret, SecretString};

use super::{
    Checksum, ChecksumKind, ErrorKind, Limits, ObjectInfo, OpenUpload, Page, PartBody, PartReceipt,
    Result, Store, StoreError, Upload, UploadInfo, Written,
};
use crate::config::StoreSettings;

/// The backup id in an object's metadata.
const METADATA: &str = "tapline-backup-id";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// A part may take this long: 5 GiB at 10 MB/s.
const ATTEMPT_TIMEOUT: Duration = Duration::from_mins(9);
/// An abort is repeated while parts that were in flight still arrive.
const ABORTS: usize = 5;

/// A bucket and prefix on an S3 server.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    settings: StoreSettings,
    /// The operations that the server has carried out at least once in this run: what is denied
    /// after that may be a hiccup.
    accepted: Arc<Mutex<HashSet<&'static str>>>,
    /// Whether the server refuses conditions on writes (Backblaze B2 does). Keys are unique, so
    /// that it works without.
    unconditional: Arc<AtomicBool>,
}

impl S3Store {
    /// Connects to nothing yet: credentials and region are looked up by the standard AWS chain
    /// where the settings have none, the rest happens with the first request.
    pub async fn open(
        settings: &StoreSettings,
        credentials: Option<(SecretString, SecretString)>,
    ) -> Self {
        let http = HttpBuilder::new().tls_provider(tls::Provider::Rustls(
            tls::rustls_provider::CryptoMode::Ring,
        ));
        let http = http.build_https();
        let mut chain = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
        if let Some(region) = &settings.region {
            chain = chain.region(Region::new(region.clone()));
        }
        if let Some((access, secret)) = credentials {
            let given = Credentials::new(
                access.expose_secret(),
                secret.expose_secret(),
                None,
                None,
                "inventory",
            );
            chain = chain.credentials_provider(given);
        }
        let shared = chain.load().await;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .build();
        let mut config = aws_sdk_s3::config::Builder::from(&shared)
            .http_client(http)
            .force_path_style(settings.path_style)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(2))
            // By default one bucket of retries serves the whole process: many jobs would empty it
            // for each other.
            .retry_partition(RetryPartition::custom(settings.name.clone()).build())
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled()
                    .grace_period(Duration::from_mins(1))
                    .build(),
            )
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if shared.region().is_none() {
            config = config.region(Region::new("us-east-1"));
        }
        if let Some(endpoint) = &settings.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Self {
            client: Client::from_conf(config.build()),
            settings: settings.clone(),
            accepted: Arc::default(),
            unconditional: Arc::default(),
        }
    }

    /// Waits for the reply to one request.
    async fn reply<T, E>(
        &self,
        operation: &'static str,
        key: Option<&str>,
        request: impl Future<Output = std::result::Result<T, SdkError<E>>>,
    ) -> Result<T>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let error = match request.await {
            Ok(done) => {
                self.accepted
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(operation);
                return Ok(done);
            }
            Err(error) => explain(error),
        };
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let hiccup = match error.kind() {
            ErrorKind::Denied => {
                accepted.contains(operation)
                    || (
                        // A key that may write need not be one that may look.
                        WRITES.contains(&operation)
                            && accepted.iter().any(|other| WRITES.contains(other))
                    )
            }
            ErrorKind::Unreachable => !accepted.is_empty(),
            _ => false,
        };
        Err(error
            .passing(hiccup)
            .with_request(operation, key)
            .with_store(self.place()))
    }

    /// An error about a reply that is none: whatever sent it, it is not known what was done.
    fn no_reply(&self, operation: &'static str, key: &str, words: &str) -> StoreError {
        StoreError::new(ErrorKind::Transient, words)
            .maybe_done(true)
            .with_request(operation, Some(key))
            .with_store(self.place())
    }

    fn place(&self) -> String {
        match &self.settings.endpoint {
            Some(endpoint) => format!("{} at {endpoint}", self.address()),
            None => self.address(),
        }
    }

    /// `*` when the object must be new and the server can be told so.
    fn none_match(&self) -> Option<String> {
        (!self.unconditional.load(Ordering::Relaxed)).then(|| "*".to_owned())
    }

    /// Remembers that conditions are refused; whether the request is worth another try without.
    fn without_condition(&self, error: &StoreError) -> bool {
        error.kind() == ErrorKind::Unsupported && !self.unconditional.swap(true, Ordering::Relaxed)
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

/// What changes the store.
const WRITES: [&str; 4] = [
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "PutObject",
];

/// An error and all that caused it, in words; what two levels say alike is said once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

/// What an SDK error means, with the server's own code and words.
fn explain<E>(error: SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let status = error
        .raw_response()
        .map(|response| response.status().as_u16());
    let code = error.code().map(str::to_owned);
    let kind = kind(&error, code.as_deref().unwrap_or_default(), status);
    let unanswered = match (&error, status) {
        (SdkError::ConstructionFailure(_), _) => false,
        (_, None) => kind == ErrorKind::Transient,
        // Throttled means not done; any other 5xx may come from a proxy that got no answer.
        (_, Some(500..)) => !THROTTLED.contains(&code.as_deref().unwrap_or_default()),
        (_, Some(status)) => status < 300,
    };
    let words = match (error.message().filter(|words| !words.is_empty()), &error) {
        (Some(words), _) => words.to_owned(),
        (None, SdkError::ServiceError(_) | SdkError::ResponseError(_)) => said(&error),
        (None, _) => chain(&error),
    };
    let retry_after = error
        .raw_response()
        .and_then(|response| response.headers().get("retry-after")?.parse().ok())
        .map(Duration::from_secs);
    let explained = StoreError::new(kind, words)
        .maybe_done(unanswered)
        .maybe_coming(unanswered && status.is_none())
        .with_reply(status, code.as_deref())
        .with_retry_after(retry_after)
        .with_source(Arc::new(error));
    if kind == ErrorKind::Denied {
        explained.with_advice(
            "check the store's access_key and secret_key or the AWS environment, and what they may do",
        )
    } else {
        explained
    }
}

const THROTTLED: [&str; 3] = ["SlowDown", "Throttling", "ThrottlingException"];

fn kind<E>(error: &SdkError<E>, code: &str, status: Option<u16>) -> ErrorKind
where
    E: std::error::Error + 'static,
{
    match (error, code, status) {
        (SdkError::ConstructionFailure(_), ..) => ErrorKind::Denied,
        // Nothing was sent: the standard chain found no credentials.
        (SdkError::DispatchFailure(failure), ..)
            if failure.is_other() && chain(error).contains("credentials") =>
        {
            ErrorKind::Denied
        }
        (
            SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_),
            ..,
        ) => ErrorKind::Transient,
        (_, "PreconditionFailed", _) | (_, _, Some(412)) => ErrorKind::AlreadyExists,
        (_, "NotImplemented", _) | (_, _, Some(501)) => ErrorKind::Unsupported,
        (_, _, Some(404)) => ErrorKind::NotFound,
        (
            _,
            "AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken"
            | "RequestTimeTooSkewed",
            _,
        )
        | (_, _, Some(401 | 403)) => ErrorKind::Denied,
        (_, "RequestTimeout" | "SlowDown" | "ConditionalRequestConflict" | "InternalError", _)
        // A 200 that is no reply of S3's comes from something between, or says an error late.
        | (_, _, Some(..300 | 408 | 409 | 429 | 500..)) => ErrorKind::Transient,
        _ => ErrorKind::Invalid,
    }
}

/// The beginning of a reply that S3's parser could make nothing of.
fn said<E: std::error::Error + 'static>(error: &SdkError<E>) -> String {
    const LONGEST: usize = 200;
    let body = error
        .raw_response()
        .and_then(|response| response.body().bytes())
        .unwrap_or_default();
    let beginning = String::from_utf8_lossy(&body[..body.len().min(LONGEST)]);
    let text: Vec<&str> = beginning.split_whitespace().collect();
    if text.is_empty() {
        return "the reply has no body that says more".into();
    }
    format!("the reply is not S3's, it begins {:?}", text.join(" "))
}

/// A part as an HTTP body: its buffers one after the other, of known length.
struct Buffers {
    buffers: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl http_body::Body for Buffers {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<http_body::Frame<Bytes>, Self::Error>>> {
        let next = self.buffers.next();
        self.left -= next.as_ref().map_or(0, |buffer| buffer.len() as u64);
        Poll::Ready(next.map(|buffer| Ok(http_body::Frame::data(buffer))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

fn stream_of(body: PartBody) -> ByteStream {
    ByteStream::new(SdkBody::retryable(move || {
        let buffers = body.buffers().to_vec().into_iter();
        SdkBody::from_body_1_x(Buffers {
            buffers,
            left: body.len(),
        })
    }))
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
        let StoreSettings { bucket, prefix, .. } = &self.settings;
        if prefix.is_empty() {
            format!("s3://{bucket}")
        } else {
            format!("s3://{bucket}/{prefix}")
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            max_parts: self.settings.max_parts,
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
        let created = self.reply(operation, Some(key), request.send()).await?;
        let id = created
            .upload_id
            .filter(|id| !id.is_empty())
            .ok_or_else(|| self.no_reply(operation, key, "the reply has no upload id"))?;
        Ok(Upload {
            key: key.to_owned(),
            id,
            backup_id: backup_id.to_owned(),
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
            .body(stream_of(body));
        let put = self
            .reply("UploadPart", Some(&upload.key), request.send())
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
                .with_store(self.place()));
        }
        Ok(Written {
            etag: etag.map(str::to_owned),
            checksum: echo,
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
        let kind = self.settings.checksum;
        let checksum = kind.map(|kind| Checksum::of(kind, &body));
        let (sse, kms_key) = self.encryption();
        let send = async || {
            let request = self
                .client
                .put_object()
                .bucket(&self.settings.bucket)
                .key(self.full(key))
                .set_if_none_match(self.none_match())
                .set_storage_class(self.storage_class())
                .set_server_side_encryption(sse.clone())
                .set_ssekms_key_id(kms_key.clone())
                .set_checksum_algorithm(kind.map(algorithm))
                .set_checksum_crc64_nvme(value(checksum, ChecksumKind::Crc64Nvme))
                .set_checksum_crc32(value(checksum, ChecksumKind::Crc32))
                .body(body.clone().into());
            let sent = Box::pin(request.send());
            self.reply("PutObject", Some(key), sent).await
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
        })
    }

    async fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let range =
            range.map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        let request = self
            .client
            .get_object()
            .bucket(&self.settings.bucket)
            .key(self.full(key))
            .set_range(range);
        let body = self
            .reply("GetObject", Some(key), request.send())
            .await?
            .body;
        let (key, place) = (key.to_owned(), self.place());
        let broken = move |error| {
            StoreError::new(ErrorKind::Transient, format!("{error}"))
                .with_request("GetObject", Some(&key))
                .with_store(&place)
        };
        let next = |(mut body, broken): (ByteStream, _)| async move {
            let bytes = body.next().await?.map_err(&broken);
            Some((bytes, (body, broken)))
        };
        Ok(stream::unfold((body, broken), next).boxed())
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
        let more = found.is_truncated().unwrap_or_default();
        Ok(Page {
            items: items.collect(),
            next: found
                .next_continuation_token()
                .filter(|_| more)
                .map(str::to_owned),
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
        let next = found
            .next_key_marker()
            .filter(|_| found.is_truncated().unwrap_or_default());
        let next = next.map(|key| {
            format!(
                "{key}\n{}",
                found.next_upload_id_marker().unwrap_or_default()
            )
        });
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
