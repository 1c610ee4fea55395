//! From an entry of the inventory to jobs: what only the servers know is asked here, under the
//! entry's own place, so that a dead host costs nobody else's time, secrets are as young as they
//! can be, and estimates are fresh.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Plan;
use super::dropped::PATIENCE;
use crate::access::{access, signer};
use crate::archive::{Compression, Cores};
use crate::catalog::{Mode, Properties};
use crate::cipher::Lock;
use crate::config::{Container, Database, Selection};
use crate::engine::{self, Activity, Engine, StagedDump, Survey};
use crate::job::{
    FailureKind, Job, JobError, JobStore, Layout, Parallel, SIGN_OF_LIFE_AFTER, StoreEnd, Witness,
};
use crate::meter::Meter;
use crate::store::Limits;
use crate::store::retry::{Hurry, PatientStore, RetryPolicy};

/// A job, and how it is done.
pub struct PreparedJob {
    /// What both ways need.
    pub job: Arc<Job>,
    /// How a staged run dumps it; `None` in a streamed one.
    pub staged: Option<StagedDump>,
    /// The stores that it goes on without, because the run has waited for them before.
    pub left_out: Vec<StoreEnd>,
}

/// A job's server, asked for the lock that its dump waits for.
struct ServerWitness(Arc<dyn Engine>);

#[async_trait]
impl Witness for ServerWitness {
    async fn holder(&self) -> Option<String> {
        match self.0.activity().await {
            Activity::Locked(holder) => Some(holder),
            Activity::Working | Activity::Unknown => None,
        }
    }
}

fn failed(kind: FailureKind) -> impl Fn(String) -> JobError {
    move |message| JobError::Plan { kind, message }
}

/// The entry with its engine, its secrets resolved.
async fn open(plan: &Plan, entry: &Database) -> Result<Arc<dyn Engine>, JobError> {
    let access = access(entry, &plan.settings, plan.tapline.clone()).await;
    let access = access.map_err(|error| failed(FailureKind::Secret)(error.to_string()))?;
    Ok(engine::open(entry, access))
}

/// The databases that an entry with `database = "*"` stands for, as entries of their own; those
/// that were asked for and are not there come with the reason.
pub async fn discover(
    plan: &Plan,
    entry: &Database,
) -> Result<Vec<(Database, Option<JobError>)>, JobError> {
    if !matches!(entry.database, Selection::All { .. }) {
        return Ok(vec![(entry.clone(), None)]);
    }
    let excluded = |name: &str| entry.database.excludes(name);
    let engine = open(plan, entry).await?;
    let found = engine.discover().await.map_err(|error| {
        failed(FailureKind::Source)(format!("cannot list the databases: {error}"))
    })?;
    let found = found.unwrap_or_default();
    let known = found.join(", ");
    let asked = |name: &str| {
        plan.names.is_empty()
            || plan
                .names
                .iter()
                .any(|asked| *asked == entry.name || asked == name)
    };
    let one = |name: String| Database {
        name: format!("{}/{name}", entry.name),
        database: Selection::One(name),
        ..entry.clone()
    };
    let made = found.into_iter().filter(|name| !excluded(name)).map(one);
    let mut made: Vec<_> = made
        .filter(|one| asked(&one.name))
        .map(|one| (one, None))
        .collect();

    // A name that leads to nothing, and an entry with nothing left, must not pass for a success.
    let of_entry = |name: &&String| entry.covers(name) && **name != entry.name;
    let mut missing: Vec<String> = plan.names.iter().filter(of_entry).cloned().collect();
    missing.retain(|name| !made.iter().any(|(one, _)| one.name == *name));
    if made.is_empty() && missing.is_empty() {
        missing.push(entry.name.clone());
    }
    for name in missing {
        let why = "the server has no such database, or `exclude` leaves it out; it has: ";
        let error = failed(FailureKind::Inventory)(format!("{why}{known}"));
        made.push((
            Database {
                name,
                ..entry.clone()
            },
            Some(error),
        ));
    }
    Ok(made)
}

/// The stores of an entry, each as patient with its failures as the run says, and those that it is
/// to go on without.
fn job_stores(
    plan: &Plan,
    entry: &Database,
    meter: &Arc<Meter>,
) -> Result<(Vec<JobStore>, Vec<StoreEnd>), JobError> {
    let (mut used, mut left_out) = (Vec::new(), Vec::new());
    for name in &entry.stores {
        let store = plan.stores.get(name).cloned().ok_or_else(|| {
            failed(FailureKind::Inventory)(format!("the store {name} is not open"))
        })?;
        match plan.dropped.why_out(name) {
            None => used.push((name, store)),
            Some(why) => left_out.push((name, store, why)),
        }
    }
    // With none left, all are waited for, as one is.
    if used.is_empty() {
        used.extend(left_out.drain(..).map(|(name, store, _)| (name, store)));
    }
    let is_alone = used.len() == 1;
    let used = used.into_iter().map(|(name, store)| {
        let patience = match plan.settings.wait_for_store {
            _ if is_alone => Duration::MAX,
            patience if plan.dropped.has(name) => patience.min(PATIENCE),
            patience => patience,
        };
        let (counter, hurry) = (meter.clone(), Hurry::default());
        let retry = RetryPolicy::lasting(plan.settings.retry_for);
        let store = PatientStore::new(store, retry, Arc::new(move || counter.add_retry()));
        JobStore {
            store: Arc::new(store.hurried_by(hurry.clone())),
            name: name.clone(),
            patience,
            hurry,
        }
    });
    let left_out = left_out.into_iter().map(|(name, store, message)| {
        let kind = FailureKind::StoreUnreachable;
        StoreEnd {
            name: name.clone(),
            address: store.address(),
            failure: Some(JobError::Plan { kind, message }.describe(None)),
        }
    });
    Ok((used.collect(), left_out.collect()))
}

/// Finds out all that a job needs before its first byte. Starts no dump and writes nothing.
pub async fn prepare(
    plan: &Plan,
    entry: &Database,
    meter: &Arc<Meter>,
) -> Result<PreparedJob, JobError> {
    let (stores, left_out) = job_stores(plan, entry, meter)?;
    let limits = Limits::common(stores.iter().map(|one| one.store.limits()));
    let engine = open(plan, entry).await?;
    let settings = &plan.settings;
    let signer = signer(&plan.signatures, settings.connect_timeout).await;
    let signer = signer.map_err(|error| failed(FailureKind::Secret)(error.to_string()))?;
    let lock = match &entry.encryption {
        Some(encryption) => {
            let lock = encryption.lock(settings.connect_timeout).await;
            Some(lock.map_err(|error| failed(FailureKind::Secret)(error.to_string()))?)
        }
        None => None,
    };
    let tool = |error: crate::dump::ToolError| failed(FailureKind::Tool)(error.to_string());
    let Survey {
        version,
        identity,
        size: expected,
        properties,
        lacks,
    } = engine.survey(entry.expected_size).await;
    let version = version.map_err(tool)?;
    let mut warnings = Vec::new();
    let mut unknown = |what: &str, error: crate::dump::ToolError| {
        warnings.push(format!("{what} could not be found out: {error}"));
    };
    let properties = properties.unwrap_or_else(|error| {
        unknown("what is said about the database itself", error);
        None
    });
    let lacks = lacks.unwrap_or_else(|error| {
        unknown("what the user may not see", error);
        Vec::new()
    });
    warnings.extend(lacks);
    let withheld = properties.as_ref().map_or(&[][..], Properties::withheld);
    if !withheld.is_empty() {
        warnings.push(format!(
            "settings of the database that look like secrets are not in the backup: {}",
            withheld.join(", ")
        ));
    }
    // Only now: which tool it is and what it is told depend on the server.
    let (staged, dump_format) = match settings.mode {
        Mode::Streamed => (None, engine.dump_format()),
        Mode::Staged => {
            if plan.staged.container == Container::Zip && entry.compression == Compression::Zstd {
                return Err(failed(FailureKind::Inventory)(
                    "a zip is compressed by gzip's method or not at all: set compression or \
                     staged.container"
                        .into(),
                ));
            }
            let (dump, format) = engine.staged_dump(plan.staged.parallel).map_err(tool)?;
            (Some(dump), format)
        }
    };
    let command = engine.dump_command().map_err(tool)?;
    let (properties, sealed_properties) = match (&lock, properties) {
        (Some(lock), Some(said)) => (None, Some(sealed(lock.clone(), &said).await?)),
        (_, said) => (said, None),
    };
    let compression = (entry.compression, entry.level);
    let memory = plan.memory_per_job;
    let parallel = (settings.mode == Mode::Streamed && entry.parallel > 1).then(|| Parallel {
        engine: engine.clone(),
        streams: entry.parallel,
    });
    let feeds = parallel.as_ref().map_or(1, |parallel| parallel.streams);
    let layout = Layout::with_feeds(
        (feeds, stores.len(), entry.encryption.is_some()),
        memory,
        Cores::count(),
        limits,
        compression,
        expected,
    )
    .map_err(|least| {
        let (memory, least) = (memory.div_ceil(1 << 20), least.div_ceil(1 << 20));
        failed(FailureKind::Memory)(format!(
            "{memory} MiB of memory for each job are too little, {least} MiB are needed: \
                 raise run.memory or lower run.jobs"
        ))
    })?;
    meter.expect(expected);
    let job = Job {
        database: entry.name.clone(),
        engine: entry.engine.name().into(),
        source: identity,
        properties,
        sealed_properties,
        warnings,
        strict: entry.strict,
        mode: settings.mode,
        dump_format: dump_format.into(),
        tool: version,
        command,
        parallel,
        dump_shape: engine.dump_shape(),
        file_name: entry
            .file_name
            .as_ref()
            .map_or_else(|| engine.file_name(), ToString::to_string),
        compression: entry.compression,
        level: entry.level,
        lock,
        signer,
        hide_names: entry
            .encryption
            .as_ref()
            .is_some_and(|hidden| hidden.hide_names),
        stores,
        layout,
        witness: Some(Arc::new(ServerWitness(engine.clone()))),
        meter: meter.clone(),
        exit_timeout: settings.exit_timeout,
        stall_timeout: settings.stall_timeout,
        sign_of_life_after: SIGN_OF_LIFE_AFTER,
    };
    Ok(PreparedJob {
        job: Arc::new(job),
        staged,
        left_out,
    })
}

/// What is said about a database, for those alone who can read its backups.
async fn sealed(lock: Lock, said: &Properties) -> Result<String, JobError> {
    let text = serde_json::to_vec(said).map_err(std::io::Error::other)?;
    // A passphrase is stretched for a second, and a plugin may take its time.
    let sealed = tokio::task::spawn_blocking(move || lock.seal_text(&text)).await;
    let sealed = sealed.map_err(std::io::Error::other)?;
    sealed.map_err(|why| failed(FailureKind::Inventory)(format!("cannot encrypt: {why}")))
}
