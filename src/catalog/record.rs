//! What became of a database's last failed run, last reading back and last drill: small objects in
//! the store, so that a host that died is seen from another.
//!
//! There is one of each kind for a database, which the next one replaces: they never become many,
//! nothing has to prune them, and a key that may only write can keep them. They lie apart from the
//! backups. Nothing depends on them: what cannot be kept, or not be read, is a warning.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::BackupId;
use super::key::{chore_key, locate_record, record_key, records_prefix};
use crate::store::{ErrorKind, Store, StoreError, get_small, objects};

/// How long keeping one may take: whoever keeps it has more important things to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Records read at once.
const AT_ONCE: usize = 16;
/// One is a kilobyte or two; a larger object is something else.
const LONGEST: usize = 64 << 10;
/// Letters of a message that are kept.
const LONGEST_MESSAGE: usize = 4_000;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// A backup that failed.
    Failure,
    /// A backup that was read back.
    Verify,
    /// One that was restored into a scratch database.
    Drill,
    /// Since when a backup is waited for of which there has been none yet.
    Awaited,
}

impl RecordKind {
    const ALL: [Self; 4] = [Self::Failure, Self::Verify, Self::Drill, Self::Awaited];

    /// As its key has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Verify => "verify",
            Self::Drill => "drill",
            Self::Awaited => "awaited",
        }
    }
}

/// What became of it. Serialised as the object, version 1, and in `status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the format.
    pub version: u32,
    /// What it is about.
    pub kind: RecordKind,
    /// Name of the database.
    pub database: String,
    /// The host that it was on.
    pub host: String,
    /// The version of tapline there.
    pub tapline: String,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Which backup was looked at; a run that failed has none.
    pub backup_id: Option<BackupId>,
    /// Whether all was well.
    pub good: bool,
    /// What was wrong, as a word for programs.
    pub reason: Option<String>,
    /// What was wrong, or what was found, in words.
    pub message: String,
}

impl Record {
    /// The same for a store that is not to know what a database holds: words, of a tool or of ours,
    /// may have something of it in them.
    #[must_use]
    pub fn without_words(mut self) -> Self {
        if !self.message.is_empty() {
            let host = &self.host;
            self.message =
                format!("the backups are encrypted, so the words are in the log on {host} alone");
        }
        self
    }

    /// A record of `kind` that begins and ends at `began`, and in which all is well.
    pub fn new(kind: RecordKind, database: &str, host: String, began: Timestamp) -> Self {
        Self {
            version: 1,
            kind,
            database: database.to_owned(),
            host,
            tapline: env!("CARGO_PKG_VERSION").into(),
            began,
            ended: began,
            backup_id: None,
            good: true,
            reason: None,
            message: String::new(),
        }
    }
}

/// The records of one database.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records {
    /// Its last failed run.
    pub failure: Option<Record>,
    /// When it was last read back.
    pub verify: Option<Record>,
    /// When it was last restored into a scratch database.
    pub drill: Option<Record>,
    /// Since when its first backup is waited for.
    pub awaited: Option<Record>,
}

impl Records {
    fn add(&mut self, record: Record) {
        let place = match record.kind {
            RecordKind::Failure => &mut self.failure,
            RecordKind::Verify => &mut self.verify,
            RecordKind::Drill => &mut self.drill,
            RecordKind::Awaited => &mut self.awaited,
        };
        *place = Some(record);
    }
}

/// Keeps a record in place of the one before. That it could not be kept is a warning.
pub async fn keep(store: &dyn Store, mut record: Record) {
    record.message = record.message.chars().take(LONGEST_MESSAGE).collect();
    let key = record_key(&record.database, record.kind.name());
    let text = serde_json::to_vec(&record).expect("a record has only string keys");
    let kept = tokio::time::timeout(PATIENCE, store.replace(&key, text.into())).await;
    let why = match kept {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("not within {} s", PATIENCE.as_secs()),
    };
    let (database, kind) = (&record.database, record.kind.name());
    tracing::warn!(
        database,
        "the store does not keep the last {kind} for `status`: {why}"
    );
}

/// The records of a database, of all when there is no name. What is no record is left out.
///
/// # Errors
/// When the store cannot be read.
pub async fn read_records(
    store: &dyn Store,
    database: Option<&str>,
) -> Result<BTreeMap<String, Records>, StoreError> {
    let prefix = records_prefix(database);
    let mut keys = Vec::new();
    let mut listed = objects(store, &prefix);
    while let Some(object) = listed.try_next().await? {
        let known = locate_record(&object.key).and_then(|(name, kind)| {
            Some((name, RecordKind::ALL.iter().find(|k| k.name() == kind)?))
        });
        if let Some((name, kind)) = known {
            keys.push((name, *kind, object.key.clone()));
        }
    }
    let reads = keys.into_iter().map(|(name, kind, key)| async move {
        let text = match get_small(store, &key, LONGEST).await {
            Ok(text) => text,
            // Not there any more, or too large to be one.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let record = serde_json::from_slice::<Record>(&text).ok();
        Ok(record.filter(|record| record.database == name && record.kind == kind))
    });
    let reads: Vec<_> = reads.collect();
    let mut read = stream::iter(reads).buffer_unordered(AT_ONCE);
    let mut all = BTreeMap::<String, Records>::new();
    while let Some(record) = read.try_next().await? {
        if let Some(record) = record {
            all.entry(record.database.clone()).or_default().add(record);
        }
    }
    Ok(all)
}

/// When something was last done for all of a store, such as `prune`. Serialised as the object.
#[derive(Debug, Serialize, Deserialize)]
struct ChoreMark {
    version: u32,
    began: Timestamp,
}

/// Keeps when a chore for all of a store was begun that is done now. That it could not be kept is a
/// warning.
pub async fn keep_chore(store: &dyn Store, name: &str, began: Timestamp) {
    let mark = ChoreMark { version: 1, began };
    let text = serde_json::to_vec(&mark).expect("a mark has only string keys");
    let key = chore_key(name);
    let kept = tokio::time::timeout(PATIENCE, store.replace(&key, text.into())).await;
    let why = match kept {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("not within {} s", PATIENCE.as_secs()),
    };
    tracing::warn!("the store does not keep when {name} was done last: {why}");
}

/// When a chore for all of a store was begun last; `None` when that is not known.
///
/// # Errors
/// When the store cannot be read.
pub async fn read_chore(store: &dyn Store, name: &str) -> Result<Option<Timestamp>, StoreError> {
    match get_small(store, &chore_key(name), LONGEST).await {
        Ok(text) => {
            let mark = serde_json::from_slice::<ChoreMark>(&text);
            Ok(mark.ok().map(|mark| mark.began))
        }
        // Not there, too large to be one, or nothing that this key may read.
        Err(error) if error.may_pass() => Err(error),
        Err(_) => Ok(None),
    }
}
