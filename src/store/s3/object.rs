//! Objects: put in one request, read, looked at, deleted.

use std::ops::Range;

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::ChecksumMode;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::S3Store;
use super::body::stream_of;
use super::quirks::Ask;
use super::request::{METADATA, algorithm, md5_of, value};
use super::words::chain;
use crate::archive::hex;
use crate::store::pace::Paces;
use crate::store::progress::Progress;
use crate::store::{
    Checksum, ChecksumKind, ErrorKind, ObjectInfo, PartBody, Result, StoreError, Written,
};

impl S3Store {
    /// One PutObject: with the backup that it is of, if it is a volume; with the condition that no
    /// object has the key, or without.
    pub(super) async fn put_object(
        &self,
        key: &str,
        backup_id: Option<&str>,
        (body, checksum): (PartBody, Option<Checksum>),
        is_new: bool,
    ) -> Result<Written> {
        let (sse, kms_key) = self.encryption();
        let (lock_mode, locked_until) = self.lock_of(key);
        let send = async |asked: Ask| {
            let checksum = checksum.filter(|_| asked.checksum);
            let md5 = self.md5_instead(asked, &body).await;
            // Notes and manifests wait for no archive.
            let (pass, paces) = match backup_id {
                Some(_) => (Some(self.gate.enter().await), self.paces.clone()),
                None => (None, Paces::default()),
            };
            let progress = Progress::of(body.len());
            let stream = stream_of(body.clone(), progress.clone(), paces);
            let request = self
                .client
                .put_object()
                .bucket(&self.settings.bucket)
                .key(self.full(key))
                .set_metadata(backup_id.map(|id| [(METADATA.to_owned(), id.to_owned())].into()))
                .set_if_none_match((asked.condition && is_new).then(|| "*".to_owned()))
                .set_storage_class(self.storage_class())
                .set_server_side_encryption(sse.clone())
                .set_ssekms_key_id(kms_key.clone())
                .set_object_lock_mode(lock_mode.clone())
                .set_object_lock_retain_until_date(locked_until)
                .set_content_md5(md5)
                .set_checksum_algorithm(checksum.map(|checksum| algorithm(checksum.kind())))
                .set_checksum_crc64_nvme(value(checksum, ChecksumKind::Crc64Nvme))
                .set_checksum_crc32(value(checksum, ChecksumKind::Crc32))
                .content_length(body.len().cast_signed())
                .body(stream);
            let request = Box::pin(request.send());
            let sent = self.sent("PutObject", key, &progress, request).await;
            if let Some(pass) = pass {
                pass.ended(&sent);
            }
            // What was not sent is not stored.
            sent.map(|done| (done, checksum))
        };
        let (done, checksum) = self.asking(|asked| Box::pin(send(asked))).await?;
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

    /// A small body, and its checksum of the store's kind.
    pub(super) fn with_checksum(&self, body: Bytes) -> (PartBody, Option<Checksum>) {
        let kind = self.settings.checksum;
        let checksum = kind.map(|kind| Checksum::of(kind, &body));
        (body.into(), checksum)
    }

    pub(super) async fn read(
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

    pub(super) async fn look_at(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let request = self
            .client
            .head_object()
            .bucket(&self.settings.bucket)
            .key(self.full(key));
        let send = |asked: Ask| {
            let asked = self.settings.checksum.is_some() && asked.checksum;
            let mode = asked.then_some(ChecksumMode::Enabled);
            let request = request.clone().set_checksum_mode(mode);
            self.reply("HeadObject", Some(key), Box::pin(request.send()))
        };
        let head = match self.asking(send).await {
            Ok(head) => head,
            // The reply to a HEAD has no words: what was refused is found out by asking for less.
            Err(error)
                if error.kind() == ErrorKind::Invalid && self.settings.checksum.is_some() =>
            {
                let plain = self
                    .reply("HeadObject", Some(key), Box::pin(request.send()))
                    .await;
                match plain {
                    Ok(head) => {
                        self.quirks.learn_unchecked();
                        head
                    }
                    Err(again) if again.kind() == ErrorKind::NotFound => return Ok(None),
                    Err(_) => return Err(error),
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // The other kind where the store was told to keep that when this was put.
        let kinds = [
            (ChecksumKind::Crc64Nvme, head.checksum_crc64_nvme()),
            (ChecksumKind::Crc32, head.checksum_crc32()),
        ];
        let checksum = kinds
            .into_iter()
            .find_map(|(kind, text)| Checksum::from_base64(kind, text?));
        Ok(Some(ObjectInfo {
            key: key.to_owned(),
            size: head.content_length().unwrap_or_default().unsigned_abs(),
            modified: head.last_modified().map_or(0, DateTime::secs),
            checksum,
            backup_id: head
                .metadata()
                .and_then(|metadata| metadata.get(METADATA))
                .cloned(),
        }))
    }

    pub(super) async fn remove(&self, key: &str) -> Result<()> {
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
    let digest = md5_of(body.clone()).await;
    digest.is_some_and(|digest| hex(&digest) == tag)
}
