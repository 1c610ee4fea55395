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

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use serde::Serialize;

use super::cleanup::SHORTEST_LIMIT;
use crate::catalog::{
    BackupId, Found, Manifest, Record, Records, fan_out_prefix, find, find_under, locate,
    manifest_key, read_manifest, read_records,
};
use crate::config::{ConfigError, Database, Inventory, Selection};
use crate::signature::TrustedSigners;
use crate::store::{ErrorKind, OpenUpload, SharedStore, Store, StoreError, list_all_uploads};
use crate::units::{self, count};

/// Databases asked about at once.
const AT_ONCE: usize = 16;
/// Of `expect_every` a twelfth more is no delay: 26 hours for one a day.
const SLACK: u32 = 12;
/// Timers and clocks are no better than this.
const LEAST_SLACK: Duration = Duration::from_mins(1);

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

/// What is the same for all databases.
struct Look<'a> {
    names: &'a [String],
    trusted: &'a TrustedSigners,
    max_age: Option<Duration>,
    now: i64,
    /// Open uploads by store and database.
    open: BTreeMap<(String, String), Vec<(BackupId, OpenUpload)>>,
    /// What was kept, by store and database.
    records: BTreeMap<String, BTreeMap<String, Records>>,
}

impl Look<'_> {
    fn add(&mut self, store: &str, uploads: Vec<OpenUpload>) {
        for upload in uploads {
            if let Some(located) = locate(&upload.key) {
                let of_database = self.open.entry((store.to_owned(), located.database));
                of_database.or_default().push((located.id, upload));
            }
        }
    }

    /// One entry: one database, or each that has backups under it.
    async fn entry(&self, entry: &Database, place: (&str, &dyn Store)) -> Vec<Standing> {
        let (_, store) = place;
        let found = match entry.database {
            Selection::All { .. } => find_under(store, &fan_out_prefix(&entry.name)).await,
            _ => find(store, Some(&entry.name)).await,
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => return vec![Standing::unknown(place.0, &entry.name, &error)],
        };
        let mut by_name = BTreeMap::<String, Vec<Found>>::new();
        for found in found {
            by_name
                .entry(found.database.clone())
                .or_default()
                .push(found);
        }
        for name in self.expected(entry) {
            by_name.entry(name).or_default();
        }
        by_name.retain(|name, _| self.is_asked_for(entry, name));
        if by_name.is_empty() {
            by_name.insert(entry.name.clone(), Vec::new());
        }
        let each = by_name
            .into_iter()
            .map(|(name, found)| self.database(entry, name, found, place));
        let each: Vec<_> = each.collect();
        stream::iter(each).buffered(AT_ONCE).collect().await
    }

    /// The databases that must have a backup: the entry's own, or those of a whole server that were
    /// named.
    fn expected(&self, entry: &Database) -> Vec<String> {
        match entry.database {
            Selection::All { .. } => {
                let named = self.names.iter().filter(|name| **name != entry.name);
                named.filter(|name| entry.covers(name)).cloned().collect()
            }
            _ => vec![entry.name.clone()],
        }
    }

    fn is_asked_for(&self, entry: &Database, name: &str) -> bool {
        let on_server = name
            .strip_prefix(&entry.name)
            .and_then(|rest| rest.strip_prefix('/'));
        let named = |asked: &String| *asked == entry.name || asked == name;
        let asked = self.names.is_empty() || self.names.iter().any(named);
        asked && !on_server.is_some_and(|name| entry.database.excludes(name))
    }

    async fn database(
        &self,
        entry: &Database,
        name: String,
        found: Vec<Found>,
        (store_name, store): (&str, &dyn Store),
    ) -> Standing {
        let committed: Vec<Found> = found.into_iter().filter(Found::is_committed).collect();
        let newest = match newest_good(store, &committed, self.trusted).await {
            Ok(newest) => newest,
            Err(error) => return Standing::unknown(store_name, &name, &error),
        };
        let last = newest
            .good
            .first()
            .map(|(found, manifest)| self.last(found, manifest));
        let max_age = self.max_age.or_else(|| {
            let took = Duration::from_secs(last.as_ref().map_or(0, |last| last.took_seconds));
            entry.expect_every.map(|every| longest_wait(every, took))
        });
        let mut warnings = Vec::new();
        let open = self.open(&name, &committed, (store_name, store)).await;
        if let Some(open) = open.as_ref().filter(|open| !open.alive) {
            warnings.push(format!(
                "{} was begun and is not complete, with no sign of life for {}; `tapline cleanup` \
                 removes what was killed",
                open.backup_id,
                words(open.quiet_seconds)
            ));
        }
        let records = self.records(store_name, &name);
        let failure = records.failure.or_else(|| {
            // The server of a `database = "*"` could not be asked for its databases.
            let whole = matches!(entry.database, Selection::All { .. });
            whole.then(|| self.records(store_name, &entry.name).failure)?
        });
        let is_since = |failure: &&Record| {
            let last = last.as_ref();
            last.is_none_or(|last| failure.ended.as_second() >= last.began.as_second())
        };
        if let Some(failure) = failure.as_ref().filter(is_since) {
            warnings.push(format!(
                "its last run failed {} ago on {}: {}",
                words(seconds(self.now - failure.ended.as_second())),
                failure.host,
                failure.message
            ));
        }
        let read_back = [records.verify.as_ref(), records.drill.as_ref()];
        let (mut damage, of_last) = (None, last.as_ref().map(|last| &last.backup_id));
        for bad in read_back.into_iter().flatten().filter(|read| !read.good) {
            let id = bad.backup_id.as_ref();
            let said = format!(
                "{} was read back {} ago on {}: {}",
                id.map_or("a backup", BackupId::as_str),
                words(seconds(self.now - bad.ended.as_second())),
                bad.host,
                bad.message
            );
            let again = read_back.into_iter().flatten();
            let is_past = |later: &Record| later.good && later.ended > bad.ended;
            match bad.reason.as_deref() {
                _ if again
                    .clone()
                    .any(|later| is_past(later) && later.backup_id.as_ref() == id) => {}
                Some("damaged") if id == of_last => damage = Some(said),
                _ if !again.clone().any(is_past) => warnings.push(said),
                _ => {}
            }
        }
        if let Some(last) = last.as_ref().filter(|last| last.warnings > 0) {
            warnings.push(format!(
                "its last backup had {}; they are in its run's log and report",
                count(last.warnings, "warning")
            ));
        }
        let mut previous_dump_bytes = None;
        if let [(_, last), (_, before), ..] = newest.good.as_slice() {
            previous_dump_bytes = before.dump_size();
            warnings.extend(change(last, before));
        }
        let (health, why) = match damage {
            Some(said) if newest.flaws.is_empty() => (Health::Damaged, Some(said)),
            _ => judge(store_name, &newest.flaws, last.as_ref(), max_age),
        };
        Standing {
            database: name,
            store: store_name.to_owned(),
            health,
            why,
            max_age_seconds: max_age.map(|age| age.as_secs()),
            last,
            previous_dump_bytes,
            open,
            last_failure: failure,
            last_verify: records.verify,
            last_drill: records.drill,
            awaited: records.awaited.map(|awaited| awaited.began),
            warnings,
        }
    }

    fn records(&self, store: &str, name: &str) -> Records {
        let of_store = self.records.get(store);
        let records = of_store.and_then(|records| records.get(name));
        records.cloned().unwrap_or_default()
    }

    fn last(&self, found: &Found, manifest: &Manifest) -> LastBackup {
        let key = manifest_key(&found.database, &found.id);
        let stored = found.objects.iter().find(|object| object.key == key);
        // 0 is not known.
        let stored = stored.map_or(0, |object| object.modified);
        let began = found.id.time();
        let oldest = if stored > 0 {
            began.as_second().min(stored)
        } else {
            began.as_second()
        };
        let took = manifest.finished.as_second() - manifest.started.as_second();
        LastBackup {
            backup_id: found.id.clone(),
            began,
            age_seconds: seconds(self.now - oldest),
            took_seconds: seconds(took),
            dump_bytes: manifest.dump_size(),
            archive_bytes: manifest.archive.size,
            warnings: manifest.warnings,
        }
    }

    /// The newest backup that has open uploads and no manifest.
    async fn open(
        &self,
        name: &str,
        committed: &[Found],
        (store_name, store): (&str, &dyn Store),
    ) -> Option<OpenBackup> {
        let uploads = self.open.get(&(store_name.to_owned(), name.to_owned()))?;
        let is_committed = |id: &BackupId| committed.iter().any(|found| found.id == *id);
        let ids = uploads.iter().map(|(id, _)| id);
        let newest = ids.filter(|id| !is_committed(id)).max()?;
        let mut seen = 0;
        for (_, upload) in uploads.iter().filter(|(id, _)| id == newest) {
            let info = store.upload_info(&upload.key, &upload.id).await;
            // Gone since it was listed, or not to be looked into: its begin is known.
            seen = seen
                .max(upload.initiated)
                .max(info.unwrap_or_default().newest);
        }
        let quiet_seconds = if seen > 0 {
            seconds(self.now - seen)
        } else {
            0
        };
        Some(OpenBackup {
            backup_id: newest.clone(),
            alive: quiet_seconds < SHORTEST_LIMIT.as_secs(),
            quiet_seconds,
        })
    }
}

impl Standing {
    /// The last good reading back of one of its backups, by itself or for a drill.
    pub fn read_back(&self) -> Option<&Record> {
        let all = [self.last_verify.as_ref(), self.last_drill.as_ref()];
        let good = all.into_iter().flatten().filter(|read| read.good);
        good.max_by_key(|read| read.ended)
    }

    fn unknown(store: &str, name: &str, error: &StoreError) -> Self {
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

/// The newest backups of one database, newest first.
struct Newest {
    /// At most two.
    good: Vec<(Found, Manifest)>,
    /// What is wrong with those that are newer than the first good one.
    flaws: Vec<String>,
}

/// Reads the newest manifests, `committed` being sorted by id: two, and on until one is good.
async fn newest_good(
    store: &dyn Store,
    committed: &[Found],
    trusted: &TrustedSigners,
) -> Result<Newest, StoreError> {
    let (mut good, mut flaws) = (Vec::new(), Vec::new());
    for (at, found) in committed.iter().rev().enumerate() {
        if good.len() == 2 || at >= 2 && !good.is_empty() {
            break;
        }
        let flaw = match read_manifest(store, &found.database, &found.id, trusted).await {
            Ok(manifest) => match found.flaw(&manifest) {
                None => {
                    good.push((found.clone(), manifest));
                    continue;
                }
                Some(flaw) => flaw,
            },
            // Pruned since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) if error.kind() == ErrorKind::Invalid => error.to_string(),
            Err(error) => return Err(error),
        };
        if good.is_empty() {
            flaws.push(format!("{} cannot be restored: {flaw}", found.id));
        }
    }
    Ok(Newest { good, flaws })
}

fn judge(
    store: &str,
    flaws: &[String],
    last: Option<&LastBackup>,
    max_age: Option<Duration>,
) -> (Health, Option<String>) {
    match (flaws, last, max_age) {
        ([], None, _) => (
            Health::Missing,
            Some(format!("has no backup in store {store}")),
        ),
        ([], Some(last), Some(limit)) if last.age_seconds > limit.as_secs() => {
            let (age, limit) = (words(last.age_seconds), words(limit.as_secs()));
            let why = format!(
                "its last good backup, {}, is {age} old, and at most {limit} are expected",
                last.backup_id
            );
            (Health::TooOld, Some(why))
        }
        ([], Some(_), _) => (Health::Good, None),
        (flaws, None, _) => {
            let why = format!("has no good backup in store {store}: {}", flaws.join("; "));
            (Health::Damaged, Some(why))
        }
        (flaws, Some(last), _) => {
            let (id, age) = (&last.backup_id, words(last.age_seconds));
            let flaws = flaws.join("; ");
            let why = format!("{flaws}; its last good backup, {id}, is {age} old");
            (Health::Damaged, Some(why))
        }
    }
}

/// How old a last backup may become when one is begun `every` so often and takes about as long as
/// the last one `took`: until the next is complete, the last one's age goes on.
fn longest_wait(every: Duration, took: Duration) -> Duration {
    every + took + (every / SLACK).max(LEAST_SLACK)
}

/// What is odd about a backup after the one before.
fn change(last: &Manifest, before: &Manifest) -> Option<String> {
    if let (Some(one), Some(other)) = (&last.source, &before.source)
        && !one.is_same_source(other)
    {
        return Some(format!(
            "its two last backups are of different sources, {} and {}",
            before.backup_id, last.backup_id
        ));
    }
    let dumps = last.dump_size().zip(before.dump_size());
    let what = if dumps.is_some() { "dump" } else { "archive" };
    let (now, then) = dumps.unwrap_or((last.archive.size, before.archive.size));
    (now <= then / 2 && then > 0).then(|| {
        format!(
            "its {what} shrank from {} to {}",
            units::size(then),
            units::size(now)
        )
    })
}

fn seconds(signed: i64) -> u64 {
    u64::try_from(signed).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn words(seconds: u64) -> String {
    units::time(seconds as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn a_daily_backup_may_be_26_hours_old_and_as_long_as_it_takes() {
        let none = Duration::ZERO;
        assert_eq!(longest_wait(DAY, none), Duration::from_hours(26));
        assert_eq!(
            longest_wait(DAY, Duration::from_hours(3)),
            Duration::from_hours(29)
        );
        let minutes = Duration::from_mins(5);
        assert_eq!(longest_wait(minutes, none), Duration::from_mins(6));
    }

    #[test]
    fn half_of_a_dump_is_a_warning_and_a_little_less_is_none() {
        let of = |size| {
            let id = "20260101T000000Z-aaaaaa".parse().unwrap();
            let mut manifest = Manifest::sample("shop", &id);
            manifest.entries[0].size = size;
            manifest
        };
        assert!(change(&of(50), &of(100)).is_some_and(|words| words.contains("100 B to 50 B")));
        assert_eq!(change(&of(51), &of(100)), None);
        assert_eq!(change(&of(0), &of(0)), None);
    }
}
