//! S3's operations, translated to those of the store in memory.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use md5::{Digest as _, Md5};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CommonPrefix,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, ETag,
    GetBucketLifecycleConfigurationInput, GetBucketLifecycleConfigurationOutput, GetObjectInput,
    GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput,
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsV2Input, ListObjectsV2Output,
    ListPartsInput, ListPartsOutput, MultipartUpload, Object, Part, PutObjectInput,
    PutObjectOutput, StreamingBlob, Timestamp, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::archive::hex;
use crate::store;
use crate::store::memory::MemoryStore;
use crate::store::{
    Checksum, ChecksumKind, ErrorKind, PartBody, PartReceipt, Store, StoreError, Upload,
};

const METADATA: &str = "tapline-backup-id";
/// Parts of one page of a listing, as S3 has it.
const PAGE: usize = 1000;

pub(super) struct Service {
    pub(super) store: MemoryStore,
}

/// A store's error as S3 says it; the store's messages begin with S3's code where there is one.
fn s3(error: &StoreError) -> s3s::S3Error {
    let text = error.to_string();
    let code = text
        .split_once(':')
        .and_then(|(code, _)| S3ErrorCode::from_bytes(code.as_bytes()));
    let code = code.unwrap_or(match error.kind() {
        ErrorKind::NotFound => S3ErrorCode::NoSuchKey,
        ErrorKind::AlreadyExists => S3ErrorCode::PreconditionFailed,
        ErrorKind::Denied => S3ErrorCode::AccessDenied,
        ErrorKind::Transient => S3ErrorCode::SlowDown,
        ErrorKind::Unsupported => S3ErrorCode::NotImplemented,
        ErrorKind::Invalid | ErrorKind::Unreachable => S3ErrorCode::InvalidRequest,
    });
    s3s::S3Error::with_message(code, text)
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<PartBody> {
    let mut collected = PartBody::new();
    if let Some(mut body) = body {
        while let Some(bytes) = body.next().await {
            collected.push(bytes.map_err(|_| s3_error!(IncompleteBody))?);
        }
    }
    Ok(collected)
}

fn checksum(crc64nvme: Option<&String>, crc32: Option<&String>) -> S3Result<Option<Checksum>> {
    let (kind, text) = match (crc64nvme, crc32) {
        (Some(text), _) => (ChecksumKind::Crc64Nvme, text),
        (None, Some(text)) => (ChecksumKind::Crc32, text),
        (None, None) => return Ok(None),
    };
    Checksum::from_base64(kind, text)
        .map(Some)
        .ok_or_else(|| s3_error!(InvalidRequest, "not a checksum: {text}"))
}

fn of_kind(checksum: Option<Checksum>, kind: ChecksumKind) -> Option<String> {
    checksum
        .filter(|checksum| checksum.kind() == kind)
        .map(Checksum::to_base64)
}

fn etag(quoted: &str) -> ETag {
    ETag::Strong(quoted.trim_matches('"').to_owned())
}

fn time(seconds: i64) -> Timestamp {
    (SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs())).into()
}

fn upload(key: String, id: String) -> Upload {
    Upload {
        key,
        id,
        ..Upload::default()
    }
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let backup_id = input
            .metadata
            .and_then(|metadata| metadata.get(METADATA).cloned())
            .unwrap_or_default();
        let upload = self
            .store
            .create_upload(&input.key, &backup_id)
            .await
            .map_err(|error| s3(&error))?;
        let output = CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(upload.key),
            upload_id: Some(upload.id),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let body = collect(input.body).await?;
        if input
            .content_length
            .is_some_and(|length| length.unsigned_abs() != body.len())
        {
            return Err(s3_error!(IncompleteBody));
        }
        let checksum = checksum(
            input.checksum_crc64nvme.as_ref(),
            input.checksum_crc32.as_ref(),
        )?;
        let number = input.part_number.unsigned_abs();
        let upload = upload(input.key, input.upload_id);
        let receipt = self
            .store
            .put_part(&upload, number, body, checksum)
            .await
            .map_err(|error| s3(&error))?;
        let output = UploadPartOutput {
            e_tag: Some(etag(&receipt.etag)),
            checksum_crc64nvme: input.checksum_crc64nvme,
            checksum_crc32: input.checksum_crc32,
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let stored = self
            .store
            .parts(&input.upload_id)
            .map_err(|error| s3(&error))?;
        let named = input
            .multipart_upload
            .and_then(|upload| upload.parts)
            .unwrap_or_default();
        let parts = named.into_iter().map(|part| {
            let number = part.part_number.unwrap_or_default().unsigned_abs();
            let etag = part
                .e_tag
                .map(|etag| format!("\"{}\"", etag.value()))
                .unwrap_or_default();
            let size = stored
                .iter()
                .find(|(stored, _)| stored.number == number)
                .map_or(0, |(stored, _)| stored.size);
            PartReceipt {
                number,
                size,
                etag,
                checksum: None,
            }
        });
        let parts: Vec<PartReceipt> = parts.collect();
        let whole = checksum(
            input.checksum_crc64nvme.as_ref(),
            input.checksum_crc32.as_ref(),
        )?;
        let upload = upload(input.key, input.upload_id);
        let object = self
            .store
            .complete_upload(&upload, &parts, whole)
            .await
            .map_err(|error| s3(&error))?;
        let output = CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(upload.key),
            e_tag: object.etag.as_deref().map(etag),
            checksum_crc64nvme: of_kind(object.checksum, ChecksumKind::Crc64Nvme),
            checksum_crc32: of_kind(object.checksum, ChecksumKind::Crc32),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        self.store
            .parts(&input.upload_id)
            .map_err(|error| s3(&error))?;
        let upload = upload(input.key, input.upload_id);
        self.store
            .abort_upload(&upload)
            .await
            .map_err(|error| s3(&error))?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        let after = input.part_number_marker.unwrap_or_default().unsigned_abs();
        let rest = self
            .store
            .parts(&input.upload_id)
            .map_err(|error| s3(&error))?
            .into_iter();
        let mut rest = rest.filter(|(part, _)| part.number > after).peekable();
        let parts: Vec<Part> = rest
            .by_ref()
            .take(PAGE)
            .map(|(part, arrived)| Part {
                part_number: Some(part.number.cast_signed()),
                size: Some(part.size.cast_signed()),
                e_tag: Some(etag(&part.etag)),
                last_modified: Some(time(arrived)),
                ..Default::default()
            })
            .collect();
        let more = rest.peek().is_some();
        Ok(S3Response::new(ListPartsOutput {
            is_truncated: Some(more),
            next_part_number_marker: parts
                .last()
                .and_then(|last| last.part_number)
                .filter(|_| more),
            parts: Some(parts),
            ..Default::default()
        }))
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        let after = input
            .key_marker
            .zip(input.upload_id_marker)
            .map(|(key, id)| format!("{key}\0{id}"));
        let page = self
            .store
            .list_uploads(&input.prefix.unwrap_or_default(), after)
            .await
            .map_err(|e| s3(&e))?;
        let next = page.next.as_deref().and_then(|next| next.split_once('\0'));
        let uploads = page.items.iter().map(|upload| MultipartUpload {
            key: Some(upload.key.clone()),
            upload_id: Some(upload.id.clone()),
            initiated: Some(time(upload.initiated)),
            ..Default::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            uploads: Some(uploads.collect()),
            is_truncated: Some(next.is_some()),
            next_key_marker: next.map(|(key, _)| key.to_owned()),
            next_upload_id_marker: next.map(|(_, id)| id.to_owned()),
            ..Default::default()
        }))
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let body = collect(input.body).await?.buffers().concat();
        let sent = checksum(
            input.checksum_crc64nvme.as_ref(),
            input.checksum_crc32.as_ref(),
        )?;
        if sent.is_some_and(|sent| Checksum::of(sent.kind(), &body) != sent) {
            return Err(s3_error!(BadDigest));
        }
        let md5 = self.store.has_md5().then(|| hex(&Md5::digest(&body)));
        let id = input.metadata.as_ref().and_then(|all| all.get(METADATA));
        let body = bytes::Bytes::from(body);
        match (id, &input.if_none_match) {
            (Some(id), Some(_)) => {
                let put = self.store.put_volume(&input.key, id, body.into(), sent);
                put.await.map_err(|error| s3(&error))?;
            }
            (None, Some(_)) => {
                let put = self.store.put(&input.key, body);
                put.await.map_err(|error| s3(&error))?;
            }
            (_, None) => {
                self.store.overwrite(&input.key, body);
            }
        }
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(md5.unwrap_or_else(|| "object".into()))),
            ..Default::default()
        }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let info = self
            .store
            .head(&input.key)
            .await
            .map_err(|error| s3(&error))?;
        let info = info.ok_or_else(|| s3_error!(NoSuchKey))?;
        let range = match &input.range {
            Some(range) => Some(range.check(info.size)?),
            None => None,
        };
        let length = range
            .as_ref()
            .map_or(info.size, |range| range.end - range.start);
        let content_range = range
            .as_ref()
            .map(|r| format!("bytes {}-{}/{}", r.start, r.end - 1, info.size));
        let body = self
            .store
            .get(&input.key, range)
            .await
            .map_err(|error| s3(&error))?;
        // All of it is in memory already.
        let body: Vec<store::Result<Bytes>> = body.collect().await;
        let output = GetObjectOutput {
            body: Some(StreamingBlob::wrap(stream::iter(body))),
            content_length: Some(length.cast_signed()),
            content_range,
            last_modified: Some(time(info.modified)),
            e_tag: Some(ETag::Strong("object".into())),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let info = self
            .store
            .head(&request.input.key)
            .await
            .map_err(|error| s3(&error))?;
        let info = info.ok_or_else(|| s3_error!(NoSuchKey))?;
        let metadata = info
            .backup_id
            .map(|id| [(METADATA.to_owned(), id)].into_iter().collect());
        let output = HeadObjectOutput {
            content_length: Some(info.size.cast_signed()),
            last_modified: Some(time(info.modified)),
            e_tag: Some(ETag::Strong("object".into())),
            checksum_crc64nvme: of_kind(info.checksum, ChecksumKind::Crc64Nvme),
            checksum_crc32: of_kind(info.checksum, ChecksumKind::Crc32),
            metadata,
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let prefix = input.prefix.unwrap_or_default();
        let after = input.continuation_token.or(input.start_after);
        let page = self
            .store
            .list(&prefix, after)
            .await
            .map_err(|error| s3(&error))?;
        let (mut contents, mut folders) = (Vec::new(), std::collections::BTreeSet::new());
        for object in page.items {
            let rest = &object.key[prefix.len()..];
            match input
                .delimiter
                .as_ref()
                .and_then(|delimiter| rest.split_once(delimiter.as_str()))
            {
                Some((folder, _)) => {
                    folders.insert(format!("{prefix}{folder}/"));
                }
                None => contents.push(Object {
                    size: Some(object.size.cast_signed()),
                    last_modified: Some(time(object.modified)),
                    key: Some(object.key),
                    ..Default::default()
                }),
            }
        }
        let folders = folders.into_iter().map(|folder| CommonPrefix {
            prefix: Some(folder),
        });
        let output = ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(prefix),
            delimiter: input.delimiter,
            key_count: i32::try_from(contents.len()).ok(),
            contents: Some(contents),
            common_prefixes: Some(folders.collect()),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.store
            .delete(&request.input.key)
            .await
            .map_err(|error| s3(&error))?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn head_bucket(
        &self,
        _: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_lifecycle_configuration(
        &self,
        _: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
        Err(s3_error!(NoSuchLifecycleConfiguration))
    }
}
