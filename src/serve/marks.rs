//! What the store knows of what was done last, as marks for the agenda.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::agenda::Chore;
use super::house::House;
use crate::catalog::{Record, RecordKind, keep, keep_chore, read_chore};
use crate::config::Database;
use crate::run::hostname;
use crate::upkeep::status::{Health, Standing, status};

/// A backup's id is by its host's clock; one that is further ahead than this is told by the store's.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Asks for the marks of the databases called so, of all when there are none. Of what the store does
/// not tell there is none.
pub(super) async fn ask(
    house: &House,
    names: &[String],
) -> Result<Vec<(Chore, Timestamp)>, String> {
    let now = Timestamp::now();
    let asked = status(&house.inventory, &house.asked, names, None, now).await;
    let status = asked.map_err(|error| error.to_string())?;
    for remark in &status.remarks {
        tracing::warn!("{remark}");
    }
    let mut by_entry = BTreeMap::<&str, Vec<&Standing>>::new();
    for standing in &status.databases {
        if let Some(entry) = house.inventory.entry(&standing.database) {
            by_entry.entry(&entry.name).or_default().push(standing);
        }
    }
    let mut marks = Vec::new();
    if names.is_empty() {
        marks.extend(of_stores(house, now).await);
    }
    for (name, standings) in by_entry {
        let Some(entry) = house.inventory.entry(name) else {
            continue;
        };
        // A store that does not tell is no matter where another does.
        let is_known = |one: &Standing| one.health != Health::Unknown;
        let mut by_database = BTreeMap::<&str, Vec<&Standing>>::new();
        for one in standings {
            by_database.entry(&one.database).or_default().push(one);
        }
        let silent = by_database
            .values()
            .find(|all| !all.iter().any(|one| is_known(one)));
        if let Some(unknown) = silent.and_then(|all| all.first()) {
            let why = unknown.why.as_deref().unwrap_or_default();
            tracing::warn!(
                database = name,
                "when it was backed up last is not known: {why}"
            );
            continue;
        }
        marks.push((
            Chore::Backup(name.to_owned()),
            backed_up(house, entry, &by_database, now).await,
        ));
        let looked_at = |record: fn(&Standing) -> Option<&Record>| {
            let all = by_database.values().flatten();
            let with_backup = all.filter(|one| one.last.is_some());
            let began = with_backup.filter_map(|one| {
                let record = record(one).map(|record| record.began);
                record.or_else(|| began(one, now))
            });
            began.min().unwrap_or(now)
        };
        let verify = looked_at(|one| one.last_verify.as_ref());
        marks.push((Chore::Verify(name.to_owned()), verify));
        let drill = looked_at(|one| one.last_drill.as_ref());
        marks.push((Chore::Drill(name.to_owned()), drill));
    }
    Ok(marks)
}

/// When what is done for whole stores was done last in all of them. Where that is not known it
/// counts from now on, which is kept, so that it is not missed for good by who ends before.
async fn of_stores(house: &House, now: Timestamp) -> Vec<(Chore, Timestamp)> {
    let settings = &house.inventory.serve;
    let wanted = [
        (Chore::Prune, &settings.prune),
        (Chore::Cleanup, &settings.cleanup),
    ];
    let mut marks = Vec::new();
    for (chore, _) in wanted.into_iter().filter(|(_, at)| at.is_some()) {
        let (name, mut oldest) = (chore.describe(), Some(now));
        for (called, store) in &house.asked {
            match read_chore(&**store, &name).await {
                Ok(Some(began)) => oldest = oldest.min(Some(began)),
                Ok(None) => keep_chore(&**store, &name, now).await,
                Err(error) => {
                    tracing::warn!(
                        "store {called}: when {name} was done last is not known: {error}"
                    );
                    oldest = None;
                }
            }
        }
        marks.extend(oldest.map(|mark| (chore, mark)));
    }
    marks
}

/// When the last backup of a database began.
fn began(one: &Standing, now: Timestamp) -> Option<Timestamp> {
    let last = one.last.as_ref()?;
    if last.began <= now + SKEW {
        return Some(last.began);
    }
    let age = SignedDuration::from_secs(i64::try_from(last.age_seconds).ok()?);
    now.checked_sub(age).ok()
}

/// When all databases of an entry were backed up last, or tried to be. The first backup of one is
/// waited for from when it was first seen, which is kept in the store.
async fn backed_up(
    house: &House,
    entry: &Database,
    by_database: &BTreeMap<&str, Vec<&Standing>>,
    now: Timestamp,
) -> Timestamp {
    let mut oldest = None::<Timestamp>;
    for (database, standings) in by_database {
        // In whichever of its stores it was.
        let in_store = |one: &&Standing| {
            let failed = one.last_failure.as_ref().map(|failure| failure.began);
            began(one, now).max(failed)
        };
        let known = standings.iter().filter_map(in_store).max();
        let known = known.or_else(|| standings.iter().filter_map(|one| one.awaited).min());
        if known.is_none() {
            let stores = entry.stores.iter().filter_map(|name| house.asked.get(name));
            for store in stores {
                let kind = RecordKind::Awaited;
                keep(&**store, Record::new(kind, database, hostname(), now)).await;
            }
        }
        let mark = known.unwrap_or(now);
        oldest = Some(oldest.map_or(mark, |oldest| oldest.min(mark)));
    }
    oldest.unwrap_or(now)
}
