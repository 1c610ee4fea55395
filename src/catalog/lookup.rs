//! The one backup that a person means by a name, looked for in the stores.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    BackupId, BackupName, Found, Manifest, StoredSource, describe_sources, find, read_manifest,
    read_manifests, stored_sources,
};
use crate::signature::TrustedSigners;
use crate::store::{ErrorKind, SharedStore, StoreError};

/// As many names as a message about a missing backup mentions.
const MENTIONED: usize = 10;

/// A backup that was looked up.
pub struct Named {
    /// The store's name in the inventory.
    pub called: String,
    /// The store that it is in.
    pub store: SharedStore,
    /// What it is.
    pub manifest: Manifest,
}

/// Why a name does not lead to a backup.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// No store has it; the message says what there is.
    #[error("{0}")]
    NoSuchBackup(String),
    /// Several stores have it.
    #[error("{name} is in several stores: {}; choose one with --store NAME", .stores.join(", "))]
    Ambiguous {
        /// The name that was looked up.
        name: BackupName,
        /// The stores, by their names in the inventory.
        stores: Vec<String>,
    },
    /// Several sources have stored under the name; the message says how to choose one.
    #[error("{0}")]
    SeveralSources(String),
    /// It is there, and its manifest cannot be used.
    #[error("the backup cannot be used; `tapline list` shows the others: {0}")]
    Unusable(StoreError),
    /// A store cannot be read.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Looks for `name` as [`look_up`] does, to restore it: where several sources have stored under the
/// name, which of them is meant must be said, by its id or its `source` (the beginning of a
/// fingerprint).
///
/// # Errors
/// See [`LookupError`].
pub async fn look_up_one_source(
    stores: &BTreeMap<String, SharedStore>,
    copies: &[String],
    name: &BackupName,
    source: Option<&str>,
    formerly: &[String],
    trusted: &TrustedSigners,
) -> Result<Named, LookupError> {
    let latest = look_up(stores, copies, name, trusted).await?;
    if name.id.is_some() {
        return Ok(latest);
    }
    let found = find(&*latest.store, Some(&name.database)).await?;
    let backups = read_manifests(&*latest.store, found, trusted)
        .await
        .into_iter();
    let manifests: Vec<Manifest> = backups.filter_map(|backup| backup.manifest.ok()).collect();
    let sources = stored_sources(&manifests, formerly);
    let chosen = match (source, sources.as_slice()) {
        (None, [] | [_]) => return Ok(latest),
        (None, _) => None,
        (Some(source), _) => sources
            .iter()
            .find(|stored| stored.source.is_called(source)),
    };
    match chosen {
        None => Err(LookupError::SeveralSources(describe_sources(
            &name.database,
            &sources,
        ))),
        Some(StoredSource { newest, .. }) => {
            let id = Some(newest.clone());
            look_up(
                stores,
                copies,
                &BackupName {
                    database: name.database.clone(),
                    id,
                },
                trusted,
            )
            .await
        }
    }
}

/// A backup that was found by its name alone.
struct Holder<'a> {
    called: &'a String,
    store: &'a SharedStore,
    id: BackupId,
    begun: Timestamp,
}

/// Looks for `name` in `stores`, which are called as in the inventory. The latest backup is the
/// newest (see [`Found::begun`]) whose manifest is there; when that manifest cannot be used it is an
/// error, and never an older backup instead. `copies` are the stores that the database's backups go
/// to together: the newest in one of them is the newest of all, and what one does not give another
/// may.
///
/// # Errors
/// See [`LookupError`]. A store that cannot be read is one even when another has the backup, unless
/// it is named by its id: a newer one may be there.
pub async fn look_up(
    stores: &BTreeMap<String, SharedStore>,
    copies: &[String],
    name: &BackupName,
    trusted: &TrustedSigners,
) -> Result<Named, LookupError> {
    let (mut holders, mut silent) = (Vec::new(), None);
    for (called, store) in stores {
        let found = match find(&**store, Some(&name.database)).await {
            Ok(found) => found,
            Err(error) => {
                let hint = if stores.len() > 1 {
                    " (--store NAME looks in one store only)"
                } else {
                    ""
                };
                let error = error.context(format!("store {called}{hint}"));
                if name.id.is_none() {
                    return Err(error.into());
                }
                silent = Some(error);
                continue;
            }
        };
        let wanted = |found: &Found| {
            found.is_committed() && name.id.as_ref().is_none_or(|id| *id == found.id)
        };
        let mut fitting = found.into_iter().filter(wanted);
        let Some(newest) = fitting.next_back() else {
            continue;
        };
        if let Some(ahead) = fitting.find(|found| found.id > newest.id) {
            let (database, begun) = (&ahead.database, ahead.begun());
            tracing::warn!(
                "{database}@{} is not the latest: a clock that was ahead has named it, and it has \
                 been there since {begun:.0}",
                ahead.id
            );
        }
        holders.push(Holder {
            called,
            store,
            begun: newest.begun(),
            id: newest.id,
        });
    }
    match (holders.is_empty(), silent) {
        (true, None) => {
            let why = what_there_is(stores, name).await?;
            return Err(LookupError::NoSuchBackup(why));
        }
        (true, Some(error)) => return Err(error.into()),
        (false, Some(error)) => tracing::warn!("{name} is taken from another store: {error}"),
        (false, None) => {}
    }
    // In the order in which the inventory names them.
    let place = |holder: &Holder<'_>| copies.iter().position(|copy| copy == holder.called);
    holders.sort_by_key(|holder| place(holder).unwrap_or(usize::MAX));
    if holders.iter().all(|holder| place(holder).is_some()) {
        let newest = holders
            .iter()
            .max_by_key(|holder| (holder.begun, &holder.id));
        let newest = newest.map(|holder| holder.id.clone());
        holders.retain(|holder| Some(&holder.id) == newest.as_ref());
    }
    // Copies of one backup are one backup.
    if holders.iter().any(|holder| holder.id != holders[0].id) {
        return Err(LookupError::Ambiguous {
            name: name.clone(),
            stores: holders
                .into_iter()
                .map(|holder| holder.called.clone())
                .collect(),
        });
    }
    let mut first = None;
    for Holder {
        called, store, id, ..
    } in holders
    {
        match read_manifest(&**store, &name.database, &id, trusted).await {
            Ok(manifest) => {
                return Ok(Named {
                    called: called.clone(),
                    store: store.clone(),
                    manifest,
                });
            }
            Err(error) => {
                tracing::warn!("store {called}: {error}");
                first.get_or_insert(error);
            }
        }
    }
    Err(match first {
        Some(error) if error.kind() == ErrorKind::Invalid => LookupError::Unusable(error),
        Some(error) => LookupError::Store(error),
        None => LookupError::NoSuchBackup(format!("there is no backup {name}")),
    })
}

/// For a backup that no store has: the backups of its database, or the databases that there are.
async fn what_there_is(
    stores: &BTreeMap<String, SharedStore>,
    name: &BackupName,
) -> Result<String, StoreError> {
    // `shop@yesterday` reads as a database's name, and may be meant as one of the backups of
    // `shop`.
    let meant = match (&name.id, name.database.rsplit_once('@')) {
        (None, Some((database, _))) => database,
        _ => &name.database,
    };
    let (mut ids, mut databases) = (BTreeSet::new(), BTreeSet::new());
    for store in stores.values() {
        for found in find(&**store, None)
            .await?
            .into_iter()
            .filter(Found::is_committed)
        {
            if found.database == meant {
                ids.insert(found.id.to_string());
            }
            databases.insert(found.database);
        }
    }
    let addresses: Vec<String> = stores.values().map(|store| store.address()).collect();
    let name = match name.id {
        // `@LATEST` after a name with an @ in it would read as a part of the name.
        None if name.database.contains('@') => name.database.clone(),
        _ => name.to_string(),
    };
    let missing = format!("there is no backup {name} in {}", addresses.join(", "));
    Ok(match (ids.is_empty(), databases.is_empty()) {
        (false, _) => format!(
            "{missing}; of {meant} there are: {}",
            mention(ids.iter().rev())
        ),
        (true, false) => format!(
            "{missing}; there are backups of: {}",
            mention(databases.iter())
        ),
        (true, true) => format!("{missing}; there are no backups at all"),
    })
}

fn mention<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = names.len().saturating_sub(MENTIONED);
    let mentioned = names
        .take(MENTIONED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        format!("{mentioned} and {more} more")
    } else {
        mentioned
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::*;
    use crate::store::Limits;
    use crate::store::memory::MemoryStore;

    fn id(text: &str) -> BackupId {
        format!("{text}T000000Z-aaaaaa").parse().unwrap()
    }

    fn put(store: &MemoryStore, manifest: &Manifest) {
        store.overwrite(
            &super::super::manifest_key(&manifest.database, &manifest.backup_id),
            manifest.to_json().into(),
        );
    }

    /// Looks up `name` in stores `a` and `b`.
    fn look(a: &MemoryStore, b: &MemoryStore, name: &str) -> Result<BackupId, LookupError> {
        let stores = [("a", a), ("b", b)]
            .map(|(name, store)| (name.to_owned(), Arc::new(store.clone()) as SharedStore));
        let looked = look_up(
            &stores.into(),
            &[],
            &name.parse().unwrap(),
            &TrustedSigners::default(),
        )
        .now_or_never()
        .expect("nothing to wait for");
        looked.map(|named| named.manifest.backup_id)
    }

    #[test]
    fn the_latest_is_the_newest_with_a_manifest() {
        let (a, b) = (
            MemoryStore::new(Limits::S3, None),
            MemoryStore::new(Limits::S3, None),
        );
        let (old, new, half) = (id("20260101"), id("20260102"), id("20260103"));
        put(&a, &Manifest::sample("shop", &old));
        put(&a, &Manifest::sample("shop", &new));
        a.overwrite(
            &super::super::archive_key("shop", &half, "tar.gz"),
            "half".into(),
        );
        put(&b, &Manifest::sample("other", &half));
        assert_eq!(look(&a, &b, "shop").unwrap(), new);
        assert_eq!(look(&a, &b, &format!("shop@{old}")).unwrap(), old);

        let missing = look(&a, &b, &format!("shop@{half}"))
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains(&format!("of shop there are: {new}, {old}")),
            "{missing}"
        );
        let missing = look(&a, &b, "sohp").unwrap_err().to_string();
        assert!(
            missing.contains("no backup sohp@LATEST in") && missing.contains("of: other, shop"),
            "{missing}"
        );

        put(&b, &Manifest::sample("shop", &old));
        let ambiguous = look(&a, &b, "shop").unwrap_err().to_string();
        assert!(
            ambiguous.contains("a, b") && ambiguous.contains("--store"),
            "{ambiguous}"
        );
    }

    #[test]
    fn a_latest_that_cannot_be_used_is_no_reason_to_take_an_older_one() {
        let store = MemoryStore::new(Limits::S3, None);
        put(&store, &Manifest::sample("shop", &id("20260101")));
        store.overwrite(
            &super::super::manifest_key("shop", &id("20260102")),
            "{}".into(),
        );
        let empty = MemoryStore::new(Limits::S3, None);
        let error = look(&store, &empty, "shop").unwrap_err();
        assert!(
            matches!(error, LookupError::Unusable(_))
                && error.to_string().contains("cannot be used"),
            "{error}"
        );
        let none = look(&empty, &empty, "shop").unwrap_err().to_string();
        assert!(none.contains("no backups at all"), "{none}");
    }
}
