//! Many jobs: places, interruption, the report.
//!
//! | file | role |
//! |---|---|
//! | this | [`run`]: a place for each job, one after the other or side by side |
//! | [`plan`] | what the inventory says is to be done |
//! | [`memory`] | how much of it there is |
//! | [`prepare`](mod@prepare) | from an entry to its jobs: what only the servers know |
//! | [`lease`] | one run of a database at a time |
//! | [`turn`] | a job's turn at its database: its leases, the hook after it |
//! | [`workshop`] | places and cores, shared by runs that go on at once |
//! | [`board`] | the jobs, for whoever looks on |
//! | [`report`] | what came of it |

mod board;
mod lease;
mod memory;
pub mod plan;
pub mod prepare;
pub mod report;
pub mod resources;
mod turn;
mod workshop;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt, stream};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::archive::Cores;
use crate::catalog::{self, BackupId, Mode, Record, RecordKind, Retention};
use crate::config::{Database, Selection};
use crate::hooks::{self, HookPoint};
use crate::job::places::{Places, pass};
use crate::job::{self, Committed, Failure, FailureKind, Interruption, JobError, StoreEnd};
use crate::meter::Phase;
use crate::staged::{self, PreparedStaged, Staging};
use crate::store::retry::{RetryPolicy, Retrying};
use crate::upkeep;
pub use board::{Board, TrackedJob};
pub use plan::Plan;
use prepare::{PreparedJob, discover, prepare};
use report::{JobOutcome, Pruned};
pub use report::{JobReport, JobResult, RunReport, Waited};
use resources::Resources;
use turn::Turn;
use workshop::Hosts;
pub use workshop::Workshop;

/// How long after a failed dump the next try begins; twice as long after each, 64 s at most: what a
/// server needs to come up again.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Container engines kill after 10 seconds, most of which erasing may take.
const HOOK_WHEN_INTERRUPTED: Duration = Duration::from_secs(2);
/// Servers asked at once by a dry run.
const ASKED_AT_ONCE: usize = 16;

/// Carries out a plan. Returns when every job is over; when it is interrupted, jobs are ended,
/// their children killed and what they have stored is taken away first. What is being committed is
/// not interrupted.
pub async fn run(plan: Arc<Plan>, board: Arc<Board>, interruption: Interruption) -> RunReport {
    let workshop = Workshop::new(&plan.settings, plan.at_once);
    run_in(&workshop, plan, board, interruption).await
}

/// The same beside other runs, with whom it shares places and cores.
pub async fn run_in(
    workshop: &Workshop,
    plan: Arc<Plan>,
    board: Arc<Board>,
    interruption: Interruption,
) -> RunReport {
    let started = Timestamp::now();
    let run = Arc::new(Run {
        pipeline: Pipeline::begin(&plan, workshop),
        hosts: workshop.hosts.clone(),
        plan,
        board,
        interruption,
    });
    let refused = run.before_run().await;
    let mut running = JoinSet::new();
    for (at, entry) in run.plan.entries.iter().enumerate() {
        let (run, entry, refused) = (run.clone(), entry.clone(), refused.clone());
        running.spawn(async move {
            let reports = match refused {
                None => run.entry(&entry).await,
                Some(message) => {
                    let kind = FailureKind::Hook;
                    vec![
                        run.job(&entry, Some(JobError::Plan { kind, message }))
                            .await,
                    ]
                }
            };
            (at, reports)
        });
    }
    let mut reports: Vec<Vec<JobReport>> = Vec::new();
    reports.resize_with(run.plan.entries.len(), Vec::new);
    while let Some(done) = running.join_next().await {
        // What can panic in a job is caught there.
        if let Ok((at, of_entry)) = done {
            reports[at] = of_entry;
        }
    }
    let report = RunReport {
        version: 1,
        tapline: env!("CARGO_PKG_VERSION").into(),
        host: hostname(),
        mode: run.plan.settings.mode,
        started,
        jobs: reports.into_iter().flatten().collect(),
        seconds: run.plan.epoch.elapsed().as_secs_f64(),
        resources: Resources::taken(run.pipeline.peak_temp_disk()),
    };
    run.after_run(&report).await;
    report
}

/// What a run would do, found out for all databases at once: starts no dump and writes nothing.
pub async fn dry_run(plan: &Plan) -> Vec<(Database, Result<PreparedJob, JobError>)> {
    let of_entry = async |entry: &Database| {
        let found = match discover(plan, entry).await {
            Ok(found) => found,
            Err(error) => vec![(entry.clone(), Some(error))],
        };
        let prepared = found.into_iter().map(async |(one, error)| {
            let prepared = match error {
                Some(error) => Err(error),
                None => prepare(plan, &one, &Arc::default()).await,
            };
            (one, prepared)
        });
        stream::iter(prepared)
            .buffered(ASKED_AT_ONCE)
            .collect::<Vec<_>>()
            .await
    };
    let all = stream::iter(plan.entries.iter().map(of_entry)).buffered(ASKED_AT_ONCE);
    all.collect::<Vec<_>>()
        .await
        .into_iter()
        .flatten()
        .collect()
}

/// What the jobs of a run share.
struct Run {
    plan: Arc<Plan>,
    board: Arc<Board>,
    pipeline: Pipeline,
    hosts: Arc<Hosts>,
    interruption: Interruption,
}

/// How jobs are done.
enum Pipeline {
    Streamed {
        cores: Cores,
        places: Places,
    },
    Staged(Staging),
    /// A staged run whose folder cannot be made.
    Broken(String),
}

impl Pipeline {
    fn begin(plan: &Plan, workshop: &Workshop) -> Self {
        match plan.settings.mode {
            Mode::Streamed => Self::Streamed {
                cores: workshop.cores.clone(),
                places: workshop.places.clone(),
            },
            Mode::Staged => match Staging::begin(&plan.staged) {
                Ok(staging) => Self::Staged(staging),
                Err(error) => Self::Broken(error.to_string()),
            },
        }
    }

    fn peak_temp_disk(&self) -> u64 {
        match self {
            Self::Staged(staging) => staging.peak(),
            Self::Streamed { .. } | Self::Broken(_) => 0,
        }
    }
}

impl Run {
    /// One entry: one job, or one for each database that its server has.
    async fn entry(self: &Arc<Self>, entry: &Database) -> Vec<JobReport> {
        if !matches!(entry.database, Selection::All { .. }) {
            return vec![self.job(entry, None).await];
        }
        let found = {
            let ask = async {
                let _on_host = pass(self.hosts.of(entry).as_ref(), 1).await;
                discover(&self.plan, entry).await
            };
            let asked = self.interruption.cancel.run_until_cancelled(ask).await;
            asked.unwrap_or(Err(JobError::Cancelled))
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => return vec![self.job(entry, Some(error)).await],
        };
        let mut running = JoinSet::new();
        for (at, (one, error)) in found.into_iter().enumerate() {
            let run = self.clone();
            running.spawn(async move { (at, run.job(&one, error).await) });
        }
        let mut reports = running.join_all().await;
        reports.sort_by_key(|(at, _)| *at);
        reports.into_iter().map(|(_, report)| report).collect()
    }

    /// The hook before the run; why there is to be none.
    async fn before_run(&self) -> Option<String> {
        let names: Vec<&str> = self
            .plan
            .entries
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        let about = json!({ "version": 1, "host": hostname(), "databases": names });
        let hook = hooks::call(&self.plan.hooks, HookPoint::BeforeRun, about, Duration::MAX);
        let called = self.interruption.cancel.run_until_cancelled(hook).await;
        called?.err()
    }

    /// The hook after the run, with its report.
    async fn after_run(&self, report: &RunReport) {
        if !hooks::is_set(&self.plan.hooks, HookPoint::AfterRun) {
            return;
        }
        let count = |result| {
            report
                .jobs
                .iter()
                .filter(|job| job.result == result)
                .count()
        };
        let mut about = serde_json::to_value(report).unwrap_or_default();
        about["stored"] = count(JobResult::Stored).into();
        about["failed"] = count(JobResult::Failed).into();
        about["cancelled"] = count(JobResult::Cancelled).into();
        let called = hooks::call(
            &self.plan.hooks,
            HookPoint::AfterRun,
            about,
            self.for_hooks(),
        );
        if let Err(error) = called.await {
            tracing::warn!("{error}");
        }
    }

    /// How long a hook may take that comes after: not long when the run is being ended.
    fn for_hooks(&self) -> Duration {
        if self.interruption.cancel.is_cancelled() {
            HOOK_WHEN_INTERRUPTED
        } else {
            Duration::MAX
        }
    }

    /// One database from its place in the queue to its report. `error` is why it cannot be.
    async fn job(&self, entry: &Database, error: Option<JobError>) -> JobReport {
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
        self.note_dropped(&outcome);
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

    /// Keeps a failure in the store, for `status` on any host.
    async fn keep_failure(&self, entry: &Database, report: &JobReport) {
        let Some(failure) = &report.failure else {
            return;
        };
        // A store that did not answer just now does not take notes.
        let passed_over = [
            FailureKind::Interrupted,
            FailureKind::Busy,
            FailureKind::StoreUnreachable,
        ];
        if passed_over.contains(&failure.kind) {
            return;
        }
        let began = report.started.unwrap_or_else(Timestamp::now);
        let record = Record {
            ended: Timestamp::now(),
            good: false,
            reason: Some(report::name_of(&failure.kind)),
            message: failure.message.clone(),
            ..Record::new(RecordKind::Failure, &entry.name, hostname(), began)
        };
        let record = match entry.encryption {
            None => record,
            Some(_) => record.without_words(),
        };
        let stores = entry
            .stores
            .iter()
            .filter_map(|name| self.plan.stores.get(name));
        join_all(stores.map(|store| catalog::keep(&**store, record.clone()))).await;
    }

    /// A store that others have waited for in vain is not waited for so long in the jobs to come.
    fn note_dropped(&self, outcome: &JobOutcome) {
        let Ok(Committed { stores, .. }) = &outcome.result else {
            return;
        };
        for StoreEnd { name, failure, .. } in stores {
            let kind = failure.as_ref().map(|failure| failure.kind);
            let is_away = kind == Some(FailureKind::StoreUnreachable);
            self.plan.dropped.note(name, is_away);
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
            turn.take_leases(&prepared.job, id, warnings).await?;
            self.is_still_due(entry, &prepared).await?;
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
    async fn is_still_due(&self, entry: &Database, prepared: &PreparedJob) -> Result<(), JobError> {
        let mut due = self.plan.due.iter();
        let of_entry = |name: &str| name == entry.name || is_below(&entry.name, name);
        let Some((_, due)) = due.find(|(name, _)| of_entry(name)) else {
            return Ok(());
        };
        let stores = &prepared.job.stores;
        let each = stores
            .iter()
            .map(|one| catalog::find(&*one.store, Some(&entry.name)));
        let mut answers = join_all(each).await;
        // With several stores one that answers is enough.
        if !answers.iter().any(Result::is_ok) {
            return answers.swap_remove(0).map(drop).map_err(JobError::from);
        }
        let mut found = answers.into_iter().flatten().flatten();
        match found.find(|found| found.is_committed() && found.id.time() >= *due) {
            None => Ok(()),
            Some(found) => Err(JobError::Plan {
                kind: FailureKind::Busy,
                message: format!("it has been backed up meanwhile: {}", found.id),
            }),
        }
    }

    /// After a success: removes what no rule keeps, in each store that has the new backup.
    async fn prune(&self, entry: &Database, mut outcome: JobOutcome) -> JobOutcome {
        let (true, Ok(Committed { stores, .. })) =
            (self.plan.settings.prune_after_backup, &outcome.result)
        else {
            return outcome;
        };
        let mut pruned = Pruned::default();
        for StoreEnd { name, failure, .. } in stores {
            let rules = self.plan.retention(entry, name);
            if failure.is_some() || rules.is_empty() {
                continue;
            }
            match self.prune_store(entry, name, &rules).await {
                Ok(backups) => pruned.backups += backups,
                Err(error) => {
                    let before = pruned.error.take().map(|before| before + "; ");
                    pruned.error = Some(before.unwrap_or_default() + &error);
                }
            }
        }
        outcome.pruned = pruned;
        outcome
    }

    async fn prune_store(
        &self,
        entry: &Database,
        name: &str,
        rules: &Retention,
    ) -> Result<usize, String> {
        let store = self.plan.stores.get(name);
        let store = store.ok_or_else(|| format!("the store {name} is not open"))?;
        let retry = RetryPolicy::lasting(self.plan.settings.retry_for);
        let store = Retrying::new(store.clone(), retry, Arc::new(|| ()));
        let trusted = &self.plan.signatures.trusted;
        let work = upkeep::prune::prune(&store, &entry.name, rules, &entry.formerly, trusted);
        match self.interruption.cancel.run_until_cancelled(work).await {
            None => Err("interrupted before it was over".into()),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(removed)) if removed.failures.is_empty() => Ok(removed.backups),
            Some(Ok(removed)) => Err(removed.failures.join("; ")),
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

/// This host's name; empty where the kernel does not tell.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
