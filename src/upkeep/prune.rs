//! Removing the backups that no rule keeps: [`consider`] decides, [`remove`] carries out.
//!
//! Only good backups count and only good ones are removed. A broken one takes no other's place, and
//! is a person's to look at: what is missing of it may yet be found.
//!
//! A backup's manifest is deleted first, then its volumes: whatever comes between, no half backup
//! is ever listed, and what is left of it is `tapline cleanup`'s.

use futures_util::{StreamExt, stream};

use crate::catalog::{
    Backup, BackupId, Found, Retention, Rule, find, manifest_key, plan, read_manifests,
};
use crate::store::{ErrorKind, ObjectInfo, Store, StoreError};

/// Backups removed at once.
const AT_ONCE: usize = 16;

/// A backup and what is to become of it.
#[derive(Debug)]
pub struct Considered {
    /// The backup.
    pub found: Found,
    /// Size of its archive in bytes, when its manifest tells.
    pub archive: Option<u64>,
    /// What is to become of it.
    pub verdict: Verdict,
}

/// What is to become of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, by these rules.
    Keep(Vec<Rule>),
    /// It goes.
    Remove,
    /// It stays and counts for no rule, because it is broken, and how.
    Broken(String),
}

/// What was removed.
#[derive(Debug, Default)]
pub struct Removed {
    /// Backups.
    pub backups: usize,
    /// What they took, in bytes.
    pub bytes: u64,
    /// What could not be removed, and why.
    pub failures: Vec<String>,
}

/// Decides about the backups of one database, given what it has in the store by id. What has no
/// manifest is no backup and is left out.
///
/// # Errors
/// When a manifest cannot be fetched: whether that backup is good is then not known.
pub async fn consider(
    store: &dyn Store,
    policy: &Retention,
    found: Vec<Found>,
) -> Result<Vec<Considered>, StoreError> {
    let mut considered = Vec::new();
    for Backup { found, manifest } in read_manifests(store, found).await {
        let (archive, flaw) = match manifest {
            Ok(manifest) => (Some(manifest.archive.size), found.flaw(&manifest)),
            Err(error) => match error.kind() {
                ErrorKind::Invalid => (None, Some(error.to_string())),
                // Somebody else has removed it since it was listed.
                ErrorKind::NotFound => continue,
                ErrorKind::Transient | ErrorKind::Denied | ErrorKind::AlreadyExists => {
                    return Err(error.context(format!(
                        "reading the manifest of {}@{}",
                        found.database, found.id
                    )));
                }
            },
        };
        let verdict = flaw.map_or(Verdict::Remove, Verdict::Broken);
        considered.push(Considered {
            found,
            archive,
            verdict,
        });
    }
    let good = |considered: &&mut Considered| considered.verdict == Verdict::Remove;
    let ids: Vec<BackupId> = considered
        .iter_mut()
        .filter(good)
        .map(|good| good.found.id.clone())
        .collect();
    for (considered, decision) in
        considered
            .iter_mut()
            .filter(good)
            .zip(plan(policy, &ids, jiff::Timestamp::now()))
    {
        if !decision.kept_by.is_empty() {
            considered.verdict = Verdict::Keep(decision.kept_by);
        }
    }
    Ok(considered)
}

/// Removes those backups whose verdict is [`Verdict::Remove`]. When one cannot be, the others are
/// all the same.
pub async fn remove(store: &dyn Store, considered: &[Considered]) -> Removed {
    let doomed = considered
        .iter()
        .filter(|considered| considered.verdict == Verdict::Remove);
    let removals: Vec<_> = doomed
        .map(|doomed| remove_one(store, &doomed.found))
        .collect();
    let mut results = stream::iter(removals).buffer_unordered(AT_ONCE);
    let mut removed = Removed::default();
    while let Some(result) = results.next().await {
        match result {
            Ok(bytes) => {
                removed.backups += 1;
                removed.bytes += bytes;
            }
            Err(failure) => removed.failures.push(failure),
        }
    }
    removed
}

/// Removes one backup and tells how many bytes it took, or what is left of it.
async fn remove_one(store: &dyn Store, found: &Found) -> Result<u64, String> {
    let Found {
        database,
        id,
        objects,
    } = found;
    let manifest = manifest_key(database, id);
    store
        .delete(&manifest)
        .await
        .map_err(|error| format!("{database}@{id} was not removed: {error}"))?;
    for ObjectInfo { key, .. } in objects.iter().filter(|object| object.key != manifest) {
        store.delete(key).await.map_err(|error| {
            format!("{database}@{id} is removed, but {key} is left for `tapline cleanup`: {error}")
        })?;
    }
    Ok(found.size())
}

/// Prunes one database by its policy: all of the above at once.
///
/// # Errors
/// When the store cannot be read; then nothing was removed.
pub async fn prune(
    store: &dyn Store,
    database: &str,
    policy: &Retention,
) -> Result<Removed, StoreError> {
    let found = find(store, Some(database)).await?;
    Ok(remove(store, &consider(store, policy, found).await?).await)
}
