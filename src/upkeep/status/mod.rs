//! How each database of the inventory stands: its last good backup and its age, its size against
//! the one before, its last failure, when it was last read back, and whether a backup seems to be
//! on its way.
//!
//! A database costs one listing of its own prefix, its two newest manifests and at most four
//! records, however many backups it has; a store one listing of its open uploads and one of its
//! records. Older manifests are read only as long
//! as none of the newer is of a good backup.
//!
//! A backup is as old as its data, which are of its begin. That is told twice, by the backup's id
//! (the clock of the host that made it) and by the store's date of its manifest; the **older**
//! counts. So neither a host whose clock is ahead nor a bucket that was copied makes a backup
//! younger than it is. The present is this machine's; S3 refuses clocks that are 15 minutes off.

mod judge;
mod look;
mod standing;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use crate::catalog::{BackupId, read_records};
use crate::config::{ConfigError, Inventory};
use crate::store::{SharedStore, list_all_uploads};
use look::Look;
pub use standing::{Health, LastBackup, OpenBackup, Standing, Status};

/// Databases asked about at once.
const AT_ONCE: usize = 16;

/// Looks at the databases called `names`, at all when there are none, as of `now`. `max_age` goes
/// before what the inventory expects.
///
/// # Errors
/// When the inventory has no such database. What a store does not tell is in the result.
pub async fn status(
    inventory: &Inventory,
    stores: &BTreeMap<String, SharedStore>,
    names: &[String],
    max_age: Option<Duration>,
    now: Timestamp,
) -> Result<Status, ConfigError> {
    let entries = inventory.select(names)?;
    let mut look = Look {
        names,
        max_age,
        trusted: &inventory.signatures.trusted,
        now: now.as_second(),
        open: BTreeMap::new(),
        records: BTreeMap::new(),
    };
    let mut remarks = Vec::new();
    for (name, store) in stores {
        if !entries.iter().any(|entry| entry.goes_to(name)) {
            continue;
        }
        let (uploads, records) =
            tokio::join!(list_all_uploads(&**store, ""), read_records(&**store, None));
        match uploads {
            Ok(uploads) => look.add(name, uploads),
            Err(error) => remarks.push(format!(
                "store {name}: whether backups are on their way is not known: {error}"
            )),
        }
        match records {
            Ok(records) => drop(look.records.insert(name.clone(), records)),
            Err(error) => remarks.push(format!(
                "store {name}: what failed and was read back last is not known: {error}"
            )),
        }
    }
    let places = entries.into_iter().flat_map(|entry| {
        let each = entry.stores.iter();
        each.filter_map(move |name| Some((entry, name, stores.get(name)?)))
    });
    let each = places.map(|(entry, name, store)| look.entry(entry, (name, &**store)));
    let each: Vec<_> = each.collect();
    let databases: Vec<Vec<Standing>> = stream::iter(each).buffered(AT_ONCE).collect().await;
    let mut databases: Vec<Standing> = databases.into_iter().flatten().collect();
    missing_copies(&mut databases);
    Ok(Status {
        version: 1,
        asked: now,
        databases,
        remarks,
    })
}

/// What is in one store of a database, and in another not, is told with the command that brings it
/// there.
fn missing_copies(databases: &mut [Standing]) {
    let mut newest = BTreeMap::<String, (BackupId, String)>::new();
    for one in &*databases {
        let Some(last) = &one.last else { continue };
        let known = newest.get(&one.database).map(|(id, _)| id);
        if known.is_none_or(|known| *known < last.backup_id) {
            let place = (last.backup_id.clone(), one.store.clone());
            newest.insert(one.database.clone(), place);
        }
    }
    for one in databases {
        let own = one.last.as_ref().map(|last| &last.backup_id);
        let Some((id, place)) = newest.get(&one.database) else {
            continue;
        };
        if one.health != Health::Unknown && own != Some(id) {
            let (name, store) = (&one.database, &one.store);
            one.warnings.push(format!(
                "store {store} lacks {id}, which {place} has: `tapline copy {name}@{id} --to \
                 {store}` brings it there"
            ));
        }
    }
}
