//! What is below the objects of a bucket that keeps versions: there a delete hides, and frees nothing.
//!
//! `prune --versions` deletes the versions of what it removes, `cleanup --versions` those of what was
//! removed before, of notes that were replaced, and the marks that hid them. No version of a backup
//! that is in a list is touched.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::catalog::{BackupId, locate};
use crate::store::{NOTES, Result, Store, Version, versions};

/// Requests at once.
const AT_ONCE: usize = 16;

/// What became free.
#[derive(Debug, Default)]
pub struct Freed {
    /// Versions, marks of what was deleted among them.
    pub versions: usize,
    /// What they took, in bytes.
    pub bytes: u64,
    /// What could not be deleted, and why; a lock with its date.
    pub failures: Vec<String>,
}

impl Freed {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.versions += other.versions;
        self.bytes += other.bytes;
        self.failures.extend(other.failures);
    }
}

/// Deletes all versions below `prefix`, if nothing there is still listed: what could not be hidden is
/// a backup, and half of one must never be in a list.
pub async fn free_below(store: &dyn Store, prefix: &str) -> Freed {
    let failed = |why: String| Freed {
        failures: vec![why],
        ..Freed::default()
    };
    match versions(store, prefix).try_collect::<Vec<_>>().await {
        Ok(found) => match found.iter().find(|version| version.is_living()) {
            Some(living) => failed(format!(
                "{} is still there: no version below {prefix} was deleted",
                living.key
            )),
            None => free(store, found).await,
        },
        Err(error) => failed(format!(
            "the versions of {prefix} cannot be listed: {error}"
        )),
    }
}

/// Deletes these versions; when one cannot be, those of other keys are all the same.
pub async fn free(store: &dyn Store, doomed: Vec<Version>) -> Freed {
    let mut by_key = BTreeMap::<String, Vec<Version>>::new();
    for version in doomed {
        by_key.entry(version.key.clone()).or_default().push(version);
    }
    let each = by_key
        .into_values()
        .map(|versions| free_key(store, versions));
    let mut results = stream::iter(each).buffer_unordered(AT_ONCE);
    let mut freed = Freed::default();
    while let Some(of_key) = results.next().await {
        freed.add(of_key);
    }
    freed
}

/// Deletes versions of one key, one after the other: of two at once moto forgets one. What hides them
/// goes last, and stays with any of them that does, or that one would be in the list again.
async fn free_key(store: &dyn Store, mut versions: Vec<Version>) -> Freed {
    versions.sort_by_key(|version| version.is_marker);
    let mut freed = Freed::default();
    for version in versions {
        if version.is_marker && !freed.failures.is_empty() {
            break;
        }
        match store.delete_version(&version).await {
            Ok(()) => {
                freed.versions += 1;
                freed.bytes += version.size;
            }
            Err(error) => {
                let Version { key, id, .. } = version;
                freed
                    .failures
                    .push(format!("version {id} of {key} is still there: {error}"));
            }
        }
    }
    freed
}

/// What is hidden: versions of backups of which no object is left, and of notes that have been
/// replaced or deleted, where nothing has happened since `before`, in seconds since the Unix epoch by
/// the store's clock.
///
/// # Errors
/// When the versions cannot be listed.
pub async fn hidden(store: &dyn Store, before: i64) -> Result<Vec<Version>> {
    let mut by_backup = BTreeMap::<(String, BackupId), Vec<Version>>::new();
    let mut living = BTreeSet::new();
    let mut hidden = Vec::new();
    let mut found = versions(store, "");
    while let Some(version) = found.try_next().await? {
        let is_living = version.is_living();
        if let Some(located) = locate(&version.key) {
            let backup = (located.database, located.id);
            if is_living {
                living.insert(backup.clone());
            }
            by_backup.entry(backup).or_default().push(version);
        } else if version.key.starts_with(NOTES) && !is_living && is_old(&version, before) {
            hidden.push(version);
        }
    }
    by_backup.retain(|backup, versions| {
        !living.contains(backup) && versions.iter().all(|version| is_old(version, before))
    });
    hidden.extend(by_backup.into_values().flatten());
    Ok(hidden)
}

/// What has no time counts as young.
fn is_old(version: &Version, before: i64) -> bool {
    version.modified != 0 && version.modified < before
}
