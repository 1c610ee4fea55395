//! A folder as a store: another disk, a share of a file server, the workspace of a CI job.
//!
//! It keeps the promises that a bucket keeps. An object is there when it is whole, and never before:
//! it is written as an upload, in a folder of its own, and gets its key as its name when every byte
//! is on the disk. No object takes another's name: a name is given by `link`, which fails where there
//! is one, also on NFS. What a killed run leaves is an open upload, which is in no list of backups and
//! which `tapline cleanup` finds.
//!
//! | file | role |
//! |---|---|
//! | this | [`FolderStore`]: every request on a thread of its own, for a limited time |
//! | `place` | where a key's object is; whether the disk is there |
//! | `tree` | folders by their handles |
//! | `upload` | from an upload's begin to its last part |
//! | `mark` | what is written down of a part |
//! | `object` | a whole upload gets its name |
//! | `walk` | listings |
//! | `fault` | what a file system's error means |
//!
//! It stores no checksum beside an object: one that tapline has written itself would prove nothing
//! of the bytes. `tapline verify` reads them.

mod fault;
mod mark;
mod object;
mod place;
mod tree;
mod upload;
mod walk;

use std::fs::File;
use std::num::{NonZeroU32, NonZeroU64};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use rustix::io::Errno;
use tokio::task::spawn_blocking;

use super::pace::{Pace, Paces};
use super::progress::{Progress, Timeouts};
use super::{
    Checksum, ChecksumKind, ErrorKind, Limits, ObjectInfo, OpenUpload, Page, PartBody, PartReceipt,
    Result, Store, StoreError, Upload, UploadInfo, Written,
};
use fault::Fault;
pub use place::LONGEST_NAME;
use place::Place;
use tree::Folder;
use upload::Open;

/// Read at once.
const PIECE: usize = 1 << 20;

/// A folder, and what must be so for it to be used.
#[derive(Debug, Clone)]
pub struct FolderSettings {
    /// The folder. It must be there: an empty mount point looks like one that was made by mistake.
    pub root: PathBuf,
    /// Folders below it, made when needed, with no slash at either end; may be empty.
    pub prefix: String,
    /// A file or folder that must be in it, or its disk is not mounted.
    pub marker: Option<String>,
    /// Most parts in a volume, for file systems that take no large files.
    pub max_parts: u32,
    /// Most parts of one backup being written at once; by memory when absent.
    pub connections: Option<NonZeroU32>,
    /// Bytes of archives in a second, of all jobs together.
    pub max_upload_rate: Option<NonZeroU64>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

impl FolderSettings {
    /// The defaults, for the folder at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            prefix: String::new(),
            marker: None,
            max_parts: Limits::S3.max_parts,
            connections: None,
            max_upload_rate: None,
            timeouts: Timeouts::default(),
        }
    }
}

/// A folder as a store; clones share what is known of it.
#[derive(Debug, Clone)]
pub struct FolderStore {
    settings: Arc<FolderSettings>,
    /// The device that the folder was on when it was first used.
    device: Arc<OnceLock<u64>>,
    /// By how many seconds the file system's clock is ahead of this machine's.
    offset: Arc<Mutex<Option<i64>>>,
    /// Held while an upload's first part makes its file.
    first_part: Arc<Mutex<()>>,
    paces: Paces,
}

/// Whether a request may find folders missing, or makes them.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Found,
    Made,
}

impl FolderStore {
    /// Touches nothing yet.
    pub fn new(settings: FolderSettings) -> Self {
        Self {
            paces: Paces::default().and(settings.max_upload_rate.map(Pace::new)),
            settings: Arc::new(settings),
            device: Arc::default(),
            offset: Arc::default(),
            first_part: Arc::default(),
        }
    }

    /// The same store, whose archives also keep to a rate that it shares with others.
    #[must_use]
    pub fn paced(self, pace: Option<Arc<Pace>>) -> Self {
        Self {
            paces: self.paces.and(pace),
            ..self
        }
    }

    /// The folder below which the keys are, if it is the one that is meant.
    fn base(&self, way: Way) -> std::result::Result<Folder, Fault> {
        let FolderSettings {
            root,
            prefix,
            marker,
            ..
        } = &*self.settings;
        let folder = Folder::open(root).map_err(|error| match error {
            Errno::NOENT => self.away("there is no such folder"),
            Errno::NOTDIR => self.away("it is no folder"),
            error => error.into(),
        })?;
        let device = folder.own_stat()?.st_dev;
        match self.device.get() {
            None => {
                place::mounted(root, &folder, marker.as_deref())?;
                let _ = self.device.set(device);
            }
            Some(known) if *known != device => {
                return Err(self.away("it is not the file system that it was when the run began"));
            }
            Some(_) => {}
        }
        let names = prefix.split('/').filter(|name| !name.is_empty());
        Ok(match way {
            Way::Found => folder.walk(names)?,
            Way::Made => folder.make_way(names, true)?,
        })
    }

    /// What was there before may come back.
    fn away(&self, why: &str) -> Fault {
        let known = self.device.get().is_some();
        Fault::Store(place::away(why).passing(known))
    }

    /// Does `work` on a thread that may wait for a disk, until `end` says that it takes too long.
    async fn run<T: Send + 'static>(
        &self,
        (operation, key): (&'static str, Option<&str>),
        way: Way,
        end: impl Future<Output = String> + Send,
        work: impl FnOnce(&Folder) -> std::result::Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        let done = spawn_blocking(move || work(&store.base(way)?));
        let result = tokio::select! {
            biased;
            done = done => match done {
                Ok(done) => done.map_err(|fault| fault.explain(way == Way::Made)),
                Err(error) => Err(StoreError::new(ErrorKind::Invalid, format!("it broke down: {error}"))),
            },
            // The thread goes on, and what it does may still come.
            words = end => Err(StoreError::new(ErrorKind::Transient, words)
                .maybe_done(true)
                .maybe_coming(true)),
        };
        result.map_err(|error| {
            error
                .with_request(operation, key)
                .with_store(self.address())
        })
    }

    /// The end of a request that moves no bytes.
    async fn small(&self) -> String {
        let limit = self.settings.timeouts.small;
        tokio::time::sleep(limit).await;
        format!("the disk has not answered within {} s", limit.as_secs())
    }

    fn learn_clock(&self, theirs: i64) {
        let here = jiff::Timestamp::now().as_second();
        let offset = theirs.saturating_sub(here);
        *self.offset.lock().unwrap_or_else(PoisonError::into_inner) = Some(offset);
    }
}

/// What is not there is no error.
fn if_there<T>(result: Result<T>, absent: T) -> Result<T> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(absent),
        result => result,
    }
}

#[async_trait]
impl Store for FolderStore {
    fn address(&self) -> String {
        let FolderSettings { root, prefix, .. } = &*self.settings;
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("file://{}{slash}{prefix}", root.display())
    }

    fn limits(&self) -> Limits {
        Limits {
            // Any size is taken; smaller ones are more work than they are worth.
            min_part: 1 << 20,
            max_parts: self.settings.max_parts,
            connections: self.settings.connections,
            ..Limits::S3
        }
    }

    fn checksum_kind(&self) -> Option<ChecksumKind> {
        Some(ChecksumKind::Crc64Nvme)
    }

    fn clock_offset(&self) -> Option<i64> {
        *self.offset.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn create_upload(&self, key: &str, backup_id: &str) -> Result<Upload> {
        let (request, name) = (("CreateMultipartUpload", Some(key)), key.to_owned());
        let begin = move |base: &Folder| upload::begin(base, &Place::of(&name)?);
        let id = self.run(request, Way::Made, self.small(), begin).await?;
        Ok(Upload {
            key: key.to_owned(),
            id,
            backup_id: backup_id.to_owned(),
            has_twin: false,
        })
    }

    async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<PartReceipt> {
        let progress = Progress::of(body.len());
        let (written, first_part) = (progress.clone(), self.first_part.clone());
        let paces = self.paces.clone();
        let Upload { key, id, .. } = upload.clone();
        let put = move |base: &Folder| {
            if !(1..=Limits::S3.max_parts).contains(&number) {
                let why = format!("InvalidArgument: part number {number}");
                return Err(StoreError::new(ErrorKind::Invalid, why).into());
            }
            let checksum = mark::checked(&body, checksum)?;
            let place = Place::of(&key)?;
            let open = Open::find(base, &place, &id)?;
            let (data, stride) = {
                let _alone = first_part.lock().unwrap_or_else(PoisonError::into_inner);
                open.data(body.len())?
            };
            open.put(
                (&data, stride),
                number,
                (&body, checksum),
                (&written, &paces),
            )
        };
        let end = progress.standstill(self.settings.timeouts);
        let request = ("UploadPart", Some(upload.key.as_str()));
        self.run(request, Way::Made, end, put).await
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[PartReceipt],
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        let (Upload { key, id, .. }, parts) = (upload.clone(), parts.to_vec());
        let complete = move |base: &Folder| {
            let place = Place::of(&key)?;
            Open::find(base, &place, &id)?.complete(&parts, checksum)
        };
        let limit = self.settings.timeouts.completion;
        let end = async {
            tokio::time::sleep(limit).await;
            format!("the disk has not answered within {} s", limit.as_secs())
        };
        let request = ("CompleteMultipartUpload", Some(upload.key.as_str()));
        self.run(request, Way::Made, end, complete).await
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        let Upload { key, id, .. } = upload.clone();
        let abort = move |base: &Folder| {
            let place = Place::of(&key)?;
            Open::find(base, &place, &id)?.remove()
        };
        let request = ("AbortMultipartUpload", Some(upload.key.as_str()));
        let aborted = self.run(request, Way::Found, self.small(), abort).await;
        if_there(aborted, ())
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<Written> {
        self.put_volume(key, "", body.into(), None).await
    }

    async fn put_volume(
        &self,
        key: &str,
        backup_id: &str,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        let progress = Progress::of(body.len());
        let (name, written) = (key.to_owned(), progress.clone());
        // Notes and manifests wait for no archive.
        let paces = if backup_id.is_empty() {
            Paces::default()
        } else {
            self.paces.clone()
        };
        let put = move |base: &Folder| {
            let checksum = mark::checked(&body, checksum)?;
            let place = Place::of(&name)?;
            let id = upload::begin(base, &place)?;
            let open = || Open::find(base, &place, &id);
            open()?
                .put_whole((&body, checksum), (&written, &paces))
                .inspect_err(|_| {
                    // What cannot be taken away is an open upload, and found as one.
                    let _ = open().and_then(Open::remove);
                })
        };
        let end = progress.standstill(self.settings.timeouts);
        let request = ("PutObject", Some(key));
        self.run(request, Way::Made, end, put).await
    }

    /// Another file beside it takes its name: whoever looks finds the one or the other.
    async fn replace(&self, key: &str, body: Bytes) -> Result<Written> {
        let half = format!("{key}.{:08x}", fastrand::u32(..));
        let written = self.put(&half, body).await?;
        let name = key.to_owned();
        let rename = move |base: &Folder| {
            let Place { folders, name } = Place::of(&name)?;
            let half = half.rsplit('/').next().unwrap_or_default();
            Ok(base.walk(folders)?.rename(half, name)?)
        };
        let request = ("PutObject", Some(key));
        self.run(request, Way::Made, self.small(), rename).await?;
        Ok(written)
    }

    async fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let name = key.to_owned();
        let open = move |base: &Folder| {
            let Place { folders, name } = Place::of(&name)?;
            let file = base.walk(folders)?.read(name)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(Errno::NOENT.into());
            }
            Ok((Arc::new(file), metadata.size()))
        };
        let request = ("GetObject", Some(key));
        let (file, size) = self.run(request, Way::Found, self.small(), open).await?;
        let range = range.unwrap_or(0..size);
        if range.start >= size && size > 0 {
            let why = format!("InvalidRange: {range:?} of {size} bytes");
            return Err(StoreError::new(ErrorKind::Invalid, why));
        }
        let (start, end) = (range.start, range.end.min(size));
        let (store, key) = (self.clone(), key.to_owned());
        let next = move |at: u64| {
            let (store, key, file) = (store.clone(), key.clone(), file.clone());
            async move {
                if at >= end {
                    return None;
                }
                let read = store.read_piece(&key, file, at, end).await;
                // After an error there is nothing more.
                let next = read.as_ref().map_or(end, |piece| at + piece.len() as u64);
                Some((read, next))
            }
        };
        Ok(stream::unfold(start, next).boxed())
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let name = key.to_owned();
        let look = move |base: &Folder| {
            let place = Place::of(&name)?;
            let folder = match base.walk(place.folders.iter().copied()) {
                Err(Errno::NOTDIR) => return Ok(None),
                folder => folder?,
            };
            let stat = folder.stat(place.name)?;
            let is_file = |stat: &rustix::fs::Stat| {
                let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
                kind == rustix::fs::FileType::RegularFile
            };
            Ok(stat.filter(is_file).map(|stat| ObjectInfo {
                size: u64::try_from(stat.st_size).unwrap_or_default(),
                modified: stat.st_mtime,
                checksum: None,
                backup_id: None,
                key: name,
            }))
        };
        let request = ("HeadObject", Some(key));
        if_there(
            self.run(request, Way::Found, self.small(), look).await,
            None,
        )
    }

    async fn list(&self, prefix: &str, page: Option<String>) -> Result<Page<ObjectInfo>> {
        let prefix = prefix.to_owned();
        let list = move |base: &Folder| walk::objects(base, &prefix, page.as_deref());
        let request = ("ListObjectsV2", None);
        let listed = self.run(request, Way::Found, self.small(), list).await;
        if_there(listed, Page::default())
    }

    async fn list_uploads(&self, prefix: &str, page: Option<String>) -> Result<Page<OpenUpload>> {
        let (prefix, store) = (prefix.to_owned(), self.clone());
        let list = move |base: &Folder| {
            // Whoever asks for uploads asks for their ages. One who may not write cannot know.
            if let Ok(now) = base.enter(place::UPLOADS).and_then(|folder| folder.touch()) {
                store.learn_clock(now);
            }
            walk::uploads(base, &prefix, page.as_deref())
        };
        let request = ("ListMultipartUploads", None);
        let listed = self.run(request, Way::Found, self.small(), list).await;
        if_there(listed, Page::default())
    }

    async fn upload_info(&self, key: &str, upload_id: &str) -> Result<UploadInfo> {
        let (name, id) = (key.to_owned(), upload_id.to_owned());
        let look = move |base: &Folder| {
            let place = Place::of(&name)?;
            Open::find(base, &place, &id)?.info()
        };
        let request = ("ListParts", Some(key));
        let found = self.run(request, Way::Found, self.small(), look).await;
        if_there(found, UploadInfo::default())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let name = key.to_owned();
        let delete = move |base: &Folder| {
            let place = Place::of(&name)?;
            let folder = base.walk(place.folders.iter().copied())?;
            folder.remove_file(place.name)?;
            folder.sync()?;
            base.prune(&place.folders);
            Ok(())
        };
        let request = ("DeleteObject", Some(key));
        if_there(
            self.run(request, Way::Found, self.small(), delete).await,
            (),
        )
    }
}

impl FolderStore {
    async fn read_piece(&self, key: &str, file: Arc<File>, at: u64, end: u64) -> Result<Bytes> {
        let read = spawn_blocking(move || {
            let most = PIECE.min(usize::try_from(end - at).unwrap_or(PIECE));
            let mut piece = vec![0; most];
            file.read_exact_at(&mut piece, at)?;
            Ok(piece.into())
        });
        let stall = self.settings.timeouts.stall;
        let read = match tokio::time::timeout(stall, read).await {
            Ok(Ok(read)) => read.map_err(|fault: Fault| fault.explain(false)),
            Ok(Err(error)) => Err(StoreError::new(ErrorKind::Invalid, error.to_string())),
            Err(_) => {
                let why = format!("not a byte came within {} s", stall.as_secs());
                Err(StoreError::new(ErrorKind::Transient, why))
            }
        };
        read.map_err(|error| {
            error
                .with_request("GetObject", Some(key))
                .with_store(self.address())
        })
    }
}
