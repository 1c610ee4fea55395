//! Multipart uploads, from their begin to their object or their end.

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ChecksumType, CompletedMultipartUpload, CompletedPart};

use super::S3Store;
use super::body::stream_of;
use super::quirks::Ask;
use super::request::{METADATA, algorithm, value};
use crate::store::progress::Progress;
use crate::store::{
    Checksum, ChecksumKind, ErrorKind, PartBody, PartReceipt, Result, StoreError, Upload,
    UploadInfo, Written,
};

/// An abort is repeated while parts that were in flight still arrive.
const ABORTS: usize = 5;

impl S3Store {
    pub(super) async fn begin(&self, key: &str, backup_id: &str) -> Result<Upload> {
        let (sse, kms_key) = self.encryption();
        let (lock_mode, locked_until) = self.lock_of(key);
        let request = self
            .client
            .create_multipart_upload()
            .bucket(&self.settings.bucket)
            .key(self.full(key))
            .metadata(METADATA, backup_id)
            .set_storage_class(self.storage_class())
            .set_server_side_encryption(sse)
            .set_ssekms_key_id(kms_key)
            .set_object_lock_mode(lock_mode)
            .set_object_lock_retain_until_date(locked_until);
        let operation = "CreateMultipartUpload";
        let send = |asked: Ask| {
            let kind = self.settings.checksum.filter(|_| asked.checksum);
            let request = request
                .clone()
                .set_checksum_algorithm(kind.map(algorithm))
                .set_checksum_type(kind.map(|_| ChecksumType::FullObject));
            self.reply(operation, Some(key), Box::pin(request.send()))
        };
        let created = self.asking(send).await?;
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

    pub(super) async fn send_part(
        &self,
        upload: &Upload,
        number: u32,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<PartReceipt> {
        let size = body.len();
        let send = async |asked: Ask| {
            let checksum = checksum.filter(|_| asked.checksum);
            let md5 = self.md5_instead(asked, &body).await;
            let pass = self.gate.enter().await;
            let progress = Progress::of(size);
            let stream = stream_of(body.clone(), progress.clone(), self.paces.clone());
            let request = self
                .client
                .upload_part()
                .bucket(&self.settings.bucket)
                .key(self.full(&upload.key))
                .upload_id(&upload.id)
                .part_number(number.cast_signed())
                .content_length(size.cast_signed())
                .set_content_md5(md5)
                .set_checksum_algorithm(checksum.map(|checksum| algorithm(checksum.kind())))
                .set_checksum_crc64_nvme(value(checksum, ChecksumKind::Crc64Nvme))
                .set_checksum_crc32(value(checksum, ChecksumKind::Crc32))
                .body(stream);
            let request = Box::pin(request.send());
            let sent = self
                .sent("UploadPart", &upload.key, &progress, request)
                .await;
            pass.ended(&sent);
            sent
        };
        let put = self.asking(|asked| Box::pin(send(asked))).await?;
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

    pub(super) async fn complete(
        &self,
        upload: &Upload,
        parts: &[PartReceipt],
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        let operation = "CompleteMultipartUpload";
        let send = |asked: Ask| {
            let known = |checksum: Option<Checksum>| checksum.filter(|_| asked.checksum);
            let completed = parts.iter().map(|part| {
                let checksum = known(part.checksum);
                CompletedPart::builder()
                    .part_number(part.number.cast_signed())
                    .e_tag(&part.etag)
                    .set_checksum_crc64_nvme(value(checksum, ChecksumKind::Crc64Nvme))
                    .set_checksum_crc32(value(checksum, ChecksumKind::Crc32))
                    .build()
            });
            let list = CompletedMultipartUpload::builder()
                .set_parts(Some(completed.collect()))
                .build();
            let checksum = known(checksum);
            let request = self
                .client
                .complete_multipart_upload()
                .bucket(&self.settings.bucket)
                .key(self.full(&upload.key))
                .upload_id(&upload.id)
                .multipart_upload(list)
                .set_if_none_match(asked.condition.then(|| "*".to_owned()))
                // A value without its type is taken for a composite one, a type without a value for
                // nonsense.
                .set_checksum_type(checksum.map(|_| ChecksumType::FullObject))
                .set_checksum_crc64_nvme(value(checksum, ChecksumKind::Crc64Nvme))
                .set_checksum_crc32(value(checksum, ChecksumKind::Crc32));
            self.reply(operation, Some(&upload.key), Box::pin(request.send()))
        };
        let done = self.asking(send).await?;
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

    pub(super) async fn abort(&self, upload: &Upload) -> Result<()> {
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
            match self.parts_of(&upload.key, &upload.id).await {
                Ok(UploadInfo { parts: 1.., .. }) => {}
                Ok(_) => return Ok(()),
                // The abort was accepted; a key that may not look takes that for the answer.
                Err(error) if error.kind() == ErrorKind::Denied => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Err(self.no_reply("AbortMultipartUpload", &upload.key, "parts keep arriving"))
    }

    pub(super) async fn parts_of(&self, key: &str, upload_id: &str) -> Result<UploadInfo> {
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
                    let arrived = part.last_modified().map_or(0, DateTime::secs);
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
}
