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
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::archive::Cores;
use crate::catalog::BackupId;
use crate::config::{Container, StagedSettings};
use crate::deposit::Route;
use crate::engine::StagedDump;
use crate::job::places::Places;
use crate::job::places::{Place, pass};
use crate::job::{Committed, Failure, Interruption, Job, JobError, Stowed};
use crate::meter::{Meter, Phase, Step};
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
    pub fn begin(settings: &StagedSettings) -> Result<Self, JobError> {
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
            dumped: Arc::new(Semaphore::new(
                dump.saturating_add(queue).min(Semaphore::MAX_PERMITS),
            )),
            archived: Arc::new(Semaphore::new(
                archive.saturating_add(queue).min(Semaphore::MAX_PERMITS),
            )),
        })
    }

    /// The most bytes that the files of the run have occupied at once.
    pub fn peak(&self) -> u64 {
        self.folder.peak()
    }
}

/// What a failed access to `path` means.
fn disk(path: &Path) -> impl Fn(std::io::Error) -> JobError {
    move |error| {
        let hint = if error.kind() == std::io::ErrorKind::StorageFull {
            "; a staged backup needs room for dumps and archives: free some, or set staged.dir to a larger disk"
        } else {
            ""
        };
        JobError::Disk(format!("{}: {error}{hint}", path.display()))
    }
}

/// Dumps, archives and uploads one source, step by step, and commits the backup. `begin` finds out
/// what the job needs, when its turn to dump has come.
///
/// # Errors
/// Then there is no backup, its files are gone, and nothing of it is in the store unless the failure
/// says so.
pub async fn back_up(
    begin: impl Future<Output = Result<PreparedStaged, Failure>>,
    meter: &Meter,
    id: &BackupId,
    staging: &Staging,
    host: Option<Arc<Semaphore>>,
    interruption: &Interruption,
) -> Result<Committed, Failure> {
    let cancel = &interruption.cancel;
    let places = async {
        // The host first: who waits for one takes no room from the others.
        let on_host = pass(host.as_ref(), 1).await;
        Ok((
            on_host,
            pass(Some(&staging.dumped), 1).await,
            staging.dump.take().await,
        ))
    };
    let (on_host, in_queue, worker) = unless(cancel, places)
        .await
        .map_err(|error| error.describe(None))?;
    meter.set_worker(worker.number);
    let PreparedStaged { job, dump } = begin.await?;
    let routes = job.routes();
    let places = DumpPlaces {
        on_host,
        in_queue,
        worker,
    };
    let work = steps(&job, &dump, id, staging, &routes, places, cancel);
    match JobError::caught(Box::pin(work)).await {
        Ok(stowed) => stowed.settle(interruption).await,
        Err(error) => Err(job.give_up(id, &routes, error, interruption).await),
    }
}

/// A job, and how it is dumped into files.
pub struct PreparedStaged {
    /// The job.
    pub job: Arc<Job>,
    /// Its dump.
    pub dump: StagedDump,
}

/// What a job holds while it dumps.
struct DumpPlaces {
    on_host: Option<OwnedSemaphorePermit>,
    in_queue: Option<OwnedSemaphorePermit>,
    worker: Place,
}

/// The three steps, each with a worker of its pool. What comes out lacks nothing but its completion.
async fn steps(
    job: &Arc<Job>,
    dump: &StagedDump,
    id: &BackupId,
    staging: &Staging,
    routes: &[Route],
    DumpPlaces {
        on_host,
        in_queue,
        worker,
    }: DumpPlaces,
    cancel: &CancellationToken,
) -> Result<Stowed, JobError> {
    let (begun, started) = (Instant::now(), Timestamp::now());
    job.meter.set_phase(Phase::Running);
    // Dropped, on failure and cancellation too, it is removed with all that is in it.
    let folder = staging
        .folder
        .of_job()
        .map_err(disk(staging.folder.path()))?;
    let dumped = dump::dump(job, dump, folder.path(), cancel);
    let dumped = job.meter.wait_for(Step::Dump, dumped).await?;
    job.meter.was_busy(Step::Dump, begun);
    drop((worker, on_host));

    let places = async {
        Ok((
            pass(Some(&staging.archived), 1).await,
            staging.archive.take().await,
        ))
    };
    let (in_next_queue, worker) = unless(cancel, places).await?;
    drop(in_queue);
    let begun = Instant::now();
    job.meter.set_worker(worker.number);
    let cores = &staging.cores;
    let archive = Box::pin(archive::archive(
        job,
        dumped,
        staging.container,
        folder.path(),
        cores,
    ));
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
    let upload = upload::upload(job, id, archived, staging.container, started, routes, cores);
    let stowed = unless(cancel, upload).await?;
    job.meter.was_busy(Step::Upload, begun);
    Ok(stowed)
}

/// Does `work`, unless the run is cancelled meanwhile.
async fn unless<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, JobError>>,
) -> Result<T, JobError> {
    cancel
        .run_until_cancelled(work)
        .await
        .unwrap_or(Err(JobError::Cancelled))
}
