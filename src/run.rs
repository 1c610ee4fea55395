//! Many jobs: semaphores, the memory budget, cancellation.
//!
//! [`plan`] decides everything that can be decided before the first byte, [`run`] carries it out. A run's memory
//! is divided by the number of jobs that can run at once, and a job takes its whole share before it starts: jobs
//! cannot wait for each other's.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backup::meter::{Busy, Meter, Phase, Step};
use crate::backup::{self, BackupError, Cores, Layout};
use crate::catalog::{BackupId, Manifest, Mode, Retention};
use crate::config::{
    ConfigError, Container, Database, Inventory, RunSettings, Secret, Selection, StagedSettings, StoreSettings,
};
use crate::engine::{self, Access, Engine, StagedDump};
use crate::format::Compression;
use crate::places::Places;
use crate::resources::Resources;
use crate::staged::{self, Staging};
use crate::store::retry::{RetryPolicy, Retrying};
use crate::store::s3::S3Store;
use crate::store::{SharedStore, Store};
use crate::upkeep;

/// Memory of a job when the inventory says nothing, in bytes.
const MEMORY_PER_JOB: u64 = 128 << 20;

/// What a run will do.
pub struct Plan {
    /// When the run began, which is when its planning did: times of the report count from here.
    pub epoch: Instant,
    /// Limits.
    pub settings: RunSettings,
    /// Pools and folder of a staged run.
    pub staged: StagedSettings,
    /// The jobs, in the inventory's order.
    pub jobs: Vec<Planned>,
    /// Memory of one job, in bytes.
    pub memory_per_job: u64,
}

/// One source to back up, or why it cannot be: that one fails, and the others run.
pub struct Planned {
    /// Name of the database; of a discovered one `NAME/DATABASE`.
    pub database: String,
    /// Its engine's name.
    pub engine: &'static str,
    /// Address of its store.
    pub store: String,
    /// Which server it is on, for `jobs_per_host`; `None` where there is none.
    pub host: Option<String>,
    /// What it counts; shared with the progress display.
    pub meter: Arc<Meter>,
    /// By which policy it is pruned after its success; `None` when it is not.
    pub prune: Option<Retention>,
    /// The job.
    pub job: Result<Arc<PlannedJob>, String>,
}

/// A job, and how it is done.
pub struct PlannedJob {
    /// What both ways need.
    pub job: backup::Job,
    /// How a staged run dumps it; `None` in a streamed one.
    pub staged: Option<StagedDump>,
}

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

/// A database with its engine, or why it has none.
type Source = (Database, Result<Arc<dyn Engine>, String>);

/// Opens the inventory's stores, credentials resolved.
///
/// # Errors
/// When a secret is missing.
pub async fn open_stores(inventory: &Inventory) -> Result<HashMap<String, Arc<S3Store>>, ConfigError> {
    let mut stores = HashMap::new();
    for (name, settings) in &inventory.stores {
        stores.insert(name.clone(), Arc::new(open_store(settings, inventory.run.connect_timeout).await?));
    }
    Ok(stores)
}

async fn open_store(settings: &StoreSettings, limit: Duration) -> Result<S3Store, ConfigError> {
    let credentials = match &settings.credentials {
        Some((access, secret)) => Some((access.resolve(limit).await?, secret.resolve(limit).await?)),
        None => None,
    };
    Ok(S3Store::open(settings, credentials).await)
}

/// Opens the inventory's stores, or only the one called `only`, for commands other than `backup`: what fails for a
/// passing reason is tried again for `run.retry_for`, and the log says so once.
///
/// # Errors
/// When a secret is missing, or there is no such store.
pub async fn open_patient_stores(
    inventory: &Inventory,
    only: Option<&str>,
) -> Result<BTreeMap<String, SharedStore>, ConfigError> {
    if let Some(only) = only.filter(|only| !inventory.stores.contains_key(*only)) {
        let known: Vec<&str> = inventory.stores.keys().map(String::as_str).collect();
        let path = inventory.path.display();
        return Err(ConfigError(format!("{path} has no store called {only:?}; it has {}", known.join(", "))));
    }
    let mut stores = BTreeMap::new();
    for (name, settings) in inventory.stores.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        let store = open_store(settings, inventory.run.connect_timeout).await?;
        let (address, once) = (store.address(), Once::new());
        let say = move || {
            once.call_once(|| tracing::warn!(store = address, "the store does not answer as it should; trying again"));
        };
        let retrying = Retrying::new(Arc::new(store), RetryPolicy::lasting(inventory.run.retry_for), Arc::new(say));
        stores.insert(name.clone(), Arc::new(retrying) as SharedStore);
    }
    Ok(stores)
}

/// Resolves an entry's secrets.
///
/// # Errors
/// When one is missing.
pub async fn access(database: &Database, settings: &RunSettings, tapline: PathBuf) -> Result<Access, ConfigError> {
    let timeout = settings.connect_timeout;
    let resolve = async |secret: &Secret| secret.resolve(timeout).await;
    let password: Option<SecretString> = match &database.password {
        Some(secret) => Some(resolve(secret).await?),
        None => None,
    };
    let mut env = Vec::new();
    for (name, secret) in &database.env {
        env.push((name.clone(), resolve(secret).await?));
    }
    Ok(Access { password, env, tapline, timeout })
}

/// Chooses the databases called `names` (all when empty), resolves secrets, discovers databases, asks for sizes, and
/// fixes every size. Starts no dump and writes nothing. `stores` are the inventory's, by name; `tapline` is this
/// program's own binary.
///
/// # Errors
/// What is wrong with the inventory or a secret. A server that cannot be asked is that job's failure, later.
pub async fn plan(
    inventory: &Inventory,
    stores: &BTreeMap<String, SharedStore>,
    names: &[String],
    tapline: PathBuf,
) -> Result<Plan, ConfigError> {
    let epoch = Instant::now();
    let mut sources: Vec<Source> = Vec::new();
    for database in inventory.select(names)? {
        let access = access(database, &inventory.run, tapline.clone()).await?;
        expand(database, &access, names, &mut sources).await;
    }
    let StagedSettings { archive, upload, .. } = inventory.staged;
    let at_once = match inventory.run.mode {
        Mode::Streamed => inventory.run.jobs.min(sources.len()).max(1) as u64,
        // Those that encode, and those that hold parts.
        Mode::Staged => (archive + upload) as u64,
    };
    let memory_per_job = inventory.run.memory.unwrap_or(MEMORY_PER_JOB * at_once) / at_once;
    let mut jobs = Vec::new();
    for (database, engine) in sources {
        let meter = Arc::new(Meter::new(epoch));
        let store = stores[&database.store].clone();
        let address = store.address();
        let job = match engine {
            Ok(engine) => job(&database, &*engine, store, &meter, inventory, memory_per_job).await.map(Arc::new),
            Err(error) => Err(error),
        };
        let host = database.host.clone().or_else(|| database.socket.as_ref().map(|path| path.display().to_string()));
        let is_server = matches!(database.database, Selection::One(_) | Selection::Globals);
        jobs.push(Planned {
            engine: database.engine.name(),
            store: address,
            host: is_server.then(|| host.unwrap_or_else(|| "localhost".into())),
            meter,
            prune: Some(database.retention).filter(|policy| inventory.run.prune_after_backup && !policy.is_empty()),
            job,
            database: database.name,
        });
    }
    Ok(Plan { epoch, settings: inventory.run.clone(), staged: inventory.staged.clone(), jobs, memory_per_job })
}

/// An entry's sources: itself, or every database of its server.
async fn expand(database: &Database, access: &Access, names: &[String], sources: &mut Vec<Source>) {
    let engine = engine::open(database, access.clone());
    let Selection::All { exclude } = &database.database else {
        return sources.push((database.clone(), Ok(engine)));
    };
    let excluded = |name: &str| {
        exclude.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        })
    };
    match engine.discover().await {
        Ok(found) => {
            for name in found.unwrap_or_default().into_iter().filter(|name| !excluded(name)) {
                let one = Database {
                    name: format!("{}/{name}", database.name),
                    database: Selection::One(name),
                    ..database.clone()
                };
                if names.is_empty() || names.contains(&database.name) || names.contains(&one.name) {
                    let engine = engine::open(&one, access.clone());
                    sources.push((one, Ok(engine)));
                }
            }
        }
        Err(error) => sources.push((database.clone(), Err(format!("cannot list the databases: {error}")))),
    }
}

async fn job(
    database: &Database,
    engine: &dyn Engine,
    store: SharedStore,
    meter: &Arc<Meter>,
    inventory: &Inventory,
    memory: u64,
) -> Result<PlannedJob, String> {
    let settings = &inventory.run;
    let expected = match database.expected_size {
        Some(size) => Some(size),
        // A server that does not answer fails the dump, with better words than the size query's.
        None => engine.estimate().await.unwrap_or_default(),
    };
    let compression = (database.compression, database.level);
    let layout = Layout::new(memory, Cores::count(), store.limits(), compression, expected).map_err(|least| {
        let (memory, least) = (memory.div_ceil(1 << 20), least.div_ceil(1 << 20));
        format!("{memory} MiB of memory for each job are too little, {least} MiB are needed: raise run.memory or lower run.jobs")
    })?;
    let counter = meter.clone();
    let retry = RetryPolicy::lasting(settings.retry_for);
    let (staged, dump_format) = match settings.mode {
        Mode::Streamed => (None, engine.dump_format()),
        Mode::Staged => {
            if inventory.staged.container == Container::Zip && database.compression == Compression::Zstd {
                return Err(
                    "a zip is compressed by gzip's method or not at all: set compression or staged.container".into()
                );
            }
            let (dump, format) = engine.staged_dump(inventory.staged.parallel).map_err(|error| error.to_string())?;
            (Some(dump), format)
        }
    };
    let job = backup::Job {
        database: database.name.clone(),
        engine: database.engine.name().into(),
        dump_format: dump_format.into(),
        tool: engine.version().await.map_err(|error| error.to_string())?,
        command: engine.dump_command().map_err(|error| error.to_string())?,
        end_marker: engine.end_marker(),
        file_name: database.file_name.clone().unwrap_or_else(|| engine.file_name()),
        compression: database.compression,
        level: database.level,
        store: Arc::new(Retrying::new(store, retry, Arc::new(move || counter.add_retry()))),
        layout,
        meter: meter.clone(),
        exit_timeout: settings.exit_timeout,
        stall_timeout: settings.stall_timeout,
    };
    Ok(PlannedJob { job, staged })
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
        let on_host = planned.host.as_deref().map(|host| hosts.entry(host).or_insert(on_host).clone());
        let (job, policy, way, cancel) = (planned.job.clone(), planned.prune, way.clone(), cancel.clone());
        running.spawn(async move {
            let job = match job {
                Ok(job) => job,
                Err(error) => return (at, Err(Ended::Failed(error)), Duration::ZERO, Pruned::default()),
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
                Self::Streamed { cores: Cores::all(), places }
            }
            Mode::Staged => Self::Staged(Staging::begin(&plan.staged).map_err(|error| error.to_string())),
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
            (Way::Staged(Err(error)), _) => return (Err(BackupError::Disk(error.clone())), Duration::ZERO),
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
        (backup::backup(job, &BackupId::now(), cores, cancel).await, start.elapsed())
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

async fn prune(job: &backup::Job, policy: &Retention, cancel: &CancellationToken) -> Pruned {
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
        Err(error) => Pruned { backups: 0, error: Some(error.to_string()) },
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
    let JobReport { database, seconds, dump_bytes, archive_bytes, .. } = report;
    match (&report.result, &report.error) {
        (JobResult::Stored, _) if report.prune_error.is_some() => {
            let error = report.prune_error.as_deref().unwrap_or_default();
            tracing::error!(database, "backup stored, but pruning failed: {error}");
        }
        (JobResult::Stored, _) => tracing::info!(database, seconds, dump_bytes, archive_bytes, "backup stored"),
        (JobResult::Cancelled, _) => tracing::warn!(database, "backup cancelled"),
        (JobResult::Failed, error) => tracing::error!(database, "backup failed: {}", error.as_deref().unwrap_or("")),
    }
}

fn report(planned: &Planned, result: Result<Manifest, Ended>, time: Duration, pruned: Pruned) -> JobReport {
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
        dump_format: planned.job.as_ref().ok().map(|planned| planned.job.dump_format.clone()),
        result,
        error,
        backup_id: manifest.as_ref().map(|manifest| manifest.backup_id.clone()),
        objects: manifest.as_ref().map(Manifest::keys).unwrap_or_default(),
        dump_bytes: meter.dump_bytes(),
        archive_bytes: meter.archive_bytes(),
        seconds: time.as_secs_f64(),
        waited: Waited { dump: waited(Step::Dump), encode: waited(Step::Encode), upload: waited(Step::Upload) },
        retries: meter.retries(),
        pruned: pruned.backups,
        prune_error: pruned.error,
        busy: meter.busy_spans(),
    }
}
