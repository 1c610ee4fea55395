//! How databases stand: what is told of each.

use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::{BackupId, Record};
use crate::store::StoreError;

/// How the databases stand. Serialised as `status --json`, version 1.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Version of the format.
    pub version: u32,
    /// When that was.
    pub asked: Timestamp,
    /// The databases, in the inventory's order.
    pub databases: Vec<Standing>,
    /// What could not be found out, beside the databases.
    pub remarks: Vec<String>,
}

/// How one database stands.
#[derive(Debug, Serialize)]
pub struct Standing {
    /// Its name; of a `database = "*"` without a backup that entry's.
    pub database: String,
    /// The store that this is about; a database with several stands in each for itself.
    pub store: String,
    /// In a word.
    pub health: Health,
    /// Why it is not well, in words.
    pub why: Option<String>,
    /// How old its last good backup may be, in seconds.
    pub max_age_seconds: Option<u64>,
    /// Its last good backup.
    pub last: Option<LastBackup>,
    /// Size of the dump before that, in bytes.
    pub previous_dump_bytes: Option<u64>,
    /// A backup that is not complete.
    pub open: Option<OpenBackup>,
    /// Its last run that failed.
    pub last_failure: Option<Record>,
    /// When one of its backups was last read back.
    pub last_verify: Option<Record>,
    /// When one was last restored into a scratch database.
    pub last_drill: Option<Record>,
    /// Since when its first backup is waited for.
    #[serde(skip)]
    pub awaited: Option<Timestamp>,
    /// What a person should look at although it is well.
    pub warnings: Vec<String>,
}

/// How a database stands, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Its newest backup is good and young enough.
    Good,
    /// Its last good backup is too old.
    TooOld,
    /// Its newest backup cannot be restored.
    Damaged,
    /// It has no backup.
    Missing,
    /// The store does not tell.
    Unknown,
}

/// A last good backup: its manifest can be read and its volumes are there in full size.
#[derive(Debug, Serialize)]
pub struct LastBackup {
    /// Which one.
    pub backup_id: BackupId,
    /// When it began.
    pub began: Timestamp,
    /// How old it is, in seconds.
    pub age_seconds: u64,
    /// How long it took, in seconds.
    pub took_seconds: u64,
    /// Size of its dump, in bytes; an encrypted backup does not tell.
    pub dump_bytes: Option<u64>,
    /// Size of its archive, in bytes.
    pub archive_bytes: u64,
    /// How many warnings it had.
    pub warnings: usize,
}

/// A backup of which there is an open upload and no manifest.
#[derive(Debug, Serialize)]
pub struct OpenBackup {
    /// Which one.
    pub backup_id: BackupId,
    /// Whether it showed a sign of life within the last hour; else it was killed, or hangs.
    pub alive: bool,
    /// Seconds since its last sign of life.
    pub quiet_seconds: u64,
}

impl Standing {
    /// The last good reading back of one of its backups, by itself or for a drill.
    pub fn read_back(&self) -> Option<&Record> {
        let all = [self.last_verify.as_ref(), self.last_drill.as_ref()];
        let good = all.into_iter().flatten().filter(|read| read.good);
        good.max_by_key(|read| read.ended)
    }

    pub(super) fn unknown(store: &str, name: &str, error: &StoreError) -> Self {
        Self {
            database: name.to_owned(),
            store: store.to_owned(),
            health: Health::Unknown,
            why: Some(format!(
                "how it stands is not known: store {store}: {error}"
            )),
            max_age_seconds: None,
            last: None,
            previous_dump_bytes: None,
            open: None,
            last_failure: None,
            last_verify: None,
            last_drill: None,
            awaited: None,
            warnings: Vec::new(),
        }
    }
}
