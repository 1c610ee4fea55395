//! Many jobs: semaphores, cancellation, the report. [`run`] carries out what [`plan`] has decided.

pub mod plan;
pub mod resources;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::archive::Cores;
use crate::catalog::{BackupId, Manifest, Mode, Retention};
use crate::job::places::Places;
use crate::job::{self, BackupError};
use crate::meter::{Busy, Phase, Step};
use crate::run::plan::{Plan, Planned, PlannedJob};
use crate::run::resources::Resources;
use crate::staged::{self, Staging};
use crate::upkeep;

/// What a run did. Serialised as the report, version 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunReport {
    /// Version of the report's format.
    pub version: u32,
    /// `streamed` or `staged`.
    pub mode: Mode,
    /// When the run began.
    pub started: Timestamp,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What it took from the machine.
    pub resources: Resources,
    /// The jobs, in the plan's order.
    pub jobs: Vec<JobReport>,
}

/// What became of one job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobReport {
    /// Name of the database in the inventory.
    pub database: String,
    /// Its engine.
    pub engine: String,
    /// Address of its store.
    pub store: String,
    /// The dump's format, as the manifest says it; absent when the job could not begin.
    pub dump_format: Option<String>,
    /// `stored`, `failed` or `cancelled`.
    pub result: JobResult,
    /// The backup, when there is one.
    pub backup_id: Option<BackupId>,
    /// Why there is none.
    pub error: Option<String>,
    /// Keys of the objects that were stored, the manifest last.
    pub objects: Vec<String>,
    /// Dump bytes read.
    pub dump_bytes: u64,
    /// Archive bytes stored.
    pub archive_bytes: u64,
    /// How long it took, in seconds, from its start (not from the run's).
    pub seconds: f64,
    /// Seconds waited for each step.
    pub waited: Waited,
    /// Store operations tried again.
    pub retries: u64,
    /// Earlier backups removed after this one's success.
    pub pruned: usize,
    /// Why pruning failed, although the backup is stored.
    pub prune_error: Option<String>,
    /// When each step was busy, in seconds from the run's start.
    pub busy: Vec<Busy>,
}

/// Seconds waited for each step; the largest is what bounded the job.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Waited {
    /// For the dump tool's next bytes.
    pub dump: f64,
    /// For compression.
    pub encode: f64,
    /// For the store.
    pub upload: f64,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobResult {
    /// The backup exists.
    Stored,
    /// There is no backup, and an error says why.
    Failed,
    /// The run was interrupted before the job was over.
    Cancelled,
}

/// Carries out a plan. Returns when every job is over; when `cancel` fires, jobs are ended, their
/// children killed and their uploads aborted first.
pub async fn run(plan: &Plan, cancel: CancellationToken) -> RunReport {
    let started = Timestamp::now() - plan.epoch.elapsed();
    let way = Arc::new(Way::begin(plan));
    let mut hosts: HashMap<&str, Arc<Semaphore>> = HashMap::new();
    let mut running = JoinSet::new();
    for (at, planned) in plan.jobs.iter().enumerate() {
        let on_host = Arc::new(Semaphore::new(plan.settings.jobs_per_host));
        let on_host = planned
            .host
            .as_deref()
            .map(|host| hosts.entry(host).or_insert(on_host).clone());
        let (job, policy, way, cancel) = (
            planned.job.clone(),
            planned.prune,
            way.clone(),
            cancel.clone(),
        );
        running.spawn(async move {
            let job = match job {
                Ok(job) => job,
                Err(error) => {
                    return (
                        at,
                        Err(Ended::Failed(error)),
                        Duration::ZERO,
                        Pruned::default(),
                    );
                }
            };
            let (result, seconds) = way.carry_out(&job, on_host, &cancel).await;
            // Pruning takes no place from the jobs that wait.
            let pruned = match (&result, policy) {
                (Ok(_), Some(policy)) => prune(&job.job, &policy, &cancel).await,
                _ => Pruned::default(),
            };
            (at, result.map_err(Ended::from), seconds, pruned)
        });
    }
    let mut reports: Vec<Option<JobReport>> = plan.jobs.iter().map(|_| None).collect();
    while let Some(done) = running.join_next().await {
        // A job that panicked has no report yet and gets one below.
        if let Ok((at, result, time, pruned)) = done {
            plan.jobs[at].meter.set_phase(Phase::Done);
            let report = report(&plan.jobs[at], result, time, pruned);
            log(&report);
            reports[at] = Some(report);
        }
    }
    let jobs = reports.into_iter().zip(&plan.jobs).map(|(made, planned)| {
        let broke_down = Ended::Failed("the job broke down".into());
        made.unwrap_or_else(|| report(planned, Err(broke_down), Duration::ZERO, Pruned::default()))
    });
    RunReport {
        version: 1,
        mode: plan.settings.mode,
        started,
        jobs: jobs.collect(),
        seconds: plan.epoch.elapsed().as_secs_f64(),
        resources: Resources::taken(way.peak_temp_disk()),
    }
}

/// How a run's jobs are done, and what they share.
enum Way {
    Streamed { cores: Cores, places: Places },
    Staged(Result<Staging, String>),
}

impl Way {
    fn begin(plan: &Plan) -> Self {
        match plan.settings.mode {
            Mode::Streamed => {
                let places = Places::new(plan.settings.jobs.min(plan.jobs.len()));
                Self::Streamed {
                    cores: Cores::all(),
                    places,
                }
            }
            Mode::Staged => {
                Self::Staged(Staging::begin(&plan.staged).map_err(|error| error.to_string()))
            }
        }
    }

    /// One job, and how long it took from its own beginning.
    async fn carry_out(
        &self,
        PlannedJob { job, staged }: &PlannedJob,
        on_host: Option<Arc<Semaphore>>,
        cancel: &CancellationToken,
    ) -> (Result<Manifest, BackupError>, Duration) {
        let (cores, places) = match (self, staged) {
            (Way::Streamed { cores, places }, _) => (cores, places),
            (Way::Staged(Ok(staging)), Some(dump)) => {
                return staged::backup(job, dump, staging, on_host, cancel).await;
            }
            (Way::Staged(Err(error)), _) => {
                return (Err(BackupError::Disk(error.clone())), Duration::ZERO);
            }
            (Way::Staged(Ok(_)), None) => unreachable!("a staged run's jobs are planned as such"),
        };
        // Always the host first: whoever holds a place among all jobs runs.
        let permits = async {
            let host = match on_host {
                Some(host) => Some(host.acquire_owned().await.expect("never closed")),
                None => None,
            };
            (host, places.take().await)
        };
        let (_host, place) = tokio::select! {
            biased;
            () = cancel.cancelled() => return (Err(BackupError::Cancelled), Duration::ZERO),
            permits = permits => permits,
        };
        job.meter.set_worker(place.number);
        let start = Instant::now();
        tracing::info!(database = job.database, "backup begins");
        (
            job::backup(job, &BackupId::now(), cores, cancel).await,
            start.elapsed(),
        )
    }

    fn peak_temp_disk(&self) -> u64 {
        match self {
            Way::Staged(Ok(staging)) => staging.peak(),
            Way::Staged(Err(_)) | Way::Streamed { .. } => 0,
        }
    }
}

/// What pruning after a success has done.
#[derive(Default)]
struct Pruned {
    backups: usize,
    error: Option<String>,
}

async fn prune(job: &job::Job, policy: &Retention, cancel: &CancellationToken) -> Pruned {
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => return Pruned { backups: 0, error: Some("interrupted before it was over".into()) },
        result = upkeep::prune::prune(&*job.store, &job.database, policy) => result,
    };
    match result {
        Ok(removed) => Pruned {
            backups: removed.backups,
            error: (!removed.failures.is_empty()).then(|| removed.failures.join("; ")),
        },
        Err(error) => Pruned {
            backups: 0,
            error: Some(error.to_string()),
        },
    }
}

/// How a job without a backup ended.
enum Ended {
    Failed(String),
    Cancelled,
}

impl From<BackupError> for Ended {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Cancelled => Ended::Cancelled,
            error => Ended::Failed(error.to_string()),
        }
    }
}

fn log(report: &JobReport) {
    let JobReport {
        database,
        seconds,
        dump_bytes,
        archive_bytes,
        ..
    } = report;
    match (&report.result, &report.error) {
        (JobResult::Stored, _) if report.prune_error.is_some() => {
            let error = report.prune_error.as_deref().unwrap_or_default();
            tracing::error!(database, "backup stored, but pruning failed: {error}");
        }
        (JobResult::Stored, _) => tracing::info!(
            database,
            seconds,
            dump_bytes,
            archive_bytes,
            "backup stored"
        ),
        (JobResult::Cancelled, _) => tracing::warn!(database, "backup cancelled"),
        (JobResult::Failed, error) => tracing::error!(
            database,
            "backup failed: {}",
            error.as_deref().unwrap_or("")
        ),
    }
}

fn report(
    planned: &Planned,
    result: Result<Manifest, Ended>,
    time: Duration,
    pruned: Pruned,
) -> JobReport {
    let meter = &planned.meter;
    let waited = |step| meter.waited(step).as_secs_f64();
    let (result, error, manifest) = match result {
        Ok(manifest) => (JobResult::Stored, None, Some(manifest)),
        Err(Ended::Failed(error)) => (JobResult::Failed, Some(error), None),
        Err(Ended::Cancelled) => (JobResult::Cancelled, None, None),
    };
    JobReport {
        database: planned.database.clone(),
        engine: planned.engine.into(),
        store: planned.store.clone(),
        dump_format: planned
            .job
            .as_ref()
            .ok()
            .map(|planned| planned.job.dump_format.clone()),
        result,
        error,
        backup_id: manifest.as_ref().map(|manifest| manifest.backup_id.clone()),
        objects: manifest.as_ref().map(Manifest::keys).unwrap_or_default(),
        dump_bytes: meter.dump_bytes(),
        archive_bytes: meter.archive_bytes(),
        seconds: time.as_secs_f64(),
        waited: Waited {
            dump: waited(Step::Dump),
            encode: waited(Step::Encode),
            upload: waited(Step::Upload),
        },
        retries: meter.retries(),
        pruned: pruned.backups,
        prune_error: pruned.error,
        busy: meter.busy_spans(),
    }
}
