//! What a run did: plain data, for the table, for programs, and for pictures.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::TrackedJob;
use super::resources::Resources;
use crate::catalog::{BackupId, Manifest, Mode};
use crate::job::{Committed, Failure, FailureKind, StoreEnd};
use crate::meter::{Busy, Step};

/// What a run did. Serialised as the report, version 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunReport {
    /// Version of the report's format.
    pub version: u32,
    /// The version of tapline.
    pub tapline: String,
    /// The host that it ran on.
    pub host: String,
    /// `streamed` or `staged`.
    pub mode: Mode,
    /// When the run began.
    pub started: Timestamp,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What it took from the machine.
    pub resources: Resources,
    /// The jobs, in the inventory's order.
    pub jobs: Vec<JobReport>,
}

/// What became of one job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobReport {
    /// Name of the database in the inventory.
    pub database: String,
    /// Its engine.
    pub engine: String,
    /// Address of its store, of the one named first where it has several.
    pub store: String,
    /// What became of it in each of its stores; empty when it came to none.
    #[serde(default)]
    pub stores: Vec<StoreEnd>,
    /// The dump's format, as the manifest says it; absent when there is no backup.
    pub dump_format: Option<String>,
    /// `stored`, `copy_missing`, `failed` or `cancelled`.
    pub result: JobResult,
    /// The backup, when there is one.
    pub backup_id: Option<BackupId>,
    /// Why there is none, or none in a store, in words.
    pub error: Option<String>,
    /// Why there is none, as data.
    pub failure: Option<Failure>,
    /// What a person should know although all went well.
    pub warnings: Vec<String>,
    /// Why earlier tries of this run failed (`retries`).
    #[serde(default)]
    pub failed_tries: Vec<Failure>,
    /// Keys of the objects that were stored, the manifest last.
    pub objects: Vec<String>,
    /// Dump bytes read.
    pub dump_bytes: u64,
    /// Archive bytes stored.
    pub archive_bytes: u64,
    /// When its work began; absent when it never did.
    pub started: Option<Timestamp>,
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
#[serde(rename_all = "snake_case")]
pub enum JobResult {
    /// The backup exists, wherever it is to be.
    Stored,
    /// The backup exists, and one of its stores lacks it.
    CopyMissing,
    /// There is no backup, and an error says why.
    Failed,
    /// The run was interrupted before the job was over.
    Cancelled,
}

/// What a job came to, before it is put together with what was counted.
#[derive(Debug)]
pub(super) struct JobOutcome {
    pub result: Result<Committed, Failure>,
    pub started: Option<Timestamp>,
    pub took: Duration,
    pub warnings: Vec<String>,
    pub failed_tries: Vec<Failure>,
    pub pruned: Pruned,
}

/// What pruning after a success has done.
#[derive(Debug, Default)]
pub(super) struct Pruned {
    pub backups: usize,
    pub error: Option<String>,
}

impl JobOutcome {
    /// A job that never began to work.
    pub fn not_begun(failure: Failure) -> Self {
        let (took, warnings, pruned) = (Duration::ZERO, Vec::new(), Pruned::default());
        Self {
            result: Err(failure),
            started: None,
            took,
            warnings,
            failed_tries: Vec::new(),
            pruned,
        }
    }

    pub fn report(self, tracked: &TrackedJob) -> JobReport {
        let meter = &tracked.meter;
        let waited = |step| meter.waited(step).as_secs_f64();
        let mut warnings = self.warnings;
        let (manifest, stores, failure) = match self.result {
            Ok(Committed {
                manifest,
                warnings: said,
                stores,
            }) => {
                warnings.extend(said);
                (Some(manifest), stores, None)
            }
            Err(failure) => (None, Vec::new(), Some(failure)),
        };
        let missing = manifest
            .as_ref()
            .and_then(|manifest| missing(manifest, &stores));
        let result = match &failure {
            None if missing.is_some() => JobResult::CopyMissing,
            None => JobResult::Stored,
            Some(failure) if failure.kind == FailureKind::Interrupted => JobResult::Cancelled,
            Some(_) => JobResult::Failed,
        };
        let error = failure
            .as_ref()
            .filter(|_| result == JobResult::Failed)
            .map(|failure| {
                let left = failure.left.as_ref().map(|left| format!("\n{left}"));
                failure.message.clone() + &left.unwrap_or_default()
            })
            .or(missing);
        JobReport {
            database: tracked.database.clone(),
            engine: tracked.engine.into(),
            store: tracked.store.clone(),
            stores,
            dump_format: manifest
                .as_ref()
                .map(|manifest| manifest.dump_format.clone()),
            result,
            error,
            failure,
            warnings,
            failed_tries: self.failed_tries,
            backup_id: manifest.as_ref().map(|manifest| manifest.backup_id.clone()),
            objects: manifest.as_ref().map(Manifest::keys).unwrap_or_default(),
            dump_bytes: meter.dump_bytes(),
            archive_bytes: meter.archive_bytes(),
            started: self.started,
            seconds: self.took.as_secs_f64(),
            waited: Waited {
                dump: waited(Step::Dump),
                encode: waited(Step::Encode),
                upload: waited(Step::Upload),
            },
            retries: meter.retries(),
            pruned: self.pruned.backups,
            prune_error: self.pruned.error,
            busy: meter.busy_spans(),
        }
    }
}

/// That a backup is not in all of its stores, in words.
fn missing(manifest: &Manifest, stores: &[StoreEnd]) -> Option<String> {
    let name = format!("{}@{}", manifest.database, manifest.backup_id);
    let there = stores.iter().filter(|one| one.failure.is_none());
    let there: Vec<&str> = there.map(|one| one.name.as_str()).collect();
    let lacks = stores.iter().filter_map(|one| {
        let (store, failure) = (&one.name, one.failure.as_ref()?);
        let left = failure.left.as_ref().map(|left| format!("\n{left}"));
        Some(format!(
            "{store} failed: {}; `tapline copy {name} --to {store}` brings it there{}",
            failure.message,
            left.unwrap_or_default()
        ))
    });
    let lacks: Vec<String> = lacks.collect();
    (!lacks.is_empty()).then(|| format!("stored in {}; {}", there.join(", "), lacks.join("\n")))
}

impl JobReport {
    /// Whether there is a backup.
    pub fn is_stored(&self) -> bool {
        matches!(self.result, JobResult::Stored | JobResult::CopyMissing)
    }

    /// Why not all is well, as data: of the job, or of a store that lacks its backup.
    pub fn first_failure(&self) -> Option<&Failure> {
        let of_stores = self.stores.iter().filter_map(|one| one.failure.as_ref());
        self.failure.iter().chain(of_stores).next()
    }

    /// Says what became of the job in the log.
    pub(super) fn log(&self) {
        let Self {
            database,
            seconds,
            dump_bytes,
            archive_bytes,
            store,
            ..
        } = self;
        let backup_id = self
            .backup_id
            .as_ref()
            .map(BackupId::as_str)
            .unwrap_or_default();
        for warning in &self.warnings {
            tracing::warn!(database, backup_id, "{warning}");
        }
        match (self.result, &self.failure, &self.prune_error) {
            (JobResult::Stored | JobResult::CopyMissing, _, Some(error)) => {
                tracing::error!(
                    database,
                    backup_id,
                    store,
                    "backup stored, but pruning failed: {error}"
                );
            }
            (JobResult::CopyMissing, ..) => {
                let error = self.error.as_deref().unwrap_or_default();
                tracing::error!(database, backup_id, "{error}");
            }
            (JobResult::Stored, ..) => tracing::info!(
                database,
                backup_id,
                store,
                seconds,
                dump_bytes,
                archive_bytes,
                "backup stored"
            ),
            (JobResult::Cancelled, ..) => tracing::warn!(database, store, "backup cancelled"),
            (JobResult::Failed, Some(failure), _) => {
                let Failure {
                    step,
                    kind,
                    message,
                    ..
                } = failure;
                let (step, kind) = (name_of(step), name_of(kind));
                tracing::error!(database, store, step, kind, "backup failed: {message}");
            }
            (JobResult::Failed, None, _) => tracing::error!(database, store, "backup failed"),
        }
    }
}

/// A variant's name as reports have it.
pub(super) fn name_of(variant: &impl Serialize) -> String {
    let name = serde_json::to_value(variant).ok();
    name.and_then(|name| name.as_str().map(str::to_owned))
        .unwrap_or_default()
}
