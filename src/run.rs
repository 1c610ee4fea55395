//! Many jobs: semaphores, the memory budget, cancellation.
//!
//! [`plan`] decides everything that can be decided before the first byte, [`run`] carries it out.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::backup::meter::{Busy, Meter};
use crate::catalog::BackupId;
use crate::config::{Database, Inventory, RunSettings};
use crate::engine::Engine;
use crate::store::SharedStore;

/// What a run will do.
pub struct Plan {
    /// When the run was planned; spans of the report count from here.
    pub epoch: Instant,
    /// Limits.
    pub settings: RunSettings,
    /// The jobs, in the inventory's order.
    pub jobs: Vec<Job>,
    /// Memory of one job, in bytes.
    pub memory_per_job: u64,
}

/// One source to back up.
pub struct Job {
    /// The inventory's entry (for `database = "*"`, one per discovered database).
    pub database: Database,
    /// Its engine, secrets resolved.
    pub engine: Arc<dyn Engine>,
    /// Where it goes.
    pub store: SharedStore,
    /// What it counts; shared with the progress display.
    pub meter: Arc<Meter>,
    /// Sizes fixed before the first byte.
    pub layout: crate::backup::Layout,
}

/// What a run did. Serialised as the report, version 1.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// Version of the report's format.
    pub version: u32,
    /// `streamed` or `staged`.
    pub mode: crate::catalog::Mode,
    /// When the run began.
    pub started: Timestamp,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The jobs, in the plan's order.
    pub jobs: Vec<JobReport>,
}

/// What became of one job.
#[derive(Debug, Clone, Serialize)]
pub struct JobReport {
    /// Name of the database in the inventory.
    pub database: String,
    /// Its engine.
    pub engine: String,
    /// Address of its store.
    pub store: String,
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
    /// When each step was busy, in seconds from the run's start.
    pub busy: Vec<Busy>,
}

/// Seconds waited for each step; the largest is what bounded the job.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Waited {
    /// For the dump tool's next bytes.
    pub dump: f64,
    /// For compression.
    pub encode: f64,
    /// For the store.
    pub upload: f64,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobResult {
    /// The backup exists.
    Stored,
    /// There is no backup, and an error says why.
    Failed,
    /// The run was interrupted before the job was over.
    Cancelled,
}

/// Why a run cannot start: the inventory, a secret, a server that cannot be asked for its databases.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(pub String);

/// Chooses the databases called `names` (all when empty), resolves secrets, discovers databases,
/// estimates sizes, and fixes every size. Starts no dump and writes nothing.
///
/// # Errors
/// [`PlanError`] names the entry and what to do.
pub async fn plan(_inventory: &Inventory, _names: &[String]) -> Result<Plan, PlanError> {
    todo!()
}

/// Carries out a plan. Returns when every job is over; when `cancel` fires, jobs are ended, their
/// children killed and their uploads aborted first.
pub async fn run(_plan: Plan, _cancel: CancellationToken) -> RunReport {
    todo!()
}
