//! A look at one entry in one store.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::judge::{change, judge, longest_wait, seconds, words};
use super::{AT_ONCE, Health, LastBackup, OpenBackup, Standing};
use crate::catalog::{
    BackupId, Found, Manifest, Record, Records, fan_out_prefix, find, find_under, locate,
    read_manifest,
};
use crate::config::{Database, Selection};
use crate::signature::TrustedSigners;
use crate::store::{ErrorKind, OpenUpload, Store, StoreError};
use crate::units::count;
use crate::upkeep::cleanup::SHORTEST_LIMIT;

/// What is the same for all databases.
pub(super) struct Look<'a> {
    pub names: &'a [String],
    pub trusted: &'a TrustedSigners,
    pub max_age: Option<Duration>,
    pub now: i64,
    /// Open uploads by store and database.
    pub open: BTreeMap<(String, String), Vec<(BackupId, OpenUpload)>>,
    /// What was kept, by store and database.
    pub records: BTreeMap<String, BTreeMap<String, Records>>,
}

impl Look<'_> {
    pub fn add(&mut self, store: &str, uploads: Vec<OpenUpload>) {
        for upload in uploads {
            if let Some(located) = locate(&upload.key) {
                let of_database = self.open.entry((store.to_owned(), located.database));
                of_database.or_default().push((located.id, upload));
            }
        }
    }

    /// One entry: one database, or each that has backups under it.
    pub async fn entry(&self, entry: &Database, place: (&str, &dyn Store)) -> Vec<Standing> {
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
        if let Some((found, _)) = newest.good.first().filter(|(found, _)| found.is_ahead()) {
            warnings.push(format!(
                "the clock of the host that made {} is ahead: it was there by {:.0} already",
                found.id,
                found.begun()
            ));
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
        let took = manifest.finished.as_second() - manifest.started.as_second();
        LastBackup {
            backup_id: found.id.clone(),
            began: found.id.time(),
            age_seconds: seconds(self.now - found.begun().as_second()),
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

/// The newest backups of one database, newest first.
struct Newest {
    /// At most two.
    good: Vec<(Found, Manifest)>,
    /// What is wrong with those that are newer than the first good one.
    flaws: Vec<String>,
}

/// Reads the newest manifests, `committed` being sorted by begin: two, and on until one is good.
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
