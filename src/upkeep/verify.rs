//! Whether backups are what they were: [`candidates`] says which are looked at and which databases
//! have none, [`verify`] reads one as a restore does, to nowhere or into a scratch database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{UpkeepError, restore_target};
use crate::access::access;
use crate::catalog::{
    Backup, BackupId, BackupName, Found, Manifest, Record, RecordKind, find, keep, look_up,
    read_manifests,
};
use crate::config::{ConfigError, Inventory};
use crate::engine;
use crate::restore::{Patience, RestoreError, Stored, Target, check, drill, inspect, restore};
use crate::run::hostname;
use crate::store::{ErrorKind, SharedStore, StoreError};
use crate::units::count;

/// How closely a backup is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Sizes and checksums, as the store tells them.
    Quick,
    /// Every byte is read and checked.
    Read,
    /// It is restored into a scratch database, too.
    Drill,
}

/// What is to be verified.
pub struct Candidates {
    /// The backups.
    pub backups: Vec<Candidate>,
    /// Databases of the inventory that have none in their stores.
    pub missing: Vec<Missing>,
}

/// One backup that is to be verified.
pub struct Candidate {
    /// Its store's name in the inventory.
    pub store: String,
    /// Name of the database.
    pub database: String,
    /// Which one.
    pub backup_id: BackupId,
    /// Where it is.
    pub place: SharedStore,
    /// Its manifest, or why that cannot be used.
    pub manifest: Result<Manifest, StoreError>,
}

impl Candidate {
    /// `NAME@ID`
    pub fn name(&self) -> BackupName {
        BackupName {
            database: self.database.clone(),
            id: Some(self.backup_id.clone()),
        }
    }
}

/// A database of the inventory without a single backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Its name; of a `database = "*"` that entry's.
    pub database: String,
    /// The store that the inventory sends its backups to.
    pub store: String,
}

/// The backups that are asked for: one, the latest of each database, or `all`. A name that stands
/// for several databases stands for them here, too.
///
/// # Errors
/// When a store cannot be read, or there is no such backup.
pub async fn candidates(
    inventory: &Inventory,
    stores: &BTreeMap<String, SharedStore>,
    name: Option<&BackupName>,
    all: bool,
) -> Result<Candidates, UpkeepError> {
    let database = match name {
        Some(BackupName { id: Some(_), .. }) if all => {
            let why = "--all is for all backups of a database; name it without @ID";
            return Err(UpkeepError::Senseless(why.into()));
        }
        Some(name) if !all && (name.id.is_some() || !inventory.is_fan_out(&name.database)) => {
            let copies = inventory.stores_of(&name.database);
            let named = look_up(stores, copies, name, &inventory.signatures.trusted).await?;
            return Ok(Candidates {
                backups: vec![Candidate {
                    store: named.called,
                    database: name.database.clone(),
                    backup_id: named.manifest.backup_id.clone(),
                    place: named.store,
                    manifest: Ok(named.manifest),
                }],
                missing: Vec::new(),
            });
        }
        name => name.map(|name| name.database.as_str()),
    };
    let mut backups = Vec::new();
    for (called, store) in stores {
        let prefix = database.filter(|name| !inventory.is_fan_out(name));
        let mut found = find(&**store, prefix)
            .await
            .map_err(UpkeepError::of_store(called, &**store))?;
        found.retain(|found| {
            found.is_committed()
                && database.is_none_or(|name| inventory.means(name, &found.database))
        });
        if !all {
            found = latest_of_each(found);
        }
        let trusted = &inventory.signatures.trusted;
        for Backup { found, manifest } in read_manifests(&**store, found, trusted).await {
            backups.push(Candidate {
                store: called.clone(),
                database: found.database,
                backup_id: found.id,
                place: store.clone(),
                manifest,
            });
        }
    }
    let missing = match database {
        None => without_backup(inventory, stores, &backups),
        Some(_) => Vec::new(),
    };
    if backups.is_empty() && missing.is_empty() {
        let what = database.map_or(String::new(), |name| format!(" of {name:?}"));
        return Err(UpkeepError::NoBackup(format!(
            "there is no backup{what} to verify"
        )));
    }
    Ok(Candidates { backups, missing })
}

/// Of backups sorted by database and begin, the newest of each database.
fn latest_of_each(found: Vec<Found>) -> Vec<Found> {
    let mut latest: Vec<Found> = Vec::new();
    for next in found {
        match latest.last_mut() {
            Some(last) if last.database == next.database => *last = next,
            _ => latest.push(next),
        }
    }
    latest
}

/// The databases of the inventory that have no backup in a store of theirs, of the stores that were
/// looked at.
fn without_backup(
    inventory: &Inventory,
    stores: &BTreeMap<String, SharedStore>,
    backups: &[Candidate],
) -> Vec<Missing> {
    let entries = inventory.databases.iter();
    let places = entries.flat_map(|entry| entry.stores.iter().map(move |store| (entry, store)));
    let missing = places.filter(|(entry, store)| {
        stores.contains_key(*store)
            && !backups.iter().any(|backup| {
                backup.store == **store && inventory.means(&entry.name, &backup.database)
            })
    });
    missing
        .map(|(entry, store)| Missing {
            database: entry.name.clone(),
            store: store.clone(),
        })
        .collect()
}

/// What was found out about a good backup.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Proof {
    /// The store was asked.
    Listed {
        /// How many volumes are there, in full size.
        volumes: usize,
        /// Whether their checksums could be compared, too.
        checksums: bool,
    },
    /// Every byte was read.
    Read {
        /// Size of the dump.
        bytes: u64,
        /// How long it took.
        seconds: f64,
    },
    /// Every byte was read, and none decrypted: there is no key. The digests are right, and it is
    /// put together as an encrypted archive is.
    Sealed {
        /// Size of the archive.
        bytes: u64,
        /// How long it took.
        seconds: f64,
    },
    /// Every byte was read; there is no scratch database for its kind.
    Undrilled {
        /// Size of the dump.
        bytes: u64,
        /// How long it took.
        seconds: f64,
    },
    /// It was restored.
    Drilled {
        /// Size of the dump.
        bytes: u64,
        /// How long it took.
        seconds: f64,
        /// How many tables the scratch database had, where that can be told.
        tables: Option<u64>,
    },
}

/// What is wrong with a backup, or with the way to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct VerifyError {
    /// What a program makes of it.
    pub kind: VerifyErrorKind,
    /// In words.
    pub message: String,
}

/// The kinds of what verifying finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyErrorKind {
    /// What is in the store is not what was put there.
    Damaged,
    /// The store cannot be read, so that nothing is known of the backup.
    Store,
    /// It is encrypted, and there is no key for what was asked.
    Locked,
    /// The scratch database could not be made, or did not take the dump.
    Drill,
    /// It was interrupted.
    Cancelled,
}

impl From<StoreError> for VerifyError {
    fn from(error: StoreError) -> Self {
        let kind = match error.kind() {
            // A manifest that makes no sense, an object that is gone.
            ErrorKind::Invalid | ErrorKind::NotFound => VerifyErrorKind::Damaged,
            _ => VerifyErrorKind::Store,
        };
        Self {
            kind,
            message: error.to_string(),
        }
    }
}

impl From<RestoreError> for VerifyError {
    fn from(error: RestoreError) -> Self {
        let message = error.to_string();
        let kind = match error {
            RestoreError::Store(error) => return error.into(),
            RestoreError::Damaged(_) => VerifyErrorKind::Damaged,
            RestoreError::Locked(_) => VerifyErrorKind::Locked,
            RestoreError::Target(_) => VerifyErrorKind::Drill,
            RestoreError::Cancelled => VerifyErrorKind::Cancelled,
        };
        Self { kind, message }
    }
}

impl From<ConfigError> for VerifyError {
    fn from(error: ConfigError) -> Self {
        Self {
            kind: VerifyErrorKind::Drill,
            message: error.to_string(),
        }
    }
}

/// Verifies one backup.
///
/// # Errors
/// What is wrong with it.
pub async fn verify(
    inventory: &Inventory,
    stored: Arc<Stored>,
    depth: Depth,
    cancel: &CancellationToken,
) -> Result<Proof, VerifyError> {
    let start = Instant::now();
    let tables = match depth {
        Depth::Quick => {
            return Ok(Proof::Listed {
                volumes: stored.manifest.archive.volumes.len(),
                checksums: check(&stored).await?,
            });
        }
        Depth::Read
            if stored.manifest.archive.encryption.is_some() && stored.identities.is_empty() =>
        {
            inspect(stored.clone(), cancel).await?;
            let bytes = stored.progress.fetched();
            let seconds = start.elapsed().as_secs_f64();
            return Ok(Proof::Sealed { bytes, seconds });
        }
        Depth::Drill if can_be_drilled(&stored) => {
            Some(drilled(inventory, stored.clone(), cancel).await?)
        }
        Depth::Read | Depth::Drill => {
            restore(stored.clone(), Target::Nowhere, cancel).await?;
            None
        }
    };
    let (bytes, seconds) = (stored.progress.written(), start.elapsed().as_secs_f64());
    Ok(match tables {
        None if depth == Depth::Drill => Proof::Undrilled { bytes, seconds },
        None => Proof::Read { bytes, seconds },
        Some(tables) => Proof::Drilled {
            bytes,
            seconds,
            tables,
        },
    })
}

/// Verifies one backup, and keeps in its store what came of it, for `status` on any host. What the
/// store alone was asked about is not kept: it is less than what may have been kept before.
///
/// # Errors
/// What is wrong with it.
pub async fn verify_and_keep(
    inventory: &Inventory,
    candidate: &Candidate,
    stored: Result<Arc<Stored>, StoreError>,
    depth: Depth,
    cancel: &CancellationToken,
) -> Result<Proof, VerifyError> {
    let began = Timestamp::now();
    // A manifest that cannot be read does not tell; the inventory may.
    let is_sealed = match &stored {
        Ok(stored) => stored.manifest.archive.encryption.is_some(),
        Err(_) => inventory
            .entry(&candidate.database)
            .is_some_and(|entry| entry.encryption.is_some()),
    };
    let result = match stored {
        Ok(stored) => verify(inventory, stored, depth, cancel).await,
        Err(error) => Err(error.into()),
    };
    if let Some(record) = record(candidate, depth, &result, began) {
        let record = if is_sealed {
            record.without_words()
        } else {
            record
        };
        keep(&*candidate.place, record).await;
    }
    result
}

fn record(
    candidate: &Candidate,
    depth: Depth,
    result: &Result<Proof, VerifyError>,
    began: Timestamp,
) -> Option<Record> {
    let kind = match (depth, result) {
        (Depth::Quick, _) => return None,
        (Depth::Read, _) | (_, Ok(Proof::Undrilled { .. } | Proof::Sealed { .. })) => {
            RecordKind::Verify
        }
        (Depth::Drill, _) => RecordKind::Drill,
    };
    let (reason, message) = match result {
        Ok(Proof::Drilled {
            tables: Some(tables),
            ..
        }) => (None, count(*tables, "table")),
        Ok(_) => (None, String::new()),
        Err(error) => match error.kind {
            // Nothing was found out.
            VerifyErrorKind::Store | VerifyErrorKind::Cancelled | VerifyErrorKind::Locked => {
                return None;
            }
            VerifyErrorKind::Damaged => (Some("damaged".to_owned()), error.message.clone()),
            VerifyErrorKind::Drill => (Some("drill".to_owned()), error.message.clone()),
        },
    };
    Some(Record {
        ended: Timestamp::now(),
        backup_id: Some(candidate.backup_id.clone()),
        good: result.is_ok(),
        reason,
        message,
        ..Record::new(kind, &candidate.database, hostname(), began)
    })
}

/// Whether there can be a scratch database for a backup: not for a command's, nor for roles, which
/// are a whole server's.
fn can_be_drilled(stored: &Stored) -> bool {
    stored.manifest.engine != "command" && stored.manifest.dump_format != "globals"
}

/// Restores into a scratch database, and counts its tables.
async fn drilled(
    inventory: &Inventory,
    stored: Arc<Stored>,
    cancel: &CancellationToken,
) -> Result<Option<u64>, VerifyError> {
    let manifest = &stored.manifest;
    let database = restore_target(inventory, manifest, None, None)?;
    let own = std::env::current_exe().map_err(|error| VerifyError {
        kind: VerifyErrorKind::Drill,
        message: format!("this program's own binary: {error}"),
    })?;
    let access = access(&database, &inventory.run, own).await?;
    let engine = engine::open(&database, access);
    let folder = &inventory.staged.dir;
    let patience = Patience {
        lock: inventory.run.connect_timeout,
        stall: inventory.run.stall_timeout,
    };
    let drill = drill(stored.clone(), &*engine, patience, folder, cancel);
    Ok(Box::pin(drill).await?)
}
