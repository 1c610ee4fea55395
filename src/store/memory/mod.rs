//! A store in memory that is as strict as S3 is documented to be: the state behind the in-process
//! S3 server, and what tests and benches use directly. It keeps a log of effects, so that their
//! order can be asserted. This is what it holds, and what only a test may ask of it; `requests` is
//! what a store answers.

mod requests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;

use super::{
    Checksum, ChecksumKind, ErrorKind, Limits, PartBody, PartReceipt, Result, StoreError, Written,
};

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
    /// Nothing can be put in place of another, nor listed.
    away: bool,
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

    /// Whether it is away, for whoever puts small objects and lists them.
    pub fn set_away(&self, away: bool) {
        self.state().away = away;
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
