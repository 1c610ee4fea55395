//! A chore, from its begin to its outcome.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::agenda::{Chore, Outcome};
use super::house::House;
use super::page::Live;
use crate::catalog::{BackupName, keep_chore};
use crate::job::{FailureKind, Interruption};
use crate::notify::{Event, Notice, RunEnd, Teller, tell};
use crate::restore::Stored;
use crate::run::{Board, JobReport, RunReport, hostname, run_in};
use crate::upkeep::verify::{Candidates, Depth, candidates, verify_and_keep};
use crate::upkeep::{UpkeepError, cleanup, prune, stored};

/// Leftovers are older than this, as for `tapline cleanup`.
const LEFTOVERS: std::time::Duration = std::time::Duration::from_hours(24);

/// Backs up what is due, in one run, and tells who is to be told. What another host is at, or has
/// done since it was due, is not told of.
pub(super) async fn back_up(
    house: &House,
    due: BTreeMap<String, Timestamp>,
    interruption: Interruption,
    words: fn(&RunReport) -> String,
    live: &Live,
) -> Vec<(Chore, Outcome)> {
    let names: Vec<String> = due.keys().cloned().collect();
    let all = |outcome| {
        let each = names.iter().cloned().map(Chore::Backup);
        each.map(|chore| (chore, outcome)).collect()
    };
    let plan = match house.plan() {
        Ok(plan) => plan.of(due),
        Err(error) => {
            tracing::error!("{error}");
            return all(Outcome::Failed);
        }
    };
    let teller = Teller::begin(&house.inventory);
    let board = Arc::<Board>::default();
    live.watch(&board);
    let mut report = run_in(&house.workshop, Arc::new(plan), board, interruption).await;
    let outcomes = names.iter().map(|name| {
        let covers = |job: &&JobReport| {
            let entry = house.inventory.entry(&job.database);
            entry.is_some_and(|entry| entry.name == *name)
        };
        let outcome = outcome(report.jobs.iter().filter(covers));
        (Chore::Backup(name.clone()), outcome)
    });
    let outcomes = outcomes.collect();
    let is_busy = |job: &JobReport| kind(job) == Some(FailureKind::Busy);
    report.jobs.retain(|job| !is_busy(job));
    live.remember(&report);
    if let Some(teller) = teller {
        let words = words(&report);
        for error in teller.end(&RunEnd::Report(&report, words)).await {
            tracing::warn!("{error}");
        }
    }
    outcomes
}

fn kind(job: &JobReport) -> Option<FailureKind> {
    job.failure.as_ref().map(|failure| failure.kind)
}

/// What the jobs of one entry came to. One that is begun anew leaves out what was stored in between.
fn outcome<'a>(jobs: impl Iterator<Item = &'a JobReport>) -> Outcome {
    let kinds: Vec<FailureKind> = jobs.filter_map(kind).collect();
    let any = |some: &[FailureKind]| kinds.iter().any(|kind| some.contains(kind));
    if any(&[FailureKind::StoreUnreachable]) {
        Outcome::Away
    } else if any(&[FailureKind::Busy]) {
        Outcome::Busy
    } else if any(&[
        FailureKind::Source,
        FailureKind::Dump,
        FailureKind::Hook,
        FailureKind::Stalled,
        FailureKind::StoreRefused,
        FailureKind::Internal,
    ]) {
        Outcome::Failed
    } else {
        Outcome::Over
    }
}

/// Everything but backups. What goes wrong is told.
pub(super) async fn look_after(
    house: &House,
    chore: &Chore,
    cancel: &CancellationToken,
) -> Outcome {
    let work = async {
        match chore {
            Chore::Verify(name) => read_back(house, name, Depth::Read, cancel).await,
            Chore::Drill(name) => read_back(house, name, Depth::Drill, cancel).await,
            Chore::Prune => prune_all(house).await,
            Chore::Cleanup => clean_up(house).await,
            Chore::Backup(_) => Ok(Vec::new()),
        }
    };
    let began = Timestamp::now();
    let done = match chore {
        // These end in order by themselves.
        Chore::Verify(_) | Chore::Drill(_) => Some(work.await),
        _ => cancel.run_until_cancelled(work).await,
    };
    let (wrong, outcome) = match done {
        None => return Outcome::Over,
        Some(Ok(wrong)) => (wrong, Outcome::Over),
        Some(Err(UpkeepError::Store { store, error, .. })) => {
            let outcome = if error.may_pass() {
                Outcome::Away
            } else {
                Outcome::Failed
            };
            (vec![format!("store {store}: {error}")], outcome)
        }
        Some(Err(error)) => (vec![error.to_string()], Outcome::Failed),
    };
    if let (Outcome::Over, Chore::Prune | Chore::Cleanup) = (outcome, chore) {
        for store in house.patient.values() {
            keep_chore(&**store, &chore.describe(), began).await;
        }
    }
    if wrong.is_empty() || cancel.is_cancelled() {
        tracing::info!("done: {}", chore.describe());
        return outcome;
    }
    let (host, wrong) = (hostname(), wrong.join("\n"));
    tracing::error!("{}: {wrong}", chore.describe());
    let words = format!("tapline on {host}: {} failed\n\n{wrong}", chore.describe());
    let notice = Notice::new(Event::Failure, host, &words);
    for error in tell(&house.inventory.notify, &notice).await {
        tracing::warn!("{error}");
    }
    outcome
}

/// Reads back the latest backup of each database of an entry, and returns what is wrong.
async fn read_back(
    house: &House,
    name: &str,
    depth: Depth,
    cancel: &CancellationToken,
) -> Result<Vec<String>, UpkeepError> {
    let House {
        inventory, patient, ..
    } = house;
    let of = BackupName {
        database: name.to_owned(),
        id: None,
    };
    let own = inventory.entry(name);
    let mut places = patient.clone();
    places.retain(|store, _| own.is_some_and(|entry| entry.goes_to(store)));
    let Candidates { backups, .. } = candidates(inventory, &places, Some(&of), false).await?;
    let mut wrong = Vec::new();
    for backup in &backups {
        let stored = match &backup.manifest {
            Ok(manifest) => {
                let (place, manifest) = (backup.place.clone(), manifest.clone());
                Ok(stored(place, manifest, &inventory.run, Arc::default()))
            }
            Err(error) => Err(error.clone()),
        };
        // Who only locks cannot restore: every byte is still read.
        let is_sealed = |stored: &Arc<Stored>| stored.manifest.archive.encryption.is_some();
        let depth = match &stored {
            Ok(one) if is_sealed(one) => Depth::Read,
            _ => depth,
        };
        match verify_and_keep(inventory, backup, stored, depth, cancel).await {
            Ok(_) => {}
            Err(error) => wrong.push(format!("{}: {error}", backup.name())),
        }
        if cancel.is_cancelled() {
            break;
        }
    }
    Ok(wrong)
}

async fn prune_all(house: &House) -> Result<Vec<String>, UpkeepError> {
    let plan = prune::plan(&house.inventory, &house.patient, &[], None, None).await?;
    let removed = plan.carry_out().await;
    tracing::info!(backups = removed.backups, bytes = removed.bytes, "pruned");
    let mut wrong = removed.failures;
    wrong.extend(plan.several_sources());
    Ok(wrong)
}

async fn clean_up(house: &House) -> Result<Vec<String>, UpkeepError> {
    let mut wrong = Vec::new();
    for (name, store) in &house.patient {
        let now = Timestamp::now().as_second();
        let plan = cleanup::plan(&**store, LEFTOVERS, now).await;
        let plan = plan.map_err(UpkeepError::of_store(name, &**store))?;
        let removed = plan.leftovers.len();
        wrong.extend(plan.unread);
        wrong.extend(cleanup::remove(&**store, &plan.leftovers).await);
        tracing::info!(store = name, removed, "cleaned up");
    }
    Ok(wrong)
}
