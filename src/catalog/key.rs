//! Object keys, relative to a store's prefix:
//!
//! ```text
//! shop/20261123T180327Z-k3f9ax/shop.tar.gz        the archive's first volume
//! shop/20261123T180327Z-k3f9ax/shop.tar.gz.v002   its second, if there is one
//! shop/20261123T180327Z-k3f9ax/copy-under-way     while `tapline copy` brings it here
//! shop/20261123T180327Z-k3f9ax/manifest.json.minisig  its signature, where there is one
//! shop/20261123T180327Z-k3f9ax/manifest.json      written last
//!
//! ~tapline/records/shop/failure.json              what became of it last, of each kind one
//! ~tapline/chores/prune.json                     when the store was pruned last
//! ~tapline/leases/shop/20261123T180327Z-k3f9ax    who is at it
//! ```
//!
//! A database's name is percent-encoded where it has anything but ASCII letters, digits, `.`, `_`
//! and `-`, so a name with a slash, a space or an accent is still one component of a key, and still
//! its own.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::BackupId;

const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
const MANIFEST: &str = "manifest.json";
/// As stock `minisign` looks for it.
const SIGNATURE: &str = ".minisig";
const COPY_LOCK: &str = "copy-under-way";
/// No database's name begins so: a dot there is encoded.
const CHECK: &str = ".tapline-check-";
/// Apart from the backups, so that no listing of them is longer for what is noted about them.
const RECORDS: &str = "~tapline/records/";
const LEASES: &str = "~tapline/leases/";
const CHORES: &str = "~tapline/chores/";

fn component(name: &str) -> String {
    let encoded = utf8_percent_encode(name, COMPONENT).to_string();
    // `.` and `..` mean something to file systems and URL parsers.
    match encoded.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => encoded,
    }
}

/// Under which all backups of `database` are: `shop/`.
pub fn database_prefix(database: &str) -> String {
    format!("{}/", component(database))
}

/// Under which the backups of all databases called `entry/…` are: `all%2F`.
pub fn fan_out_prefix(entry: &str) -> String {
    component(&format!("{entry}/"))
}

/// Under which all objects of one backup are: `shop/20261123T180327Z-k3f9ax/`.
pub fn backup_prefix(database: &str, id: &BackupId) -> String {
    format!("{}{id}/", database_prefix(database))
}

/// The key of the archive's first volume. `extension` is such as `tar.gz`.
pub fn archive_key(database: &str, id: &BackupId, extension: &str) -> String {
    format!(
        "{}{}.{extension}",
        backup_prefix(database, id),
        component(database)
    )
}

/// The name of volume `number` (from 1) of an archive whose first volume is `first`.
pub fn volume_name(first: &str, number: u32) -> String {
    if number == 1 {
        first.to_owned()
    } else {
        format!("{first}.v{number:03}")
    }
}

/// The key of a backup's manifest.
pub fn manifest_key(database: &str, id: &BackupId) -> String {
    format!("{}{MANIFEST}", backup_prefix(database, id))
}

/// The key of a manifest's signature.
pub fn signature_key(database: &str, id: &BackupId) -> String {
    format!("{}{SIGNATURE}", manifest_key(database, id))
}

/// The key of what keeps two copies of one backup from being made at once.
pub fn copy_lock_key(database: &str, id: &BackupId) -> String {
    format!("{}{COPY_LOCK}", backup_prefix(database, id))
}

/// The key of what `tapline check` puts into a store for a moment.
pub fn check_key(id: &BackupId) -> String {
    format!("{CHECK}{id}")
}

/// Whether a key is one of [`check_key`]'s.
pub fn is_check_key(key: &str) -> bool {
    key.strip_prefix(CHECK)
        .is_some_and(|id| id.parse::<BackupId>().is_ok())
}

/// Under which the records of a database are; of all when there is no name.
pub fn records_prefix(database: Option<&str>) -> String {
    RECORDS.to_owned() + &database.map(database_prefix).unwrap_or_default()
}

/// The key of a database's record of one kind.
pub fn record_key(database: &str, kind: &str) -> String {
    format!("{}{kind}.json", records_prefix(Some(database)))
}

/// The key of the note when something was last done for all of a store.
pub fn chore_key(name: &str) -> String {
    format!("{CHORES}{name}.json")
}

/// Reads a record's key: the database's name and the kind.
pub fn locate_record(key: &str) -> Option<(String, &str)> {
    let (encoded, file) = key.strip_prefix(RECORDS)?.split_once('/')?;
    let database = percent_decode_str(encoded).decode_utf8().ok()?.into_owned();
    (component(&database) == encoded).then_some(())?;
    Some((database, file.strip_suffix(".json")?))
}

/// Under which the leases of a database are.
pub fn leases_prefix(database: &str) -> String {
    LEASES.to_owned() + &database_prefix(database)
}

/// The key of the lease that a run has on a database.
pub fn lease_key(database: &str, id: &BackupId) -> String {
    leases_prefix(database) + id.as_str()
}

/// Whether a key is one of [`lease_key`]'s.
pub fn is_lease_key(key: &str) -> bool {
    key.strip_prefix(LEASES)
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(_, id)| id.parse::<BackupId>().is_ok())
}

/// What a key says of the object that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The database's name, decoded.
    pub database: String,
    /// The backup that the object belongs to.
    pub id: BackupId,
    /// Whether the object is the backup's manifest.
    pub is_manifest: bool,
}

/// Reads a key; `None` when no backup's object has such a key.
pub fn locate(key: &str) -> Option<Located> {
    let mut components = key.split('/');
    let (encoded, id, file) = (components.next()?, components.next()?, components.next()?);
    if components.next().is_some() || file.is_empty() {
        return None;
    }
    let database = percent_decode_str(encoded).decode_utf8().ok()?.into_owned();
    (component(&database) == encoded).then_some(())?;
    Some(Located {
        database,
        id: id.parse().ok()?,
        is_manifest: file == MANIFEST,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_keys_of_its_own_that_read_back() {
        let id = BackupId::now();
        for name in [
            "shop",
            "a/b",
            "größe",
            "it's \"quoted\"",
            ".",
            "..",
            "100%",
            "a b",
            "x/../y",
        ] {
            let key = manifest_key(name, &id);
            assert_eq!(key.split('/').count(), 3, "{key}");
            assert!(key.is_ascii());
            assert_eq!(
                locate(&key),
                Some(Located {
                    database: name.into(),
                    id: id.clone(),
                    is_manifest: true
                })
            );
            let archive = archive_key(name, &id, "tar.gz");
            assert!(!locate(&archive).unwrap().is_manifest);
            assert_eq!(volume_name(&archive, 2), format!("{archive}.v002"));
            let record = record_key(name, "failure");
            assert_eq!(locate_record(&record), Some((name.into(), "failure")));
            let lease = lease_key(name, &id);
            assert!(is_lease_key(&lease) && !is_lease_key(&record));
            assert_eq!((locate(&record), locate(&lease)), (None, None));
            assert_eq!(locate(&chore_key("prune")), None);
        }
    }

    #[test]
    fn other_peoples_objects_are_not_ours() {
        for key in [
            "",
            "shop",
            "shop/x/manifest.json",
            "shop/20261123T180327Z-k3f9ax/",
            "shop/20261123T180327Z-k3f9ax/a/b",
            "a b/20261123T180327Z-k3f9ax/f",
            ".tapline-check-me",
        ] {
            assert_eq!((locate(key), is_check_key(key)), (None, false), "{key}");
        }
    }
}
