//! Where backups live: a bucket and prefix, or a folder, behind one trait.
//!
//! Keys are relative to the store's prefix. Objects are only ever written whole: [`Store::put`] for
//! small ones, and for archives a multipart upload whose parts may arrive in any order (part 1,
//! which holds the archive's header, arrives last) and which exists for readers only after
//! [`Store::complete_upload`].
//!
//! | backend | for |
//! |---|---|
//! | [`s3`] | AWS S3 and the servers that speak its protocol |
//! | [`folder`] | a folder on another disk or file server |
//! | [`memory`] | tests, benches, and the state behind the in-process S3 server |
//!
//! [`retry`] wraps any of them.

mod checksum;
mod error;
pub mod folder;
mod gate;
mod listing;
pub mod memory;
pub mod pace;
mod progress;
pub mod retry;
pub mod s3;

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

pub use checksum::{Checksum, ChecksumKind, Digest};
pub use error::{ErrorKind, StoreError};
pub use listing::{list_all, list_all_uploads, objects, uploads, versions};

/// Below this are notes beside the backups: who is at a database, what became of its last runs. No
/// database's name begins so: a tilde there is encoded.
pub const NOTES: &str = "~tapline/";

/// The result of a store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// What a store allows; a backup's parts are planned from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Smallest size of a part that is not the last, in bytes (S3: 5 MiB).
    pub min_part: u64,
    /// Largest size of a part, in bytes (S3: 5 GiB).
    pub max_part: u64,
    /// Most parts in one upload (S3: 10,000; Scaleway: 1,000).
    pub max_parts: u32,
    /// Whether parts are taken in their order, and only a few before their turn. Some stores tell
    /// only in the reply to an upload that is begun.
    pub in_order: bool,
    /// Most parts of one backup on their way at once, where somebody has said; else as many as
    /// memory allows.
    pub connections: Option<NonZeroU32>,
}

impl Limits {
    /// The limits of AWS S3: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
    pub const S3: Limits = Limits {
        min_part: 5 << 20,
        max_part: 5 << 30,
        max_parts: 10_000,
        in_order: false,
        connections: None,
    };

    /// What all of these stores allow.
    #[must_use]
    pub fn common(all: impl IntoIterator<Item = Self>) -> Self {
        let both = |a: Self, b: Self| Self {
            min_part: a.min_part.max(b.min_part),
            max_part: a.max_part.min(b.max_part),
            max_parts: a.max_parts.min(b.max_parts),
            in_order: a.in_order || b.in_order,
            connections: [a.connections, b.connections].into_iter().flatten().min(),
        };
        all.into_iter().reduce(both).unwrap_or(Self::S3)
    }
}

/// An open multipart upload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upload {
    /// Key of the object that it will become, relative to the store's prefix.
    pub key: String,
    /// The server's name for the upload.
    pub id: String,
    /// The backup that writes it; on completion it is in the object's metadata.
    pub backup_id: String,
    /// Whether a try before, whose reply was lost, may have begun another.
    pub has_twin: bool,
}

/// The body of a part: several buffers that are sent one after the other, never joined.
#[derive(Debug, Clone, Default)]
pub struct PartBody {
    buffers: Vec<Bytes>,
    len: u64,
}

impl PartBody {
    /// An empty body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a buffer at the end.
    pub fn push(&mut self, buffer: Bytes) {
        self.len += buffer.len() as u64;
        self.buffers.push(buffer);
    }

    /// Adds a buffer before all others.
    pub fn push_front(&mut self, buffer: Bytes) {
        self.len += buffer.len() as u64;
        self.buffers.insert(0, buffer);
    }

    /// Length of all buffers, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is not a byte in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The buffers, in order.
    pub fn buffers(&self) -> &[Bytes] {
        &self.buffers
    }
}

impl From<Bytes> for PartBody {
    fn from(buffer: Bytes) -> Self {
        let mut body = Self::new();
        body.push(buffer);
        body
    }
}

/// The store's receipt for one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartReceipt {
    /// Part number, from 1.
    pub number: u32,
    /// Size in bytes.
    pub size: u64,
    /// Entity tag as the server gave it, quotes included.
    pub etag: String,
    /// Checksum of the part's bytes, when the store uses one.
    pub checksum: Option<Checksum>,
}

/// What the store's reply says of an object that it took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Entity tag, quotes included; a server that keeps it to itself has none.
    pub etag: Option<String>,
    /// Checksum of the whole object, where the store keeps one.
    pub checksum: Option<Checksum>,
    /// Whether the reply is of somebody who has read every byte, so that no look can say more: the
    /// entity tag is their MD5, or the file is on the disk.
    pub is_proven: bool,
}

/// What a store says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Key relative to the store's prefix.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// Last change, as seconds since the Unix epoch; 0 when the store does not say. S3 dates an
    /// object that was uploaded in parts by the upload's begin.
    pub modified: i64,
    /// Checksum of the whole object; `head` asks for it, listings leave it out.
    pub checksum: Option<Checksum>,
    /// The backup id in the object's metadata; listings leave it out.
    pub backup_id: Option<String>,
}

/// An upload that was begun and neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    /// Key relative to the store's prefix.
    pub key: String,
    /// The server's name for the upload.
    pub id: String,
    /// When it was begun, as seconds since the Unix epoch; 0 when the store does not say.
    pub initiated: i64,
}

/// What an open upload holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UploadInfo {
    /// Number of parts.
    pub parts: usize,
    /// Size of all parts, in bytes.
    pub size: u64,
    /// When the newest part arrived, as seconds since the Unix epoch; 0 when there is none or the
    /// store does not say.
    pub newest: i64,
}

impl UploadInfo {
    /// Adds a part.
    pub fn add(&mut self, size: u64, arrived: i64) {
        self.parts += 1;
        self.size += size;
        self.newest = self.newest.max(arrived);
    }
}

/// A version of an object, in a store that keeps them, or the mark of its deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Key relative to the store's prefix.
    pub key: String,
    /// The server's name for the version.
    pub id: String,
    /// Size in bytes; none of a mark.
    pub size: u64,
    /// When it was made, as seconds since the Unix epoch; 0 when the store does not say.
    pub modified: i64,
    /// Whether it is what a reader gets: an object, or none where it is a mark.
    pub is_latest: bool,
    /// Whether it stands for a deletion.
    pub is_marker: bool,
}

impl Version {
    /// Whether it is an object that is listed.
    pub fn is_living(&self) -> bool {
        self.is_latest && !self.is_marker
    }
}

/// One page of a listing.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The entries, in the server's order (keys ascending).
    pub items: Vec<T>,
    /// Given back to get the next page; `None` on the last.
    pub next: Option<String>,
}

impl<T> Default for Page<T> {
    /// The only page of a listing of nothing.
    fn default() -> Self {
        Self {
            items: Vec::new(),
            next: None,
        }
    }
}

/// A bucket and prefix, or a folder. All methods may be called concurrently.
#[async_trait]
pub trait Store: Send + Sync {
    /// The store's address for messages, such as `s3://bucket/prefix`; never a secret.
    fn address(&self) -> String;

    /// What the store allows.
    fn limits(&self) -> Limits;

    /// The checksum that parts and objects are stored with; `None` when the store is configured
    /// without.
    fn checksum_kind(&self) -> Option<ChecksumKind>;

    /// By how many seconds the store's clock, which dates what it has, is ahead of this machine's;
    /// `None` until it has told.
    fn clock_offset(&self) -> Option<i64> {
        None
    }

    /// Begins a multipart upload for `key`; `backup_id` becomes object metadata.
    async fn create_upload(&self, key: &str, backup_id: &str) -> Result<Upload>;

    /// Uploads one part. `checksum` is over `body`, of [`Store::checksum_kind`].
    async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<PartReceipt>;

    /// Joins the parts (ascending by number) into the object, if no object has its key. `checksum`
    /// is of the whole object. A store itself judges by the reply alone; [`retry::PatientStore`] also
    /// looks at what is there, and so settles a completion whose reply was lost.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when another object has the key. With
    /// [`StoreError::unanswered`] the object may be there, or may still come.
    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[PartReceipt],
        checksum: Option<Checksum>,
    ) -> Result<Written>;

    /// Ends an upload and frees its parts; an upload that is gone already is no error.
    async fn abort_upload(&self, upload: &Upload) -> Result<()>;

    /// Puts a small object, if no object has its key. A reply without an entity tag is no proof and
    /// passes for none.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when another object has the key. With
    /// [`StoreError::unanswered`] the object may be there, or may still come.
    async fn put(&self, key: &str, body: Bytes) -> Result<Written>;

    /// Puts a small object in place of the one that has its key, if there is one. For notes, never
    /// for what a backup consists of.
    async fn replace(&self, key: &str, body: Bytes) -> Result<Written> {
        self.delete(key).await?;
        self.put(key, body).await
    }

    /// Puts a volume that is whole in memory, if no object has its key; `backup_id` becomes object
    /// metadata, `checksum` is of all of it. An upload of one part where a store has no other way.
    ///
    /// # Errors
    /// As those of [`Store::complete_upload`].
    async fn put_volume(
        &self,
        key: &str,
        backup_id: &str,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        let upload = self.create_upload(key, backup_id).await?;
        let part = self.put_part(&upload, 1, body, checksum).await?;
        self.complete_upload(&upload, &[part], checksum).await
    }

    /// Reads `range` of an object's bytes, or all of it, as it arrives.
    async fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>>;

    /// What the store knows of an object; `None` when there is none.
    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>>;

    /// A page of the objects whose keys begin with `prefix`.
    async fn list(&self, prefix: &str, page: Option<String>) -> Result<Page<ObjectInfo>>;

    /// A page of the open uploads whose keys begin with `prefix`.
    async fn list_uploads(&self, prefix: &str, page: Option<String>) -> Result<Page<OpenUpload>>;

    /// What an open upload holds; nothing when it is gone.
    async fn upload_info(&self, key: &str, upload_id: &str) -> Result<UploadInfo>;

    /// Deletes an object; one that is gone already is no error.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Sees to it that a volume whose parts have been joined is locked, where the store's settings ask
    /// for it: some servers lock only what is put in one request.
    ///
    /// # Errors
    /// It is not locked.
    async fn lock_joined(&self, _key: &str) -> Result<()> {
        Ok(())
    }

    /// Whether what is deleted is only hidden and stays as a version; `None` when the store would not
    /// say.
    async fn keeps_versions(&self) -> Option<bool> {
        Some(false)
    }

    /// A page of all versions of objects whose keys begin with `prefix`; none where none are kept.
    async fn list_versions(&self, _prefix: &str, _page: Option<String>) -> Result<Page<Version>> {
        Ok(Page::default())
    }

    /// Deletes a version for good; one that is gone already is no error.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] also when a lock is on it, which is then named with its date.
    async fn delete_version(&self, _version: &Version) -> Result<()> {
        Ok(())
    }

    /// Reads a whole small object of at most `limit` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the object is larger.
    async fn get_small(&self, key: &str, limit: usize) -> Result<Bytes> {
        let mut body = self.get(key, None).await?;
        let mut all = Vec::new();
        while let Some(buffer) = body.next().await {
            let buffer = buffer?;
            if all.len() + buffer.len() > limit {
                return Err(StoreError::new(
                    ErrorKind::Invalid,
                    format!("{key} is larger than {limit} bytes"),
                ));
            }
            all.extend_from_slice(&buffer);
        }
        Ok(all.into())
    }
}

/// A store shared by jobs.
pub type SharedStore = Arc<dyn Store>;

/// Reads a whole small object of at most `limit` bytes.
///
/// # Errors
/// [`ErrorKind::Invalid`] when the object is larger.
pub async fn get_small(store: &dyn Store, key: &str, limit: usize) -> Result<Bytes> {
    store.get_small(key, limit).await
}
