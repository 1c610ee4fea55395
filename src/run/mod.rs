//! Many jobs: places, interruption, the report.
//!
//! | file | role |
//! |---|---|
//! | this | [`run`]: a place for each job, one after the other or side by side |
//! | [`plan`] | what the inventory says is to be done |
//! | [`memory`] | how much of it there is |
//! | [`prepare`](mod@prepare) | from an entry to its jobs: what only the servers know |
//! | [`dropped`] | the stores that a run goes on without |
//! | [`lease`] | one run of a database at a time |
//! | [`attempt`] | one database from its place in the queue to its report |
//! | [`turn`] | a job's turn at its database: its leases, the hook after it |
//! | [`aftermath`] | what follows a job: a failure is kept, what no rule keeps is removed |
//! | [`workshop`] | places and cores, shared by runs that go on at once |
//! | [`board`] | the jobs, for whoever looks on |
//! | [`report`] | what came of it |

mod aftermath;
mod attempt;
mod board;
mod dropped;
mod lease;
mod memory;
pub mod plan;
pub mod prepare;
pub mod report;
pub mod resources;
mod turn;
mod workshop;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::json;
use tokio::task::JoinSet;

use crate::archive::Cores;
use crate::catalog::Mode;
use crate::config::{Database, Selection};
use crate::hooks::{self, HookPoint};
use crate::job::places::{Places, pass};
use crate::job::{FailureKind, Interruption, JobError};
use crate::staged::Staging;
pub use board::{Board, TrackedJob};
pub use plan::Plan;
use prepare::{PreparedJob, discover, prepare};
pub use report::{JobReport, JobResult, RunReport, Waited};
use resources::Resources;
use workshop::Hosts;
pub use workshop::Workshop;

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
}

/// This host's name; empty where the kernel does not tell.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
