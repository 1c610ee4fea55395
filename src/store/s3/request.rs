//! What requests have in common: full keys, and what is said of each object that is written.

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ChecksumAlgorithm, ObjectLockMode, ServerSideEncryption, StorageClass};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

use super::quirks::Ask;
use super::settings::LockMode;
use super::{S3Settings, S3Store};
use crate::catalog::is_check_key;
use crate::store::{Checksum, ChecksumKind, NOTES, PartBody, Result};

/// The backup id in an object's metadata.
pub(super) const METADATA: &str = "tapline-backup-id";

impl S3Store {
    pub(super) fn full(&self, key: &str) -> String {
        if self.settings.prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{}/{key}", self.settings.prefix)
        }
    }

    pub(super) fn relative(&self, key: &str) -> Option<String> {
        if self.settings.prefix.is_empty() {
            return Some(key.to_owned());
        }
        Some(
            key.strip_prefix(&self.settings.prefix)?
                .strip_prefix('/')?
                .to_owned(),
        )
    }

    /// Sends a request, and again as long as the server's refusal shows what it does not take.
    pub(super) async fn asking<T, F: Future<Output = Result<T>> + Send>(
        &self,
        send: impl Fn(Ask) -> F + Send,
    ) -> Result<T> {
        loop {
            let asked = Ask {
                condition: self.profile().conditions && !self.quirks.unconditional(),
                checksum: self.profile().checksums && !self.quirks.unchecked(),
            };
            match send(asked).await {
                Err(error) if self.quirks.learn(&error, asked) => {}
                result => return result,
            }
        }
    }

    /// `Content-MD5`, where the store is to check what it gets and knows no other checksum.
    pub(super) async fn md5_instead(&self, asked: Ask, body: &PartBody) -> Option<String> {
        // A lock takes one or the other:
        // <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html>.
        let is_wanted = match self.settings.checksum {
            Some(_) => !asked.checksum,
            None => self.settings.lock.is_some(),
        };
        if !is_wanted {
            return None;
        }
        Some(STANDARD.encode(md5_of(body.clone()).await?))
    }

    /// Server-side encryption and its key.
    pub(super) fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        let sse = self.settings.sse.as_deref();
        match sse.and_then(|sse| sse.strip_prefix("aws:kms:")) {
            Some(key) => (Some(ServerSideEncryption::AwsKms), Some(key.to_owned())),
            None => (sse.map(ServerSideEncryption::from), None),
        }
    }

    pub(super) fn storage_class(&self) -> Option<StorageClass> {
        self.settings
            .storage_class
            .as_deref()
            .map(StorageClass::from)
    }
}

pub(super) fn address(settings: &S3Settings) -> String {
    let S3Settings { bucket, prefix, .. } = settings;
    let slash = if prefix.is_empty() { "" } else { "/" };
    format!("s3://{bucket}{slash}{prefix}")
}

pub(super) fn algorithm(kind: ChecksumKind) -> ChecksumAlgorithm {
    match kind {
        ChecksumKind::Crc64Nvme => ChecksumAlgorithm::Crc64Nvme,
        ChecksumKind::Crc32 => ChecksumAlgorithm::Crc32,
    }
}

/// The value for the request field of `kind`, when the checksum is of it.
pub(super) fn value(checksum: Option<Checksum>, kind: ChecksumKind) -> Option<String> {
    checksum
        .filter(|checksum| checksum.kind() == kind)
        .map(Checksum::to_base64)
}

impl S3Store {
    /// The lock that an object gets which is to have this key, by the server's clock. Notes, and what
    /// `tapline check` stores, get none: they are replaced and removed all the time.
    pub(super) fn lock_of(&self, key: &str) -> (Option<ObjectLockMode>, Option<DateTime>) {
        let Some(lock) = &self.settings.lock else {
            return (None, None);
        };
        if key.starts_with(NOTES) || is_check_key(key) {
            return (None, None);
        }
        let now = jiff::Timestamp::now().as_second() + self.clock.offset().unwrap_or_default();
        let until = now.saturating_add(i64::from(lock.days) * 86_400);
        let mode = match lock.mode {
            LockMode::Governance => ObjectLockMode::Governance,
            LockMode::Compliance => ObjectLockMode::Compliance,
        };
        (Some(mode), Some(DateTime::from_secs(until)))
    }
}

/// The MD5 of a body, made where it holds nobody up.
pub(super) async fn md5_of(body: PartBody) -> Option<[u8; 16]> {
    let digest = tokio::task::spawn_blocking(move || {
        let mut digest = Md5::new();
        for buffer in body.buffers() {
            digest.update(buffer);
        }
        digest.finalize().into()
    });
    digest.await.ok()
}
