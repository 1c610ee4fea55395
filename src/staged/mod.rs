//! The baseline: the classic way to back up, built to be as good as it can be, so that the
//! comparison is fair.
//!
//! ```text
//!  A dump ──folder of files──▶ B archive ──one file──▶ C upload ──▶ complete ─▶ manifest
//!  (pool of workers)    queue  (pool of workers) queue (pool of workers)
//! ```
//!
//! For one database the steps come one after the other; while B archives the first database, A
//! dumps the second. A job takes room in the queue behind a step before it begins that step, so a
//! full queue makes the step before it wait, and the disk never holds more than the pools and the
//! queues allow. Files go as soon as the next step no longer needs them.
//!
//! What is not the baseline's own is what the stream uses too: the encoder on all cores, the
//! uploader, the commit.

mod archive;
mod dump;
mod upload;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::archive::Cores;
use crate::catalog::{BackupId, Manifest};
use crate::config::{Container, StagedSettings};
use crate::deposit::SharedFootprint;
use crate::engine::StagedDump;
use crate::job::places::Places;
use crate::job::{BackupError, Job, erase};
use crate::meter::{Phase, Step};
use crate::scratch::RunFolder;

/// What the jobs of a staged run share: the pools, the queues, and the folder.
pub struct Staging {
    folder: RunFolder,
    container: Container,
    cores: Cores,
    dump: Places,
    archive: Places,
    upload: Places,
    dumped: Arc<Semaphore>,
    archived: Arc<Semaphore>,
}

impl Staging {
    /// Makes the run's folder, and takes away those of runs that were killed.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn begin(settings: &StagedSettings) -> Result<Self, BackupError> {
        let StagedSettings {
            dump,
            archive,
            upload,
            queue,
            ..
        } = *settings;
        Ok(Self {
            folder: RunFolder::create(&settings.dir).map_err(disk(&settings.dir))?,
            container: settings.container,
            cores: Cores::all(),
            dump: Places::new(dump),
            archive: Places::new(archive),
            upload: Places::new(upload),
            // Whoever works has its room in the queue behind it already.
            dumped: Arc::new(Semaphore::new(dump + queue)),
            archived: Arc::new(Semaphore::new(archive + queue)),
        })
    }

    /// The most bytes that the files of the run have occupied at once.
    pub fn peak(&self) -> u64 {
        self.folder.peak()
    }
}

/// What a failed access to `path` means.
fn disk(path: &Path) -> impl Fn(std::io::Error) -> BackupError {
    move |error| {
        let hint = if error.kind() == std::io::ErrorKind::StorageFull {
            "; a staged backup needs room for dumps and archives: free some, or set staged.dir to a larger disk"
        } else {
            ""
        };
        BackupError::Disk(format!("{}: {error}{hint}", path.display()))
    }
}

/// Dumps, archives and uploads one source, step by step, and commits the backup. Also returns how
/// long it took from the beginning of its dump.
///
/// # Errors
/// [`BackupError`]; then there is no backup, its files are gone, and nothing of it is in the store
/// unless the log says so.
pub async fn backup(
    job: &Job,
    dump: &StagedDump,
    staging: &Staging,
    host: Option<Arc<Semaphore>>,
    cancel: &CancellationToken,
) -> (Result<Manifest, BackupError>, Duration) {
    let (footprint, mut start) = (SharedFootprint::default(), None);
    let result = steps(job, dump, staging, host, &footprint, cancel, &mut start).await;
    if let Err(error) = &result {
        erase(job, &footprint, error).await;
    }
    job.meter.set_phase(Phase::Done);
    (
        result,
        start.map_or(Duration::ZERO, |start: Instant| start.elapsed()),
    )
}

/// The three steps, each with a worker of its pool.
async fn steps(
    job: &Job,
    dump: &StagedDump,
    staging: &Staging,
    host: Option<Arc<Semaphore>>,
    footprint: &SharedFootprint,
    cancel: &CancellationToken,
    start: &mut Option<Instant>,
) -> Result<Manifest, BackupError> {
    let places = async {
        // The host first: who waits for one takes no room from the others.
        let on_host = match &host {
            Some(host) => Some(room(host).await),
            None => None,
        };
        let in_queue = room(&staging.dumped).await;
        Ok((in_queue, on_host, staging.dump.take().await))
    };
    let (in_queue, on_host, worker) = unless(cancel, places).await?;
    let (begun, started, id) = (Instant::now(), Timestamp::now(), BackupId::now());
    *start = Some(begun);
    tracing::info!(database = job.database, "backup begins");
    job.meter.set_phase(Phase::Running);
    job.meter.set_worker(worker.number);
    // Dropped, on failure and cancellation too, it is removed with all that is in it.
    let folder = staging
        .folder
        .of_job()
        .map_err(disk(staging.folder.path()))?;
    let dumped = job
        .meter
        .wait_for(Step::Dump, dump::dump(job, dump, folder.path(), cancel))
        .await?;
    job.meter.was_busy(Step::Dump, begun);
    drop((worker, on_host));

    let places = async { Ok((room(&staging.archived).await, staging.archive.take().await)) };
    let (in_next_queue, worker) = unless(cancel, places).await?;
    drop(in_queue);
    let begun = Instant::now();
    job.meter.set_worker(worker.number);
    let archive = archive::archive(
        job,
        dumped,
        staging.container,
        folder.path(),
        &staging.cores,
    );
    let archived = job
        .meter
        .wait_for(Step::Encode, unless(cancel, archive))
        .await?;
    job.meter.was_busy(Step::Encode, begun);
    drop(worker);

    let worker = unless(cancel, async { Ok(staging.upload.take().await) }).await?;
    drop(in_next_queue);
    let begun = Instant::now();
    job.meter.set_worker(worker.number);
    job.meter.set_phase(Phase::Committing);
    let upload = upload::upload(job, &id, archived, staging.container, started, footprint);
    let manifest = unless(cancel, upload).await?;
    job.meter.was_busy(Step::Upload, begun);
    Ok(manifest)
}

/// Does `work`, unless the run is cancelled meanwhile.
async fn unless<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, BackupError>>,
) -> Result<T, BackupError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(BackupError::Cancelled),
        result = work => result,
    }
}

async fn room(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore
        .clone()
        .acquire_owned()
        .await
        .expect("never closed")
}
