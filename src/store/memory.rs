//! A store in memory that is as strict as S3 is documented to be: the state behind the in-process
//! S3 server, and what tests and benches use directly. It keeps a log of effects, so that their
//! order can be asserted.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::{
    Checksum, ChecksumKind, ErrorKind, Limits, ObjectInfo, OpenUpload, Page, PartBody, PartReceipt,
    Result, Store, StoreError, Upload, UploadInfo, Written,
};

/// Parts that a store with `in_order` holds until it is their turn.
const BEFORE_THEIR_TURN: u32 = 4;

/// Entries of one page of a listing, as S3 has it.
const PAGE: usize = 1000;

/// Something that changed the store, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// An upload was begun, for this key.
    Begun(String),
    /// A part arrived: key, number.
    Part(String, u32),
    /// An upload became an object.
    Completed(String),
    /// An upload was aborted.
    Aborted(String),
    /// A small object was put.
    Put(String),
    /// An object was deleted.
    Deleted(String),
}

#[derive(Debug, Clone)]
struct Object {
    buffers: Vec<Bytes>,
    size: u64,
    modified: i64,
    checksum: Option<Checksum>,
    backup_id: Option<String>,
}

#[derive(Debug, Clone)]
struct Open {
    key: String,
    backup_id: String,
    initiated: i64,
    parts: BTreeMap<u32, Part>,
}

#[derive(Debug, Clone)]
struct Part {
    receipt: PartReceipt,
    body: PartBody,
    arrived: i64,
}

#[derive(Debug, Clone, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Open>,
    next_id: u64,
    effects: Vec<Effect>,
}

/// A store in memory; clones share what is in it.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    limits: Limits,
    checksum: Option<ChecksumKind>,
    /// Bodies are forgotten when they arrive: what is stored has a size and a checksum but cannot
    /// be read.
    discard: bool,
    /// What is put has its MD5 for its entity tag, over HTTP.
    md5: bool,
}

fn invalid(message: impl Into<String>) -> StoreError {
    StoreError::new(ErrorKind::Invalid, message)
}

fn no_upload(id: &str) -> StoreError {
    StoreError::new(ErrorKind::NotFound, format!("NoSuchUpload: {id}"))
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

impl MemoryStore {
    /// An empty store.
    pub fn new(limits: Limits, checksum: Option<ChecksumKind>) -> Self {
        Self {
            state: Arc::default(),
            limits,
            checksum,
            discard: false,
            md5: false,
        }
    }

    /// The same store, whose replies over HTTP prove by an entity tag that a body was read.
    #[must_use]
    pub fn with_md5(self) -> Self {
        Self { md5: true, ..self }
    }

    /// Whether entity tags are the MD5 of what was put.
    pub fn has_md5(&self) -> bool {
        self.md5
    }

    /// An empty store that keeps of every body only its size and checksum, for loads larger than
    /// memory.
    pub fn discarding(limits: Limits) -> Self {
        Self {
            discard: true,
            ..Self::new(limits, Some(ChecksumKind::Crc64Nvme))
        }
    }

    /// A store of its own with the same in it.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            state: Arc::new(Mutex::new(self.state().clone())),
            ..self.clone()
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// What has happened so far, in order.
    pub fn effects(&self) -> Vec<Effect> {
        self.state().effects.clone()
    }

    /// The keys of all objects.
    pub fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// How many uploads are open.
    pub fn open_uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// An object's bytes.
    pub fn read(&self, key: &str) -> Option<Vec<u8>> {
        self.state()
            .objects
            .get(key)
            .map(|object| object.buffers.concat())
    }

    /// The parts of an open upload, ascending by number, each with its time of arrival.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn parts(&self, id: &str) -> Result<Vec<(PartReceipt, i64)>> {
        let state = self.state();
        let open = state.uploads.get(id).ok_or_else(|| no_upload(id))?;
        Ok(open
            .parts
            .values()
            .map(|part| (part.receipt.clone(), part.arrived))
            .collect())
    }

    /// Makes all that the store holds older by `time`: for tests of rules about age.
    pub fn age_by(&self, time: Duration) {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let mut state = self.state();
        let State {
            objects, uploads, ..
        } = &mut *state;
        let modified = objects.values_mut().map(|object| &mut object.modified);
        let of_uploads = uploads.values_mut().flat_map(|open| {
            open.parts
                .values_mut()
                .map(|part| &mut part.arrived)
                .chain([&mut open.initiated])
        });
        modified
            .chain(of_uploads)
            .for_each(|moment| *moment = moment.saturating_sub(seconds));
    }

    /// Puts an object whether or not there is one.
    pub fn overwrite(&self, key: &str, body: Bytes) -> Written {
        self.state().insert(key, body, self.checksum)
    }
}

impl State {
    fn insert(&mut self, key: &str, body: Bytes, checksum: Option<ChecksumKind>) -> Written {
        self.effects.push(Effect::Put(key.to_owned()));
        let object = Object {
            size: body.len() as u64,
            checksum: checksum.map(|kind| Checksum::of(kind, &body)),
            buffers: vec![body],
            modified: now(),
            backup_id: None,
        };
        let written = written(&object);
        self.objects.insert(key.to_owned(), object);
        written
    }
}

fn written(object: &Object) -> Written {
    let digest = object.checksum.map(Checksum::to_base64).unwrap_or_default();
    Written {
        etag: Some(format!("\"{digest}-{}\"", object.size)),
        checksum: object.checksum,
        is_proven: false,
    }
}

/// One page of what follows `after` under `prefix`.
fn page<'a, V: 'a, T>(
    entries: impl Iterator<Item = (&'a String, &'a V)>,
    (prefix, after): (&str, Option<&str>),
    describe: impl Fn(&'a String, &'a V) -> T,
) -> Page<T> {
    let mut rest = entries
        .filter(|(key, _)| {
            key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
        })
        .peekable();
    let mut page = Page {
        items: Vec::new(),
        next: None,
    };
    while let Some((key, value)) = rest.next() {
        page.items.push(describe(key, value));
        if page.items.len() == PAGE {
            page.next = rest.peek().map(|_| key.clone());
            break;
        }
    }
    page
}

fn describe(key: &str, object: &Object) -> ObjectInfo {
    ObjectInfo {
        key: key.to_owned(),
        size: object.size,
        modified: object.modified,
        checksum: object.checksum,
        backup_id: object.backup_id.clone(),
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn address(&self) -> String {
        "memory:".into()
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn checksum_kind(&self) -> Option<ChecksumKind> {
        self.checksum
    }

    async fn create_upload(&self, key: &str, backup_id: &str) -> Result<Upload> {
        let mut state = self.state();
        state.next_id += 1;
        let id = format!("upload-{:08}", state.next_id);
        let (key, backup_id) = (key.to_owned(), backup_id.to_owned());
        state.effects.push(Effect::Begun(key.clone()));
        let open = Open {
            key: key.clone(),
            backup_id: backup_id.clone(),
            initiated: now(),
            parts: BTreeMap::new(),
        };
        state.uploads.insert(id.clone(), open);
        Ok(Upload {
            key,
            id,
            backup_id,
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
        if !(1..=self.limits.max_parts).contains(&number) {
            return Err(invalid(format!("InvalidArgument: part number {number}")));
        }
        let buffers = || body.buffers().iter().map(AsRef::as_ref);
        if let Some(sent) = checksum
            && Checksum::of_buffers(sent.kind(), buffers()) != sent
        {
            return Err(invalid(format!(
                "BadDigest: the checksum of part {number} is not that of its bytes"
            )));
        }
        let etag = format!(
            "\"{}\"",
            Checksum::of_buffers(ChecksumKind::Crc64Nvme, buffers()).to_base64()
        );
        let receipt = PartReceipt {
            number,
            size: body.len(),
            etag,
            checksum,
        };
        let mut state = self.state();
        let open = state
            .uploads
            .get_mut(&upload.id)
            .ok_or_else(|| no_upload(&upload.id))?;
        let next = (1..=number)
            .find(|part| !open.parts.contains_key(part))
            .unwrap_or(number);
        if self.limits.in_order && number > next + BEFORE_THEIR_TURN {
            let why = format!("part {number} comes too early: {next} is not there");
            return Err(invalid(why));
        }
        let body = if self.discard { PartBody::new() } else { body };
        open.parts.insert(
            number,
            Part {
                receipt: receipt.clone(),
                body,
                arrived: now(),
            },
        );
        state.effects.push(Effect::Part(upload.key.clone(), number));
        Ok(receipt)
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[PartReceipt],
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        let mut state = self.state();
        let open = state
            .uploads
            .get(&upload.id)
            .ok_or_else(|| no_upload(&upload.id))?;
        if state.objects.contains_key(&upload.key) {
            return Err(StoreError::new(
                ErrorKind::AlreadyExists,
                format!("PreconditionFailed: {}", upload.key),
            ));
        }
        if parts.is_empty() || !parts.is_sorted_by(|a, b| a.number < b.number) {
            return Err(invalid(
                "InvalidPartOrder: parts must be given, ascending by number",
            ));
        }
        let (mut buffers, mut size, mut whole) = (Vec::new(), 0, None::<Checksum>);
        for (at, part) in parts.iter().enumerate() {
            let Part { receipt, body, .. } = match open.parts.get(&part.number) {
                Some(stored) if stored.receipt.etag == part.etag => stored,
                _ => {
                    return Err(invalid(format!(
                        "InvalidPart: part {} is not what was uploaded",
                        part.number
                    )));
                }
            };
            if at + 1 < parts.len() && receipt.size < self.limits.min_part {
                return Err(invalid(format!(
                    "EntityTooSmall: part {} has {} bytes",
                    part.number, receipt.size
                )));
            }
            whole = match (whole, receipt.checksum) {
                (None, next) if at == 0 => next,
                (Some(whole), Some(next)) if whole.kind() == next.kind() => {
                    Some(whole.then(next, receipt.size))
                }
                _ => None,
            };
            buffers.extend_from_slice(body.buffers());
            size += receipt.size;
        }
        if checksum.is_some() && checksum != whole {
            return Err(invalid(
                "BadDigest: the checksum of the object is not that of its parts",
            ));
        }
        let backup_id = Some(open.backup_id.clone());
        let object = Object {
            buffers,
            size,
            modified: open.initiated,
            checksum: whole,
            backup_id,
        };
        let written = written(&object);
        state.objects.insert(upload.key.clone(), object);
        state.uploads.remove(&upload.id);
        state.effects.push(Effect::Completed(upload.key.clone()));
        Ok(written)
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        let mut state = self.state();
        if state.uploads.remove(&upload.id).is_some() {
            state.effects.push(Effect::Aborted(upload.key.clone()));
        }
        Ok(())
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<Written> {
        let mut state = self.state();
        if state.objects.contains_key(key) {
            return Err(StoreError::new(
                ErrorKind::AlreadyExists,
                format!("PreconditionFailed: {key}"),
            ));
        }
        Ok(state.insert(key, body, self.checksum))
    }

    async fn replace(&self, key: &str, body: Bytes) -> Result<Written> {
        Ok(self.overwrite(key, body))
    }

    async fn put_volume(
        &self,
        key: &str,
        backup_id: &str,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        let buffers = || body.buffers().iter().map(AsRef::as_ref);
        let kind = checksum.map(Checksum::kind).or(self.checksum);
        let whole = kind.map(|kind| Checksum::of_buffers(kind, buffers()));
        if checksum.is_some() && checksum != whole {
            return Err(invalid("BadDigest: the checksum is not that of the bytes"));
        }
        let size = body.len();
        let mut state = self.state();
        if state.objects.contains_key(key) {
            return Err(StoreError::new(
                ErrorKind::AlreadyExists,
                format!("PreconditionFailed: {key}"),
            ));
        }
        let object = Object {
            buffers: if self.discard {
                Vec::new()
            } else {
                body.buffers().to_vec()
            },
            size,
            modified: now(),
            checksum: whole,
            backup_id: Some(backup_id.to_owned()),
        };
        let written = written(&object);
        state.objects.insert(key.to_owned(), object);
        state.effects.push(Effect::Put(key.to_owned()));
        Ok(written)
    }

    async fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let no_key = || StoreError::new(ErrorKind::NotFound, format!("NoSuchKey: {key}"));
        let object = self.state().objects.get(key).cloned().ok_or_else(no_key)?;
        if self.discard && object.backup_id.is_some() {
            return Err(invalid("this store keeps no bodies"));
        }
        let range = range.unwrap_or(0..object.size);
        if range.start >= object.size && object.size > 0 {
            return Err(invalid(format!(
                "InvalidRange: {range:?} of {} bytes",
                object.size
            )));
        }
        let mut at = 0;
        let mut pieces = Vec::new();
        for buffer in object.buffers {
            let length = buffer.len() as u64;
            let (from, to) = (
                range.start.clamp(at, at + length) - at,
                range.end.clamp(at, at + length) - at,
            );
            let (from, to) = (
                usize::try_from(from).expect("in a buffer"),
                usize::try_from(to).expect("in a buffer"),
            );
            if from < to {
                pieces.push(Ok(buffer.slice(from..to)));
            }
            at += length;
        }
        Ok(stream::iter(pieces).boxed())
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        Ok(self
            .state()
            .objects
            .get(key)
            .map(|object| describe(key, object)))
    }

    async fn list(&self, prefix: &str, after: Option<String>) -> Result<Page<ObjectInfo>> {
        let state = self.state();
        Ok(page(
            state.objects.iter(),
            (prefix, after.as_deref()),
            |key, object| ObjectInfo {
                checksum: None,
                backup_id: None,
                ..describe(key, object)
            },
        ))
    }

    async fn list_uploads(&self, prefix: &str, after: Option<String>) -> Result<Page<OpenUpload>> {
        let state = self.state();
        // Ids grow with time; a key may have several uploads, so the pages follow `key id`.
        let by_key: BTreeMap<String, &Open> = state
            .uploads
            .iter()
            .map(|(id, open)| (format!("{}\0{id}", open.key), open))
            .collect();
        Ok(page(
            by_key.iter(),
            (prefix, after.as_deref()),
            |place, open| OpenUpload {
                key: open.key.clone(),
                id: place[open.key.len() + 1..].to_owned(),
                initiated: open.initiated,
            },
        ))
    }

    async fn upload_info(&self, _key: &str, upload_id: &str) -> Result<UploadInfo> {
        let mut info = UploadInfo::default();
        for part in self
            .state()
            .uploads
            .get(upload_id)
            .iter()
            .flat_map(|open| open.parts.values())
        {
            info.add(part.receipt.size, part.arrived);
        }
        Ok(info)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let mut state = self.state();
        if state.objects.remove(key).is_some() {
            state.effects.push(Effect::Deleted(key.to_owned()));
        }
        Ok(())
    }
}
