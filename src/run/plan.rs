//! What a run will do, decided before its first byte: stores opened, secrets resolved, databases
//! discovered, sizes fixed.
//!
//! A run's memory is divided by the number of jobs that can run at once, and a job takes its whole
//! share before it starts: jobs cannot wait for each other's.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use secrecy::SecretString;

use crate::archive::Compression;
use crate::archive::Cores;
use crate::catalog::{Mode, Retention};
use crate::config::{
    ConfigError, Container, Database, Inventory, RunSettings, Secret, Selection, StagedSettings,
    StoreSettings,
};
use crate::engine::{self, Access, Engine, StagedDump};
use crate::job::{self, Layout};
use crate::meter::Meter;
use crate::store::retry::{RetryPolicy, Retrying};
use crate::store::s3::S3Store;
use crate::store::{SharedStore, Store};

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
    pub job: job::Job,
    /// How a staged run dumps it; `None` in a streamed one.
    pub staged: Option<StagedDump>,
}

/// A database with its engine, or why it has none.
type Source = (Database, Result<Arc<dyn Engine>, String>);

/// Opens the inventory's stores, credentials resolved.
///
/// # Errors
/// When a secret is missing.
pub async fn open_stores(
    inventory: &Inventory,
) -> Result<HashMap<String, Arc<S3Store>>, ConfigError> {
    let mut stores = HashMap::new();
    for (name, settings) in &inventory.stores {
        stores.insert(
            name.clone(),
            Arc::new(open_store(settings, inventory.run.connect_timeout).await?),
        );
    }
    Ok(stores)
}

async fn open_store(settings: &StoreSettings, limit: Duration) -> Result<S3Store, ConfigError> {
    let credentials = match &settings.credentials {
        Some((access, secret)) => {
            Some((access.resolve(limit).await?, secret.resolve(limit).await?))
        }
        None => None,
    };
    // Some 20 KB, which every future above it would carry.
    Ok(Box::pin(S3Store::open(settings, credentials)).await)
}

/// Opens the inventory's stores, or only the one called `only`, for commands other than `backup`:
/// what fails for a passing reason is tried again for `run.retry_for`, and the log says so once.
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
        return Err(ConfigError(format!(
            "{path} has no store called {only:?}; it has {}",
            known.join(", ")
        )));
    }
    let mut stores = BTreeMap::new();
    for (name, settings) in inventory
        .stores
        .iter()
        .filter(|(name, _)| only.is_none_or(|only| only == *name))
    {
        let store = open_store(settings, inventory.run.connect_timeout).await?;
        let (address, once) = (store.address(), Once::new());
        let say = move || {
            once.call_once(|| {
                tracing::warn!(
                    store = address,
                    "the store does not answer as it should; trying again"
                );
            });
        };
        let retrying = Retrying::new(
            Arc::new(store),
            RetryPolicy::lasting(inventory.run.retry_for),
            Arc::new(say),
        );
        stores.insert(name.clone(), Arc::new(retrying) as SharedStore);
    }
    Ok(stores)
}

/// Resolves an entry's secrets.
///
/// # Errors
/// When one is missing.
pub async fn access(
    database: &Database,
    settings: &RunSettings,
    tapline: PathBuf,
) -> Result<Access, ConfigError> {
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
    Ok(Access {
        password,
        env,
        tapline,
        timeout,
    })
}

/// Chooses the databases called `names` (all when empty), resolves secrets, discovers databases,
/// asks for sizes, and fixes every size. Starts no dump and writes nothing. `stores` are the
/// inventory's, by name; `tapline` is this program's own binary.
///
/// # Errors
/// What is wrong with the inventory or a secret. A server that cannot be asked is that job's
/// failure, later.
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
    let StagedSettings {
        archive, upload, ..
    } = inventory.staged;
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
            Ok(engine) => job(
                &database,
                &*engine,
                store,
                &meter,
                inventory,
                memory_per_job,
            )
            .await
            .map(Arc::new),
            Err(error) => Err(error),
        };
        let host = database.host.clone().or_else(|| {
            database
                .socket
                .as_ref()
                .map(|path| path.display().to_string())
        });
        let is_server = matches!(database.database, Selection::One(_) | Selection::Globals);
        jobs.push(Planned {
            engine: database.engine.name(),
            store: address,
            host: is_server.then(|| host.unwrap_or_else(|| "localhost".into())),
            meter,
            prune: Some(database.retention)
                .filter(|policy| inventory.run.prune_after_backup && !policy.is_empty()),
            job,
            database: database.name,
        });
    }
    Ok(Plan {
        epoch,
        settings: inventory.run.clone(),
        staged: inventory.staged.clone(),
        jobs,
        memory_per_job,
    })
}

/// An entry's sources: itself, or every database of its server.
async fn expand(database: &Database, access: &Access, names: &[String], sources: &mut Vec<Source>) {
    let engine = engine::open(database, access.clone());
    let Selection::All { exclude } = &database.database else {
        return sources.push((database.clone(), Ok(engine)));
    };
    let excluded = |name: &str| {
        exclude
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == pattern,
            })
    };
    match engine.discover().await {
        Ok(found) => {
            let before = sources.len();
            let known = found.clone().unwrap_or_default().join(", ");
            for name in found
                .unwrap_or_default()
                .into_iter()
                .filter(|name| !excluded(name))
            {
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
            // A name that leads to nothing, and an entry with nothing left, must not pass for a
            // success.
            let made: Vec<String> = sources[before..]
                .iter()
                .map(|(one, _)| one.name.clone())
                .collect();
            let asked = names
                .iter()
                .filter(|name| database.covers(name) && **name != database.name);
            let mut missing: Vec<&String> = asked.filter(|name| !made.contains(name)).collect();
            if made.is_empty() && missing.is_empty() {
                missing.push(&database.name);
            }
            for name in missing {
                let error = format!(
                    "the server has no such database, or `exclude` leaves it out; it has: {known}"
                );
                sources.push((
                    Database {
                        name: name.clone(),
                        ..database.clone()
                    },
                    Err(error),
                ));
            }
        }
        Err(error) => sources.push((
            database.clone(),
            Err(format!("cannot list the databases: {error}")),
        )),
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
            if inventory.staged.container == Container::Zip
                && database.compression == Compression::Zstd
            {
                return Err(
                    "a zip is compressed by gzip's method or not at all: set compression or staged.container".into()
                );
            }
            let (dump, format) = engine
                .staged_dump(inventory.staged.parallel)
                .map_err(|error| error.to_string())?;
            (Some(dump), format)
        }
    };
    let job = job::Job {
        database: database.name.clone(),
        engine: database.engine.name().into(),
        dump_format: dump_format.into(),
        tool: engine.version().await.map_err(|error| error.to_string())?,
        command: engine.dump_command().map_err(|error| error.to_string())?,
        dump_shape: engine.dump_shape(),
        file_name: database
            .file_name
            .as_ref()
            .map_or_else(|| engine.file_name(), ToString::to_string),
        compression: database.compression,
        level: database.level,
        store: Arc::new(Retrying::new(
            store,
            retry,
            Arc::new(move || counter.add_retry()),
        )),
        layout,
        meter: meter.clone(),
        exit_timeout: settings.exit_timeout,
        stall_timeout: settings.stall_timeout,
    };
    Ok(PlannedJob { job, staged })
}
