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
        let token = found.next_continuation_token().map(str::to_owned);
        let next = self.next("ListObjectsV2", found.is_truncated(), token)?;
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
        let (key, id) = markers(page.as_deref());
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
        let next = token(found.next_key_marker(), found.next_upload_id_marker());
        let next = self.next("ListMultipartUploads", found.is_truncated(), next)?;
        Ok(Page {
            items: items.collect(),
            next,
        })
    }

    /// The page after this one; `token` is what the server says of it.
    ///
    /// # Errors
    /// It says that there is one, and not where.
    pub(super) fn next(
        &self,
        operation: &'static str,
        is_truncated: Option<bool>,
        token: Option<String>,
    ) -> Result<Option<String>> {
        if !is_truncated.unwrap_or_default() {
            return Ok(None);
        }
        token.map(Some).ok_or_else(|| {
            StoreError::new(
                ErrorKind::Transient,
                "the listing says that there is more, and not where",
            )
            .with_request(operation, None)
            .with_store(&*self.place)
        })
    }
}

/// A page that a server names by a key and an id, of an upload or a version, as one token; neither
/// holds a line break.
pub(super) fn token(key: Option<&str>, id: Option<&str>) -> Option<String> {
    Some(format!("{}\n{}", key?, id.unwrap_or_default()))
}

/// The key and the id of such a page.
pub(super) fn markers(page: Option<&str>) -> (Option<String>, Option<String>) {
    page.and_then(|page| page.split_once('\n'))
        .map(|(key, id)| (key.to_owned(), id.to_owned()))
        .unzip()
}
