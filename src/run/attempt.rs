//! One database from its place in the queue to its report, again from the start where its dump
//! failed for what may pass.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::board::TrackedJob;
use super::prepare::{PreparedJob, prepare};
use super::report::{JobOutcome, JobReport, Pruned};
use super::turn::Turn;
use super::{Pipeline, Run, hostname};
use crate::archive::Cores;
use crate::catalog::{self, BackupId, Found};
use crate::config::Database;
use crate::hooks::{self, HookPoint};
use crate::job::places::{Places, pass};
use crate::job::{self, Failure, FailureKind, JobError, JobStore};
use crate::meter::Phase;
use crate::staged::{self, PreparedStaged, Staging};

/// How long after a failed dump the next try begins; twice as long after each, 64 s at most: what a
/// server needs to come up again.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

impl Run {
    /// One database from its place in the queue to its report. `error` is why it cannot be.
    pub(super) async fn job(&self, entry: &Database, error: Option<JobError>) -> JobReport {
        let store = self
            .plan
            .stores
            .get(&entry.stores[0])
            .map(|store| store.address());
        let tracked = self
            .board
            .add(entry, store.unwrap_or_default(), self.plan.epoch);
        let outcome = if let Some(error) = error {
            JobOutcome::not_begun(error.describe(None))
        } else {
            let outcome = self.tries(entry, &tracked).await;
            // Pruning takes no place from the jobs that wait.
            self.prune(entry, outcome).await
        };
        self.note_dropped(entry, &outcome);
        tracked.meter.set_phase(Phase::Done);
        let report = outcome.report(&tracked);
        report.log();
        self.keep_failure(entry, &report).await;
        report
    }

    /// One database, again from the start as long as its dump fails for what may pass.
    async fn tries(&self, entry: &Database, tracked: &TrackedJob) -> JobOutcome {
        let mut failed = Vec::new();
        let mut before: Option<(Option<Timestamp>, Duration)> = None;
        loop {
            let mut outcome = match &self.pipeline {
                Pipeline::Streamed { cores, places } => {
                    self.streamed(entry, tracked, cores, places).await
                }
                Pipeline::Staged(staging) => Box::pin(self.staged(entry, tracked, staging)).await,
                Pipeline::Broken(error) => {
                    JobOutcome::not_begun(JobError::Disk(error.clone()).describe(None))
                }
            };
            if let Some((started, took)) = before {
                outcome.started = started.or(outcome.started);
                outcome.took += took;
            }
            let tries = u32::try_from(failed.len()).unwrap_or(u32::MAX);
            let again = match &outcome.result {
                Err(failure) if failure.may_heal && tries < entry.retries => failure.clone(),
                _ => {
                    outcome.failed_tries = failed;
                    return outcome;
                }
            };
            let pause = RETRY_PAUSE * 2u32.saturating_pow(tries.min(5));
            let (database, left) = (&entry.name, entry.retries - tries);
            tracing::warn!(
                database,
                "the dump failed, and is run again from the start in {} s ({left} of {} retries \
                 left): {}",
                pause.as_secs(),
                entry.retries,
                again.message
            );
            let wait = tokio::time::sleep(pause);
            if self
                .interruption
                .cancel
                .run_until_cancelled(wait)
                .await
                .is_none()
            {
                outcome.failed_tries = failed;
                return outcome;
            }
            failed.push(again);
            before = Some((outcome.started, outcome.took + pause));
            tracked.meter.begin_again();
        }
    }

    async fn streamed(
        &self,
        entry: &Database,
        tracked: &TrackedJob,
        cores: &Cores,
        places: &Places,
    ) -> JobOutcome {
        // Always the host first: whoever holds a place among all jobs runs.
        let wait = async {
            (
                pass(self.hosts.of(entry).as_ref(), self.hosts.taken_by(entry)).await,
                places.take().await,
            )
        };
        let Some((_host, place)) = self.interruption.cancel.run_until_cancelled(wait).await else {
            return JobOutcome::not_begun(JobError::Cancelled.describe(None));
        };
        tracked.meter.set_worker(place.number);
        let (started, start, id) = (Timestamp::now(), Instant::now(), BackupId::now());
        let mut warnings = Vec::new();
        let mut has_begun = false;
        let mut turn = Turn::new(&self.interruption);
        let interruption = turn.interruption.clone();
        let work = async {
            let begun = self.begin(entry, tracked, &id, &mut warnings, &mut turn);
            let PreparedJob { job, .. } = begun.await?;
            has_begun = true;
            job::back_up(job, id.clone(), cores, &interruption).await
        };
        let result = AssertUnwindSafe(Box::pin(work)).catch_unwind().await;
        let result = match result {
            Ok(result) => result,
            Err(panic) => Err(broke_down(&*panic, has_begun)),
        };
        JobOutcome {
            result: turn.end(self, result).await,
            started: Some(started),
            took: start.elapsed(),
            warnings,
            failed_tries: Vec::new(),
            pruned: Pruned::default(),
        }
    }

    async fn staged(
        &self,
        entry: &Database,
        tracked: &TrackedJob,
        staging: &Staging,
    ) -> JobOutcome {
        let (mut started, mut warnings, id) = (None, Vec::new(), BackupId::now());
        let mut has_begun = false;
        let mut turn = Turn::new(&self.interruption);
        let interruption = turn.interruption.clone();
        let begin = async {
            started = Some((Timestamp::now(), Instant::now()));
            let begun = self.begin(entry, tracked, &id, &mut warnings, &mut turn);
            let prepared = begun.await?;
            has_begun = true;
            let PreparedJob {
                job,
                staged: Some(dump),
                ..
            } = prepared
            else {
                let error = JobError::Disk("this engine has no staged dump".into());
                return Err(error.describe(None));
            };
            Ok(PreparedStaged { job, dump })
        };
        let host = self.hosts.of(entry);
        let meter = &tracked.meter;
        let work = staged::back_up(begin, meter, &id, staging, host, &interruption);
        let result = match AssertUnwindSafe(Box::pin(work)).catch_unwind().await {
            Ok(result) => result,
            Err(panic) => Err(broke_down(&*panic, has_begun)),
        };
        let (started, took) = match started {
            Some((started, start)) => (Some(started), start.elapsed()),
            None => (None, Duration::ZERO),
        };
        JobOutcome {
            result: turn.end(self, result).await,
            started,
            took,
            warnings,
            failed_tries: Vec::new(),
            pruned: Pruned::default(),
        }
    }

    /// Finds out what the job needs, and takes the lease of its database.
    async fn begin(
        &self,
        entry: &Database,
        tracked: &TrackedJob,
        id: &BackupId,
        warnings: &mut Vec<String>,
        turn: &mut Turn,
    ) -> Result<PreparedJob, Failure> {
        tracing::info!(database = entry.name, %id, "backup begins");
        tracked.meter.set_phase(Phase::Preparing);
        let work = async {
            let prepared = prepare(&self.plan, entry, &tracked.meter).await?;
            let known = &prepared.job.warnings;
            // Better now than after the dump.
            if prepared.job.strict && !known.is_empty() {
                return Err(JobError::Warned(known.clone()));
            }
            turn.left_out.clone_from(&prepared.left_out);
            let leased = turn.take_leases(&prepared.job, id, warnings).await?;
            self.is_still_due(entry, &leased).await?;
            turn.after = Some(about(entry, id));
            let before = about(entry, id);
            let called = hooks::call(&self.plan.hooks, HookPoint::Before, before, Duration::MAX);
            called.await.map_err(|message| {
                let kind = FailureKind::Hook;
                JobError::Plan { kind, message }
            })?;
            Ok(prepared)
        };
        let prepared = self.interruption.cancel.run_until_cancelled(work).await;
        let Some(prepared) = prepared else {
            return Err(JobError::Cancelled.describe(None));
        };
        prepared.map_err(|error| error.describe(None))
    }

    /// What is due since an instant may have been done by another host in the meantime.
    async fn is_still_due(&self, entry: &Database, stores: &[&JobStore]) -> Result<(), JobError> {
        let mut due = self.plan.due.iter();
        let of_entry = |name: &str| name == entry.name || is_below(&entry.name, name);
        let Some((_, due)) = due.find(|(name, _)| of_entry(name)) else {
            return Ok(());
        };
        let each = stores
            .iter()
            .map(|one| catalog::find(&*one.store, Some(&entry.name)));
        let mut answers = join_all(each).await;
        // With several stores one that answers is enough.
        if !answers.iter().any(Result::is_ok) {
            return answers.swap_remove(0).map(drop).map_err(JobError::from);
        }
        let mut found = answers.into_iter().flatten().flatten();
        let is_since = |found: &Found| found.id.time() >= *due && !found.is_ahead();
        match found.find(|found| found.is_committed() && is_since(found)) {
            None => Ok(()),
            Some(found) => Err(JobError::Plan {
                kind: FailureKind::Busy,
                message: format!("it has been backed up meanwhile: {}", found.id),
            }),
        }
    }
}

/// The program failed where nothing is stored, or, with a job that `has_begun`, in ending it: what
/// it fails with in between is the job's own failure.
fn broke_down(panic: &(dyn Any + Send), has_begun: bool) -> Failure {
    let left = has_begun.then(|| {
        "the program broke down at the end of the job: something may be left; `tapline cleanup \
         --older-than 1h --confirm` removes it"
            .into()
    });
    JobError::panicked(panic).describe(left)
}

/// What a database's hooks are told.
fn about(entry: &Database, id: &BackupId) -> Value {
    json!({
        "version": 1,
        "host": hostname(),
        "database": entry.name,
        "engine": entry.engine.name(),
        "store": entry.stores[0],
        "stores": entry.stores,
        "backup_id": id,
    })
}

/// Whether a database was found on the server of the entry called `name`.
fn is_below(database: &str, name: &str) -> bool {
    let rest = database.strip_prefix(name);
    rest.is_some_and(|rest| rest.starts_with('/'))
}
