//! Removing the backups that no rule keeps: [`plan`] looks through the stores, [`consider`] decides
//! about one database, [`remove`] carries out.
//!
//! Only good backups count and only good ones are removed. A broken one takes no other's place, and
//! is a person's to look at: what is missing of it may yet be found.
//!
//! A backup's manifest is deleted first, then its volumes: whatever comes between, no half backup
//! is ever listed, and what is left of it is `tapline cleanup`'s.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use super::UpkeepError;
use super::versions::{Freed, free_below};
use crate::catalog::{
    self, Backup, CLOCKS_AGREE, Found, Retention, Rule, backup_prefix, find, manifest_key,
    read_manifests,
};
use crate::config::{ConfigError, Inventory};
use crate::signature::TrustedSigners;
use crate::store::{ErrorKind, ObjectInfo, SharedStore, Store, StoreError};

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
    /// It stays, because several sources have stored under its name, in words.
    SeveralSources(String),
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

/// What is to become of the backups in several stores.
#[derive(Default)]
pub struct Plan {
    /// The stores, by name, and the backups in each that a policy is for.
    pub stores: Vec<(String, SharedStore, Vec<Considered>)>,
    /// Databases that are not in the inventory, and are left alone.
    pub strangers: BTreeSet<String>,
    /// Databases that no rule is for.
    pub without_rule: BTreeSet<String>,
}

impl Plan {
    /// All backups that a policy is for.
    pub fn considered(&self) -> impl Iterator<Item = &Considered> {
        self.stores.iter().flat_map(|(_, _, considered)| considered)
    }

    /// Those that go.
    pub fn doomed(&self) -> impl Iterator<Item = &Considered> {
        self.considered()
            .filter(|considered| considered.verdict == Verdict::Remove)
    }

    /// Why databases are left alone under whose names several sources have stored.
    pub fn several_sources(&self) -> BTreeSet<String> {
        self.stores
            .iter()
            .flat_map(|(_, _, considered)| several_sources(considered))
            .collect()
    }

    /// Removes them; when one cannot be, the others are all the same.
    pub async fn carry_out(&self) -> Removed {
        let mut all = Removed::default();
        for (_, store, considered) in &self.stores {
            let removed = remove(&**store, considered).await;
            all.backups += removed.backups;
            all.bytes += removed.bytes;
            all.failures.extend(removed.failures);
        }
        all
    }
}

impl Plan {
    /// The stores from which something goes that a delete only hides, by name.
    pub async fn only_hides(&self) -> Vec<&str> {
        let mut hiding = Vec::new();
        for (called, store, considered) in &self.stores {
            let goes = considered.iter().any(|one| one.verdict == Verdict::Remove);
            if goes && store.keeps_versions().await == Some(true) {
                hiding.push(called.as_str());
            }
        }
        hiding
    }

    /// Deletes the versions of what was removed.
    pub async fn free_versions(&self) -> Freed {
        let mut freed = Freed::default();
        for (_, store, considered) in &self.stores {
            for Considered { found, verdict, .. } in considered {
                if *verdict == Verdict::Remove {
                    let prefix = backup_prefix(&found.database, &found.id);
                    freed.add(free_below(&**store, &prefix).await);
                }
            }
        }
        freed
    }
}

/// Decides about all backups in `stores`, by the inventory's policies or, when `given`, by that
/// one; with `names` only about those databases.
///
/// # Errors
/// When a store cannot be read, or a name is of no database.
pub async fn plan(
    inventory: &Inventory,
    stores: &BTreeMap<String, SharedStore>,
    names: &[String],
    given: Option<Retention>,
    source: Option<&str>,
) -> Result<Plan, UpkeepError> {
    if given.is_none() && !names.is_empty() {
        inventory.select(names).map_err(|ConfigError(error)| {
            ConfigError(format!(
                "{error}; what is in the store alone is pruned by rules such as --keep-last 3"
            ))
        })?;
    }
    let mut plan = Plan::default();
    let mut seen = BTreeSet::new();
    for (called, store) in stores {
        let failed = || UpkeepError::of_store(called, &**store);
        let found = find(&**store, None).await.map_err(failed())?;
        let committed: Vec<Found> = found.into_iter().filter(Found::is_committed).collect();
        let mut considered = Vec::new();
        for of_one in committed.chunk_by(|a, b| a.database == b.database) {
            let database = &of_one[0].database;
            seen.insert(database.clone());
            match policy(inventory, called, database, names, given) {
                Policy::Is(policy) if policy.is_empty() => {
                    plan.without_rule.insert(database.clone());
                }
                Policy::Is(policy) => considered.extend(
                    consider(
                        &**store,
                        &policy,
                        of_one.to_vec(),
                        source,
                        inventory.formerly(database),
                        &inventory.signatures.trusted,
                    )
                    .await
                    .map_err(failed())?,
                ),
                Policy::Stranger => {
                    plan.strangers.insert(database.clone());
                }
                Policy::NotNamed => {}
            }
        }
        plan.stores
            .push((called.clone(), store.clone(), considered));
    }
    let known = |name: &String| seen.contains(name) || inventory.entry(name).is_some();
    match names.iter().find(|name| !known(name)) {
        None => Ok(plan),
        Some(name) => Err(UpkeepError::NoBackup(format!(
            "there are no backups of {name:?}; `tapline list` shows all"
        ))),
    }
}

/// How a database in a store is to be treated.
enum Policy {
    /// By this policy.
    Is(Retention),
    /// It is neither in the inventory nor named.
    Stranger,
    /// Others are named.
    NotNamed,
}

fn policy(
    inventory: &Inventory,
    store: &str,
    database: &String,
    names: &[String],
    given: Option<Retention>,
) -> Policy {
    // What a database of the inventory has in another store than its own ones is as strange as the rest.
    let entry = inventory
        .entry(database)
        .filter(|entry| entry.goes_to(store));
    let means =
        |given: &String| given == database || entry.is_some_and(|entry| entry.name == *given);
    match (names.iter().any(means), given, entry) {
        (false, _, _) if !names.is_empty() => Policy::NotNamed,
        (true, Some(given), _) | (false, Some(given), Some(_)) => Policy::Is(given),
        (_, None, Some(entry)) => Policy::Is(inventory.retention(entry, store)),
        (_, _, None) => Policy::Stranger,
    }
}

/// Decides about the backups of one database, given what it has in the store by begin. What has no
/// manifest is no backup and is left out. `source` chooses one of several sources by the beginning
/// of its fingerprint; where several have stored and none is chosen, all of it stays. For `formerly`
/// see [`catalog::stored_sources`].
///
/// # Errors
/// When a manifest cannot be fetched: whether that backup is good is then not known.
pub async fn consider(
    store: &dyn Store,
    policy: &Retention,
    found: Vec<Found>,
    source: Option<&str>,
    formerly: &[String],
    trusted: &TrustedSigners,
) -> Result<Vec<Considered>, StoreError> {
    let (mut considered, mut manifests) = (Vec::new(), Vec::new());
    for Backup { found, manifest } in read_manifests(store, found, trusted).await {
        let (archive, flaw) = match manifest {
            Ok(manifest) => {
                let known = manifest.source.as_ref();
                let is_chosen = |chosen| known.is_some_and(|known| known.is_called(chosen));
                if source.is_some_and(|chosen| !is_chosen(chosen)) {
                    continue;
                }
                let about = (Some(manifest.archive.size), found.flaw(&manifest));
                manifests.push(manifest);
                about
            }
            Err(error) => match error.kind() {
                ErrorKind::Invalid => (None, Some(error.to_string())),
                // Somebody else has removed it since it was listed.
                ErrorKind::NotFound => continue,
                _ => {
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
    let sources = catalog::stored_sources(&manifests, formerly);
    if let ([_, _, ..], Some(first)) = (sources.as_slice(), manifests.first()) {
        let why = catalog::describe_sources(&first.database, &sources);
        for considered in considered.iter_mut().filter(good) {
            considered.verdict = Verdict::SeveralSources(why.clone());
        }
        return Ok(considered);
    }
    let begun: Vec<Timestamp> = considered
        .iter_mut()
        .filter(good)
        .map(|good| good.found.begun())
        .collect();
    let kept_by = catalog::plan(policy, &begun, present(store) + CLOCKS_AGREE);
    for (considered, kept_by) in considered.iter_mut().filter(good).zip(kept_by) {
        if !kept_by.is_empty() {
            considered.verdict = Verdict::Keep(kept_by);
        }
    }
    Ok(considered)
}

/// The present by the store's clock, where it has told: this host's may be wrong by days.
fn present(store: &dyn Store) -> Timestamp {
    let offset = SignedDuration::from_secs(store.clock_offset().unwrap_or_default());
    let now = Timestamp::now();
    now.checked_add(offset).unwrap_or(now)
}

/// The reason for which a database is left alone, once for each.
fn several_sources(considered: &[Considered]) -> BTreeSet<String> {
    let reasons = considered.iter().filter_map(|one| match &one.verdict {
        Verdict::SeveralSources(why) => Some(why.clone()),
        _ => None,
    });
    reasons.collect()
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
    formerly: &[String],
    trusted: &TrustedSigners,
) -> Result<Removed, StoreError> {
    let found = find(store, Some(database)).await?;
    let considered = consider(store, policy, found, None, formerly, trusted).await?;
    let mut removed = remove(store, &considered).await;
    removed.failures.extend(several_sources(&considered));
    Ok(removed)
}
