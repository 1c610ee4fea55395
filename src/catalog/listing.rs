//! What a store holds, read from one listing of its keys, and the backup that a person means by a
//! name.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use super::{BackupId, Manifest, database_prefix, locate, manifest_key, signature_key};
use crate::signature::TrustedSigners;
use crate::store::{ErrorKind, ObjectInfo, Store, StoreError, get_small, objects};

/// Manifests fetched at once.
const AT_ONCE: usize = 32;
/// A manifest is some hundred bytes for each volume; a larger object is something else.
const LONGEST_MANIFEST: usize = 16 << 20;
/// By so much may clocks differ that are right.
pub const CLOCKS_AGREE: SignedDuration = SignedDuration::from_mins(1);
/// A signature is two lines in base64 and two comments.
const LONGEST_SIGNATURE: usize = 16 << 10;

/// All objects of one backup, or of what was to become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Name of the database.
    pub database: String,
    /// The backup.
    pub id: BackupId,
    /// Its objects, by key.
    pub objects: Vec<ObjectInfo>,
}

impl Found {
    /// Whether its manifest is there: only then it is a backup.
    pub fn is_committed(&self) -> bool {
        let manifest = manifest_key(&self.database, &self.id);
        self.objects.iter().any(|object| object.key == manifest)
    }

    /// When it began: by its id, which the clock of its host has given it, unless that is later than
    /// its manifest arrived by the store's clock. Then the host's was ahead, by days perhaps, and a
    /// backup of a right clock would be older than it for as long.
    pub fn begun(&self) -> Timestamp {
        self.arrived()
            .filter(|_| self.is_ahead())
            .unwrap_or(self.id.time())
    }

    /// Whether it says of itself that it began after it was there.
    pub fn is_ahead(&self) -> bool {
        self.arrived()
            .is_some_and(|arrived| self.id.time() > arrived + CLOCKS_AGREE)
    }

    /// When its manifest came, by the store's clock, where that says.
    fn arrived(&self) -> Option<Timestamp> {
        let key = manifest_key(&self.database, &self.id);
        let manifest = self.objects.iter().find(|object| object.key == key)?;
        let told = Some(manifest.modified).filter(|modified| *modified > 0)?;
        Timestamp::from_second(told).ok()
    }

    /// Size of its objects, in bytes.
    pub fn size(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }

    /// Why the backup whose manifest this is cannot be restored from these objects; `None` when
    /// every volume is there, with the size that the manifest says.
    pub fn flaw(&self, manifest: &Manifest) -> Option<String> {
        manifest
            .volume_keys()
            .zip(&manifest.archive.volumes)
            .find_map(
                |(key, volume)| match self.objects.iter().find(|object| object.key == key) {
                    None => Some(format!("{} is missing", volume.name)),
                    Some(object) if object.size != volume.size => Some(format!(
                        "{} has {} bytes and not {}",
                        volume.name, object.size, volume.size
                    )),
                    Some(_) => None,
                },
            )
    }
}

/// Lists what backups of `database` (of all when `None`) have in the store, by database and begin.
/// Objects whose keys are no backup's are left out.
///
/// # Errors
/// When the store cannot be listed.
pub async fn find(store: &dyn Store, database: Option<&str>) -> Result<Vec<Found>, StoreError> {
    find_under(store, &database.map(database_prefix).unwrap_or_default()).await
}

/// Lists what backups have under a prefix of keys, by database and begin: the newest is the last.
///
/// # Errors
/// When the store cannot be listed.
pub async fn find_under(store: &dyn Store, prefix: &str) -> Result<Vec<Found>, StoreError> {
    let mut found = BTreeMap::<_, Vec<ObjectInfo>>::new();
    let mut objects = objects(store, prefix);
    while let Some(object) = objects.try_next().await? {
        if let Some(located) = locate(&object.key) {
            found
                .entry((located.database, located.id))
                .or_default()
                .push(object);
        }
    }
    let mut found: Vec<Found> = found
        .into_iter()
        .map(|((database, id), objects)| Found {
            database,
            id,
            objects,
        })
        .collect();
    found.sort_by_cached_key(|one| (one.database.clone(), one.begun()));
    Ok(found)
}

/// A backup that exists, with its manifest or why that cannot be used.
#[derive(Debug)]
pub struct Backup {
    /// What it has in the store.
    pub found: Found,
    /// Its manifest.
    pub manifest: Result<Manifest, StoreError>,
}

/// The backups among what was found, their manifests read, in the same order.
pub async fn read_manifests(
    store: &dyn Store,
    found: Vec<Found>,
    trusted: &TrustedSigners,
) -> Vec<Backup> {
    let committed = found.into_iter().filter(Found::is_committed);
    let read: Vec<_> = committed
        .map(|found| read_backup(store, found, trusted))
        .collect();
    stream::iter(read).buffered(AT_ONCE).collect().await
}

async fn read_backup(store: &dyn Store, found: Found, trusted: &TrustedSigners) -> Backup {
    let manifest = read_manifest(store, &found.database, &found.id, trusted).await;
    Backup { found, manifest }
}

/// Reads the manifest of one backup, and its signature where one is asked for.
///
/// # Errors
/// When there is none, or it cannot be used, or is of another backup than its key says, or nobody
/// who is trusted has signed it.
pub async fn read_manifest(
    store: &dyn Store,
    database: &str,
    id: &BackupId,
    trusted: &TrustedSigners,
) -> Result<Manifest, StoreError> {
    let key = manifest_key(database, id);
    let text = read_manifest_text(store, database, id).await?;
    let invalid = |why: String| StoreError::new(ErrorKind::Invalid, format!("{key}: {why}"));
    if !trusted.is_empty() {
        let signature = read_signature(store, database, id).await?;
        let signature = signature.ok_or_else(|| {
            invalid(
                "the manifest is not signed, and trusted_signers asks for that: it was made before, \
                 or somebody else has written it"
                    .into(),
            )
        })?;
        let checked = trusted.check(&text, &signature);
        checked.map_err(|why| invalid(format!("the manifest is not to be trusted: {why}")))?;
    }
    let manifest = Manifest::from_json(&text).map_err(|error| invalid(error.to_string()))?;
    if (manifest.database.as_str(), &manifest.backup_id) != (database, id) {
        let (database, id) = (&manifest.database, &manifest.backup_id);
        return Err(invalid(format!(
            "the manifest is of {database}@{id}; somebody has moved it"
        )));
    }
    Ok(manifest)
}

/// Reads the manifest of one backup as it is stored.
///
/// # Errors
/// When there is none, or it is too large to be one.
pub async fn read_manifest_text(
    store: &dyn Store,
    database: &str,
    id: &BackupId,
) -> Result<Bytes, StoreError> {
    get_small(store, &manifest_key(database, id), LONGEST_MANIFEST).await
}

/// Reads the signature of a manifest; `None` when there is none.
///
/// # Errors
/// When the store does not tell, or it is too large to be one.
pub async fn read_signature(
    store: &dyn Store,
    database: &str,
    id: &BackupId,
) -> Result<Option<Bytes>, StoreError> {
    let key = signature_key(database, id);
    match get_small(store, &key, LONGEST_SIGNATURE).await {
        Ok(signature) => Ok(Some(signature)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// `NAME`, `NAME@LATEST` or `NAME@ID`: which backup a person means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupName {
    /// Name of the database.
    pub database: String,
    /// The backup; the latest when `None`.
    pub id: Option<BackupId>,
}

impl FromStr for BackupName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A database's name may hold an @ itself.
        let (database, id) = match text.rsplit_once('@') {
            Some((database, latest)) if latest.eq_ignore_ascii_case("latest") => (database, None),
            Some((database, id)) if id.parse::<BackupId>().is_ok() => (database, id.parse().ok()),
            Some((_, id)) if id.starts_with(|first: char| first.is_ascii_digit()) => {
                return Err(format!(
                    "{id:?} is not a backup id; `tapline list` shows them, or write NAME@LATEST"
                ));
            }
            _ => (text, None),
        };
        if database.is_empty() {
            return Err("write NAME, NAME@ID or NAME@LATEST".into());
        }
        Ok(Self {
            database: database.to_owned(),
            id,
        })
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "{}@{id}", self.database),
            None => write!(f, "{}@LATEST", self.database),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_named_by_database_and_id() {
        let id: BackupId = "20261123T180327Z-k3f9ax".parse().unwrap();
        let cases = [
            ("shop", "shop", None),
            ("shop@LATEST", "shop", None),
            ("shop@latest", "shop", None),
            ("all/a@b", "all/a@b", None),
            ("a@b@20261123T180327Z-k3f9ax", "a@b", Some(id)),
        ];
        for (text, database, id) in cases {
            assert_eq!(
                text.parse(),
                Ok(BackupName {
                    database: database.into(),
                    id
                }),
                "{text}"
            );
        }
        for text in ["", "@LATEST", "shop@2026", "shop@20261123T180327Z"] {
            assert!(text.parse::<BackupName>().is_err(), "{text}");
        }
    }
}
