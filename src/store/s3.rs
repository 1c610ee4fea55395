//! AWS S3 and the servers that speak its protocol.
//!
//! What each server gets wrong is met by asking for less: the checksum of a part is computed before
//! it is sent (the body then goes out as it is, in several buffers, with no copy), the algorithm is
//! always named beside it, the type of the object's checksum is said at the beginning and not at
//! the end, and a completion whose reply was lost is looked up with HEAD instead of being believed
//! either way. Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPart.html> and
//! its neighbours.

use std::ops::Range;
use std::pin::Pin;
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
    Result, Store, StoreError, Upload, UploadInfo,
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
        }
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

/// An error and all that caused it, in words.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let words = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    words.collect::<Vec<_>>().join(": ")
}

/// What an SDK error means, with the server's own code and words.
fn explain<E: ProvideErrorMetadata + std::error::Error + 'static>(
    what: &str,
    error: &SdkError<E>,
) -> StoreError {
    let status = error
        .raw_response()
        .map(|response| response.status().as_u16());
    let code = error.code().unwrap_or_default();
    let kind = match (error, code, status) {
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
        (_, _, Some(404)) => ErrorKind::NotFound,
        (
            _,
            "AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken",
            _,
        )
        | (_, _, Some(401 | 403)) => ErrorKind::Denied,
        (_, "RequestTimeout" | "SlowDown" | "ConditionalRequestConflict" | "InternalError", _)
        | (_, _, Some(408 | 409 | 429 | 500..)) => ErrorKind::Transient,
        _ => ErrorKind::Invalid,
    };
    let mut message = match (error.message(), status) {
        (Some(words), _) => format!("{what}: {code}: {words}"),
        (None, Some(status)) => format!("{what}: HTTP {status} {code}"),
        (None, None) => format!("{what}: {}", chain(error)),
    };
    if kind == ErrorKind::Denied {
        message += " (check the store's access_key and secret_key or the AWS environment, and what they may do)";
    }
    StoreError::new(kind, message)
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
        let (sse, kms_key) = match self
            .settings
            .sse
            .as_deref()
            .map(|sse| sse.split_at(sse.len().min(8)))
        {
            Some(("aws:kms:", key)) => (Some("aws:kms".to_owned()), Some(key.to_owned())),
            _ => (self.settings.sse.clone(), None),
        };
        let created = self
            .client
            .create_multipart_upload()
            .bucket(&self.settings.bucket)
            .key(self.full(key))
            .metadata(METADATA, backup_id)
            .set_checksum_algorithm(kind.map(algorithm))
            .set_checksum_type(kind.map(|_| ChecksumType::FullObject))
            .set_storage_class(
                self.settings
                    .storage_class
                    .as_deref()
                    .map(StorageClass::from),
            )
            .set_server_side_encryption(sse.as_deref().map(ServerSideEncryption::from))
            .set_ssekms_key_id(kms_key)
            .send()
            .await
            .map_err(|error| explain("CreateMultipartUpload", &error))?;
        let id = created.upload_id.ok_or_else(|| {
            StoreError::new(
                ErrorKind::Invalid,
                "CreateMultipartUpload: the server's reply has no upload id",
            )
        })?;
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
        let put = self
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
            .body(stream_of(body))
            .send()
            .await
            .map_err(|error| explain("UploadPart", &error))?;
        let etag = put.e_tag.ok_or_else(|| {
            StoreError::new(
                ErrorKind::Invalid,
                "UploadPart: the server's reply has no ETag",
            )
        })?;
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
    ) -> Result<ObjectInfo> {
        let size: u64 = parts.iter().map(|part| part.size).sum();
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
        let result = self
            .client
            .complete_multipart_upload()
            .bucket(&self.settings.bucket)
            .key(self.full(&upload.key))
            .upload_id(&upload.id)
            .multipart_upload(list)
            .if_none_match("*")
            .set_checksum_crc64_nvme(value(checksum, ChecksumKind::Crc64Nvme))
            .set_checksum_crc32(value(checksum, ChecksumKind::Crc32))
            .send()
            .await;
        let failure = result
            .as_ref()
            .err()
            .map(|error| explain("CompleteMultipartUpload", error));
        // The reply of an earlier try may have been lost: what is there tells.
        let found = self.head(&upload.key).await;
        match (failure, found) {
            (failure, Ok(Some(object))) => {
                let ours =
                    object.backup_id.as_deref() == Some(&upload.backup_id) && object.size == size;
                let same =
                    object.checksum.is_none() || checksum.is_none() || object.checksum == checksum;
                match failure {
                    _ if ours && same => Ok(object),
                    Some(failure) => Err(failure),
                    None => Err(StoreError::new(
                        ErrorKind::Invalid,
                        format!(
                            "the store completed {}, but has {} bytes of it and not {size}",
                            upload.key, object.size
                        ),
                    )),
                }
            }
            (Some(failure), _) => Err(failure),
            (None, Ok(None)) => Err(StoreError::new(
                ErrorKind::Transient,
                format!("{} was completed and is not there", upload.key),
            )),
            (None, Err(error)) => Err(error),
        }
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        for _ in 0..ABORTS {
            let request = self
                .client
                .abort_multipart_upload()
                .bucket(&self.settings.bucket);
            let aborted = request
                .key(self.full(&upload.key))
                .upload_id(&upload.id)
                .send()
                .await;
            if let Err(error) = aborted {
                let error = explain("AbortMultipartUpload", &error);
                return if error.kind() == ErrorKind::NotFound {
                    Ok(())
                } else {
                    Err(error)
                };
            }
            if self.upload_info(&upload.key, &upload.id).await?.parts == 0 {
                return Ok(());
            }
        }
        Err(StoreError::new(
            ErrorKind::Transient,
            "AbortMultipartUpload: parts keep arriving",
        ))
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<()> {
        let kind = self.settings.checksum;
        let checksum = kind.map(|kind| Checksum::of(kind, &body));
        let request = self
            .client
            .put_object()
            .bucket(&self.settings.bucket)
            .key(self.full(key));
        request
            .if_none_match("*")
            .set_checksum_algorithm(kind.map(algorithm))
            .set_checksum_crc64_nvme(value(checksum, ChecksumKind::Crc64Nvme))
            .set_checksum_crc32(value(checksum, ChecksumKind::Crc32))
            .body(body.into())
            .send()
            .await
            .map(drop)
            .map_err(|error| explain("PutObject", &error))
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
        let body = request
            .send()
            .await
            .map_err(|error| explain("GetObject", &error))?
            .body;
        let broken = |error| StoreError::new(ErrorKind::Transient, format!("GetObject: {error}"));
        let next = move |mut body: ByteStream| async move {
            body.next().await.map(|bytes| (bytes.map_err(broken), body))
        };
        Ok(stream::unfold(body, next).boxed())
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let request = self
            .client
            .head_object()
            .bucket(&self.settings.bucket)
            .key(self.full(key));
        let mode = self.settings.checksum.map(|_| ChecksumMode::Enabled);
        let head = match request.set_checksum_mode(mode).send().await {
            Ok(head) => head,
            Err(error) => {
                let error = explain("HeadObject", &error);
                return if error.kind() == ErrorKind::NotFound {
                    Ok(None)
                } else {
                    Err(error)
                };
            }
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
            .prefix(self.full(prefix));
        let found = request
            .set_continuation_token(page)
            .send()
            .await
            .map_err(|error| explain("ListObjectsV2", &error))?;
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
            .prefix(self.full(prefix));
        let found = request
            .set_key_marker(key)
            .set_upload_id_marker(id)
            .send()
            .await
            .map_err(|error| explain("ListMultipartUploads", &error))?;
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
            match page.map_err(|error| explain("ListParts", &error)) {
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
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = explain("DeleteObject", &error);
                if error.kind() == ErrorKind::NotFound {
                    Ok(())
                } else {
                    Err(error)
                }
            }
        }
    }
}
