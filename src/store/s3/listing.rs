//! A page of what there is: objects, open uploads.

use aws_sdk_s3::primitives::DateTime;

use super::S3Store;
use crate::store::{ErrorKind, ObjectInfo, OpenUpload, Page, Result, StoreError};

impl S3Store {
    pub(super) async fn page_of_objects(
        &self,
        prefix: &str,
        page: Option<String>,
    ) -> Result<Page<ObjectInfo>> {
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
                modified: object.last_modified().map_or(0, DateTime::secs),
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

    pub(super) async fn page_of_uploads(
        &self,
        prefix: &str,
        page: Option<String>,
    ) -> Result<Page<OpenUpload>> {
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
                initiated: upload.initiated().map_or(0, DateTime::secs),
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

    pub(super) fn half_a_listing(&self, operation: &'static str) -> StoreError {
        StoreError::new(
            ErrorKind::Transient,
            "the listing says that there is more, and not where",
        )
        .with_request(operation, None)
        .with_store(&*self.place)
    }
}
