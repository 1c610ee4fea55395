//! What a bucket that keeps versions has below its objects, and the locks on it.

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_sdk_s3::types::{
    BucketVersioningStatus, ObjectLockLegalHoldStatus, ObjectLockRetention,
    ObjectLockRetentionMode, ObjectVersion,
};

use super::S3Store;
use super::listing::{markers, token};
use crate::store::{ErrorKind, Page, Result, Version};

impl S3Store {
    /// Whether what is deleted stays as a version; `None` when the bucket would not say.
    pub(super) async fn versioning(&self) -> Option<bool> {
        let request = self
            .client
            .get_bucket_versioning()
            .bucket(&self.settings.bucket);
        let found = request.send().await.ok()?;
        // Where it was suspended, what was there before stays.
        let is_kept = |status: &BucketVersioningStatus| {
            [
                BucketVersioningStatus::Enabled,
                BucketVersioningStatus::Suspended,
            ]
            .contains(status)
        };
        Some(found.status().is_some_and(is_kept))
    }

    pub(super) async fn page_of_versions(
        &self,
        prefix: &str,
        page: Option<String>,
    ) -> Result<Page<Version>> {
        let (key, version) = markers(page.as_deref());
        let request = self
            .client
            .list_object_versions()
            .bucket(&self.settings.bucket)
            .prefix(self.full(prefix))
            .set_key_marker(key)
            .set_version_id_marker(version.filter(|version| !version.is_empty()));
        let found = self
            .reply("ListObjectVersions", None, request.send())
            .await?;
        let versions = found.versions().iter().filter_map(|version| {
            Some(Version {
                key: self.relative(version.key()?)?,
                id: version.version_id()?.to_owned(),
                size: size(version),
                modified: version.last_modified().map_or(0, DateTime::secs),
                is_latest: version.is_latest().unwrap_or_default(),
                is_marker: false,
            })
        });
        let markers = found.delete_markers().iter().filter_map(|marker| {
            Some(Version {
                key: self.relative(marker.key()?)?,
                id: marker.version_id()?.to_owned(),
                size: 0,
                modified: marker.last_modified().map_or(0, DateTime::secs),
                is_latest: marker.is_latest().unwrap_or_default(),
                is_marker: true,
            })
        });
        let items = versions.chain(markers).collect();
        let next = token(found.next_key_marker(), found.next_version_id_marker());
        let next = self.next("ListObjectVersions", found.is_truncated(), next)?;
        Ok(Page { items, next })
    }

    pub(super) async fn remove_version(&self, version: &Version) -> Result<()> {
        let request = self
            .client
            .delete_object()
            .bucket(&self.settings.bucket)
            .key(self.full(&version.key))
            .version_id(&version.id);
        let operation = "DeleteObject";
        match self
            .reply(operation, Some(&version.key), request.send())
            .await
        {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            // A lock is refused as what is not allowed is.
            Err(error) if error.kind() == ErrorKind::Denied && !version.is_marker => {
                match self.lock_on(version).await {
                    Some(lock) => Err(error.context(lock)),
                    None => Err(error),
                }
            }
            removed => removed.map(|_| ()),
        }
    }

    /// Ceph 16 and moto begin an upload with a lock, and join its parts without one: that is put on the
    /// object afterwards. A key that may not look puts it on whatever there is; the same lock again,
    /// or a later date, is refused by no mode of it.
    pub(super) async fn lock_if_it_is_not(&self, key: &str) -> Result<()> {
        let (Some(mode), Some(until)) = self.lock_of(key) else {
            return Ok(());
        };
        let request = self
            .client
            .head_object()
            .bucket(&self.settings.bucket)
            .key(self.full(key));
        if let Ok(head) = Box::pin(request.send()).await
            && head.object_lock_retain_until_date().is_some()
        {
            return Ok(());
        }
        let retention = ObjectLockRetention::builder()
            .mode(ObjectLockRetentionMode::from(mode.as_str()))
            .retain_until_date(until)
            .build();
        let request = self
            .client
            .put_object_retention()
            .bucket(&self.settings.bucket)
            .key(self.full(key))
            .retention(retention);
        let locked = self.reply("PutObjectRetention", Some(key), Box::pin(request.send()));
        let words = "the store has not locked what object_lock asks it to lock";
        locked.await.map_err(|error| error.context(words))?;
        Ok(())
    }

    /// The lock on a version, in words; `None` where there is none, or nobody says.
    async fn lock_on(&self, version: &Version) -> Option<String> {
        let request = self
            .client
            .head_object()
            .bucket(&self.settings.bucket)
            .key(self.full(&version.key))
            .version_id(&version.id);
        let head = Box::pin(request.send()).await.ok()?;
        if head.object_lock_legal_hold_status() == Some(&ObjectLockLegalHoldStatus::On) {
            return Some("locked by a legal hold, until that is lifted".into());
        }
        let until = head.object_lock_retain_until_date()?;
        let until = until.fmt(DateTimeFormat::DateTime).ok()?;
        let mode = head
            .object_lock_mode()
            .map_or("", |mode| mode.as_str())
            .to_lowercase();
        Some(format!("locked until {until} ({mode})"))
    }
}

fn size(version: &ObjectVersion) -> u64 {
    version.size().unwrap_or_default().unsigned_abs()
}
