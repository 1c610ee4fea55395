//! A second copy of a backup: from one store into another, without the database.
//!
//! ```text
//! fetch ──bytes──▶ deposit ──▶ complete ─▶ signature ─▶ manifest
//! (checked against    (the same volumes,      (the same bytes, the same id)
//!  the manifest)       other parts)
//! ```
//!
//! A volume that is not what the manifest says is no copy: its upload is not completed. It ends as a
//! backup does: the copy is there, or nothing is left of it.
//!
//! What fails takes away all below its prefix, because ids are unique; but a copy has the id of its
//! original. So whoever copies puts a lock first, with the condition that there is none: of two that
//! begin together one goes on, and the other touches nothing.
//!
//! memory = (in flight + part being filled) × part, and what is fetched

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::UpkeepError;
use crate::archive::Piece;
use crate::catalog::{
    self, Backup, BackupId, BackupName, Manifest, Volume, backup_prefix, copy_lock_key,
    read_manifest_text, read_manifests, read_signature,
};
use crate::config::Inventory;
use crate::deposit::{Landed, Ledger, Route, SealedVolume, Tee, Window};
use crate::job::{
    Destination, Failure, FailureKind, Interruption, JobError, Sealed, Signature, give_up, settle,
};
use crate::restore::{RestoreError, Stored, fetch_volume};
use crate::signature::TrustedSigners;
use crate::store::{
    ChecksumKind, ErrorKind, Limits, SharedStore, StoreError, list_all, list_all_uploads,
};

/// The part size when nothing calls for more.
const PART: u64 = 8 << 20;
/// Parts on their way at once.
const IN_FLIGHT: usize = 4;
/// Buffers on their way from one store to the other.
const ON_THE_WAY: usize = 8;
/// Volumes of a copy are as old as their uploads' begin, and their backup is as old as ever.
pub const SIGN_OF_LIFE_AFTER: Duration = Duration::ZERO;

/// What came of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyOutcome {
    /// It is there now.
    Copied,
    /// It was there before.
    AlreadyThere,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The original cannot be read, or is not what its manifest says.
    #[error("the original: {error}{}", what_is_left(.left.as_ref()))]
    Original {
        /// Why.
        error: RestoreError,
        /// What could not be taken away again.
        left: Option<String>,
    },
    /// Something else is there.
    #[error("{0}")]
    InTheWay(String),
    /// The store that it was to go to.
    #[error("{}{}", .0.message, what_is_left(.0.left.as_ref()))]
    Failed(Box<Failure>),
}

fn what_is_left(left: Option<&String>) -> String {
    left.map(|left| format!("; {left}")).unwrap_or_default()
}

/// A backup, and its manifest and signature as they are stored.
pub struct Original {
    /// The backup.
    pub stored: Arc<Stored>,
    /// Its manifest.
    pub text: Bytes,
    /// The manifest's signature.
    pub signature: Option<Bytes>,
}

/// Copies a backup.
///
/// # Errors
/// Then there is no copy, and nothing of it unless the error says so.
pub async fn copy(
    original: &Original,
    to: &Destination,
    interruption: &Interruption,
) -> Result<CopyOutcome, CopyError> {
    let manifest = &original.stored.manifest;
    let id = &manifest.backup_id;
    let work = async {
        if is_there(original, to).await? {
            return Ok(true);
        }
        in_the_way(to, id).await?;
        lock(to, id).await.map(|()| false)
    };
    match interruption.cancel.run_until_cancelled(work).await {
        None => {
            let cancelled = JobError::Cancelled.describe(None);
            return Err(CopyError::Failed(Box::new(cancelled)));
        }
        Some(there) => {
            if there? {
                return Ok(CopyOutcome::AlreadyThere);
            }
        }
    }
    let (ledger, lock) = (Ledger::default(), copy_lock_key(&to.database, id));
    ledger.put(&lock);
    let carried = tokio::select! {
        biased;
        () = interruption.cancel.cancelled() => Err(Broken::Store(JobError::Cancelled)),
        carried = carry(&original.stored, to, &ledger) => carried,
    };
    let volumes = match carried {
        Ok(volumes) => volumes,
        Err(Broken::Original(error)) => {
            let message = error.to_string();
            let kind = FailureKind::Source;
            let why = JobError::Plan { kind, message };
            let Failure { left, .. } = give_up(to, id, &ledger, why, interruption).await;
            return Err(CopyError::Original { error, left });
        }
        Err(Broken::Store(error)) => {
            let failure = give_up(to, id, &ledger, error, interruption).await;
            return Err(CopyError::Failed(Box::new(failure)));
        }
    };
    let sealed = Sealed {
        to: to.clone(),
        ledger,
        volumes,
        manifest: manifest.clone(),
        text: original.text.clone(),
        signature: original.signature.clone().map(Signature::Given),
        warnings: Vec::new(),
        strict: false,
    };
    match settle(sealed, interruption).await {
        Ok(_) => {
            if let Err(error) = to.store.delete(&lock).await {
                tracing::info!(%error, "{lock} stays beside the copy, and does no harm");
            }
            Ok(CopyOutcome::Copied)
        }
        Err(failure) => Err(CopyError::Failed(Box::new(failure))),
    }
}

/// Why the volumes did not get there.
enum Broken {
    Original(RestoreError),
    Store(JobError),
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

fn failed(error: StoreError) -> CopyError {
    CopyError::Failed(Box::new(JobError::Upload(error).describe(None)))
}

/// Whether the backup is there already; another one with its id is in the way.
async fn is_there(original: &Original, to: &Destination) -> Result<bool, CopyError> {
    let Stored { manifest, .. } = &*original.stored;
    let (database, id) = (&manifest.database, &manifest.backup_id);
    match read_manifest_text(&*to.store, database, id).await {
        Ok(text) if text == original.text => Ok(true),
        // From the same dump, into a store whose volumes are others.
        Ok(text)
            if Manifest::from_json(&text).is_ok_and(|there| there.is_same_backup(manifest)) =>
        {
            Ok(true)
        }
        Ok(_) => Err(CopyError::InTheWay(format!(
            "{} has another backup with this name and id: nothing was done",
            to.store.address()
        ))),
        // A key that may only write cannot look; the commit does not overwrite.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// Whether nothing of this id is there.
async fn in_the_way(to: &Destination, id: &BackupId) -> Result<(), CopyError> {
    let prefix = backup_prefix(&to.database, id);
    let look = async {
        let objects = list_all(&*to.store, &prefix).await?;
        let open = list_all_uploads(&*to.store, &prefix).await?;
        Ok::<_, StoreError>(objects.len() + open.len())
    };
    match look.await {
        Ok(0) => Ok(()),
        Ok(_) => Err(another(to, id)),
        // A key that may only write cannot look; the lock is there for it, too.
        Err(error) if error.kind() == ErrorKind::Denied => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn another(to: &Destination, id: &BackupId) -> CopyError {
    CopyError::InTheWay(format!(
        "something of {}@{id} is in {} already: another copy is under way, or was killed, which \
         `tapline cleanup --store {} --confirm` removes in a day; nothing was done",
        to.database,
        to.store.address(),
        to.store_name
    ))
}

/// From here on what is below the prefix is this copy's.
async fn lock(to: &Destination, id: &BackupId) -> Result<(), CopyError> {
    // No two are the same, so that a reply that was lost can be told from another's lock.
    let token = format!("{:016x}\n", fastrand::u64(..));
    let key = copy_lock_key(&to.database, id);
    match to.store.put(&key, token.into()).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(another(to, id)),
        Err(error) => {
            // It may be there all the same, and would be in the way for a day.
            let _ = to.store.delete(&key).await;
            Err(failed(error))
        }
    }
}

/// Carries the volumes over; none is completed yet.
async fn carry(
    stored: &Arc<Stored>,
    to: &Destination,
    ledger: &Ledger,
) -> Result<Vec<SealedVolume>, Broken> {
    let id = &stored.manifest.backup_id;
    let mut volumes = Vec::new();
    for (key, volume) in stored.volumes() {
        let window = window(volume, to.store.limits())?;
        let names = (key.clone(), id.to_string());
        let route = Route {
            store: to.store.clone(),
            store_name: to.store_name.clone(),
            patience: to.patience,
            ledger: ledger.clone(),
        };
        let mut tee = Tee::new(&[route], &to.meter, window, &names, None)?;
        tee.begin().await?;
        let kept = to.store.checksum_kind();
        volumes.push(carry_volume(stored, &key, volume, (tee, kept)).await?);
    }
    Ok(volumes)
}

/// Parts that the store takes, and as many as it takes.
fn window(volume: &Volume, limits: Limits) -> Result<Window, StoreError> {
    let needed = volume.size.div_ceil(u64::from(limits.max_parts));
    let part = needed.next_multiple_of(1 << 20).max(PART);
    let part = part.clamp(limits.min_part, limits.max_part);
    if part < needed {
        let (name, size) = (&volume.name, volume.size);
        let why = format!("{name} has {size} bytes, more than the store's parts can hold");
        return Err(StoreError::new(ErrorKind::Invalid, why));
    }
    Ok(Window {
        part,
        in_flight: IN_FLIGHT,
        max_parts: limits.max_parts,
        sha256: false,
    })
}

async fn carry_volume(
    stored: &Arc<Stored>,
    key: &str,
    volume: &Volume,
    (mut tee, kept): (Tee, Option<ChecksumKind>),
) -> Result<SealedVolume, Broken> {
    let (into, mut fetched) = mpsc::channel(ON_THE_WAY);
    let fetch = async {
        let fetched = fetch_volume(stored, key, volume, &into).await;
        drop(into);
        fetched.map_err(Broken::Original)
    };
    let store = async {
        while let Some(buffer) = fetched.recv().await {
            let buffer: Bytes = buffer.map_err(|error| Broken::Store(error.into()))?;
            stored.progress.add_written(buffer.len() as u64);
            tee.push(Piece::new(buffer, kept)).await?;
        }
        Ok(tee)
    };
    let ((), tee) = tokio::try_join!(fetch, store)?;
    let Landed { volumes, .. } = tee.seal(Bytes::new()).await?;
    let mut sealed: Vec<SealedVolume> = volumes.into_iter().flat_map(|(_, one)| one).collect();
    let same = |sealed: &SealedVolume| {
        sealed.size == volume.size && sealed.crc64nvme.to_base64() == volume.crc64nvme
    };
    match (sealed.pop(), sealed.is_empty()) {
        (Some(only), true) if same(&only) => Ok(only),
        _ => {
            let why = format!("{key}: what was uploaded is not what was read");
            Err(StoreError::new(ErrorKind::Invalid, why).into())
        }
    }
}

/// Reads a backup's manifest and signature as they are stored: what is put into the other store must
/// be what was looked at, and signed.
///
/// # Errors
/// When the store does not give them, or gives others than before.
pub async fn original(
    stored: Arc<Stored>,
    trusted: &TrustedSigners,
) -> Result<Original, StoreError> {
    let (store, manifest) = (&*stored.store, &stored.manifest);
    let (database, id) = (&manifest.database, &manifest.backup_id);
    let text = read_manifest_text(store, database, id).await?;
    let signature = read_signature(store, database, id).await?;
    let signed = signature
        .as_ref()
        .map(|signature| trusted.check(&text, signature));
    let is_trusted = trusted.is_empty() || signed.is_some_and(|signed| signed.is_ok());
    if !is_trusted || Manifest::from_json(&text).ok().as_ref() != Some(manifest) {
        let why = "the manifest, or its signature, was changed while it was read";
        return Err(StoreError::new(ErrorKind::Invalid, why));
    }
    Ok(Original {
        stored,
        text,
        signature,
    })
}

/// A database's backups, by their ids, and when they began.
#[derive(Default)]
struct Copies {
    /// In the store that they are to be in.
    there: BTreeMap<BackupId, Timestamp>,
    /// In another one.
    good: BTreeMap<BackupId, Timestamp>,
    /// In another one, with a manifest that cannot be used. No rule counts it, so that what somebody
    /// else has put there is in no good one's way; that it is there is told when it is to be copied.
    bad: BTreeSet<BackupId>,
}

/// What a store lacks of the backups that are to be in it, oldest first: of the databases whose
/// backups go there, or of the one called `name`, those that another store has and that the store's
/// rules keep.
///
/// # Errors
/// When a store cannot be listed.
pub async fn missing(
    inventory: &Inventory,
    from: &BTreeMap<String, SharedStore>,
    (called, to): (&str, &SharedStore),
    name: Option<&str>,
) -> Result<Vec<BackupName>, UpkeepError> {
    let goes_there = |database: &str| match name {
        Some(name) => inventory.means(name, database),
        None => inventory
            .entry(database)
            .is_some_and(|entry| entry.goes_to(called)),
    };
    let read = async |called: &str, store: &SharedStore| {
        let found = catalog::find(&**store, None).await;
        let mut found = found.map_err(UpkeepError::of_store(called, &**store))?;
        found.retain(|found| goes_there(&found.database));
        let trusted = &inventory.signatures.trusted;
        Ok::<_, UpkeepError>(read_manifests(&**store, found, trusted).await)
    };
    let mut all = BTreeMap::<String, Copies>::new();
    for Backup { found, manifest } in read(called, to).await? {
        let begun = found.begun();
        let of_one = all.entry(found.database).or_default();
        // A key that may list need not be allowed to read.
        let is_bad = manifest.is_err_and(|error| error.kind() == ErrorKind::Invalid);
        if !is_bad {
            of_one.there.insert(found.id, begun);
        }
    }
    for (called, store) in from {
        for Backup { found, manifest } in read(called, store).await? {
            let begun = found.begun();
            let of_one = all.entry(found.database).or_default();
            if manifest.is_ok() {
                let known = of_one.good.entry(found.id).or_insert(begun);
                *known = begun.min(*known);
            } else {
                of_one.bad.insert(found.id);
            }
        }
    }
    let mut missing = Vec::new();
    for (database, Copies { there, good, bad }) in all {
        let mut all: Vec<_> = good.iter().chain(&there).collect();
        // A copy is younger than what it is of.
        all.sort_by_key(|(id, begun)| (*id, *begun));
        all.dedup_by_key(|(id, _)| *id);
        all.sort_by_key(|(_, begun)| *begun);
        let begun: Vec<Timestamp> = all.iter().map(|(_, begun)| **begun).collect();
        let entry = inventory.entry(&database);
        let rules = entry.map(|entry| inventory.retention(entry, called));
        let kept_by = catalog::plan(&rules.unwrap_or_default(), &begun, Timestamp::now());
        let kept = all
            .iter()
            .zip(kept_by)
            .filter(|(_, kept_by)| !kept_by.is_empty());
        let kept = kept.map(|((id, _), _)| *id);
        let wanted = kept.chain(bad.iter().filter(|id| !good.contains_key(id)));
        let lacks = wanted.filter(|id| !there.contains_key(id)).cloned();
        missing.extend(lacks.map(|id| BackupName {
            database: database.clone(),
            id: Some(id),
        }));
    }
    missing.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(missing)
}
