//! The write path of one job, on one screen: [`backup`].
//!
//! ```text
//! source ──segments──▶ encode ──pieces──▶ upload ──parts──▶ commit
//! (child)              (cores)            (window)          (complete, then manifest)
//! ```
//!
//! Whatever fails before the manifest is put, there is no backup: the child's process group is killed, and
//! everything that is in the store is taken away again, also when the run is being cancelled.

mod commit;
mod encode;
mod layout;
pub mod meter;
mod source;
mod upload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::catalog::{Archive, BackupId, Manifest, Mode, archive_key};
use crate::engine::{EndMarker, ToolCommand};
use crate::format::{Compression, END_LEN, TarHeader, padding};
use crate::store::{SharedStore, StoreError};
pub use encode::Cores;
use encode::Encoding;
pub use layout::Layout;
use meter::{Meter, Phase, Step};
pub use source::{DumpEnd, DumpError};
use source::{Next, Source};
use upload::{SharedFootprint, Uploader};

/// How long a failed or cancelled job tries to take away what it has put into the store.
const ERASE_TIMEOUT: Duration = Duration::from_mins(1);

/// All that the write path needs to know of one source.
pub struct Job {
    /// Name of the database in the inventory.
    pub database: String,
    /// Its engine's name.
    pub engine: String,
    /// The dump's format, for the manifest.
    pub dump_format: String,
    /// The tool and its version in its own words, for the manifest.
    pub tool: String,
    /// What writes the dump.
    pub command: ToolCommand,
    /// What the dump ends with.
    pub end_marker: Option<EndMarker>,
    /// File name of the dump in the archive.
    pub file_name: String,
    /// Compression.
    pub compression: Compression,
    /// Its level.
    pub level: i32,
    /// Where it goes.
    pub store: SharedStore,
    /// Sizes fixed before the first byte.
    pub layout: Layout,
    /// What it counts.
    pub meter: Arc<Meter>,
    /// How long the tool may take to exit after it closed its stdout.
    pub exit_timeout: Duration,
    /// When nothing moves for so long, the job is ended.
    pub stall_timeout: Option<Duration>,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The dump is not whole.
    #[error("dump: {0}")]
    Dump(#[from] DumpError),
    /// The compressor failed.
    #[error("encode: {0}")]
    Encode(#[from] std::io::Error),
    /// The store failed, after all retries.
    #[error("upload: {0}")]
    Upload(#[from] StoreError),
    /// Nothing moved for too long.
    #[error("stalled: nothing moved for {0:?} (stall_timeout) while waiting for {1}")]
    Stalled(Duration, &'static str),
    /// The run was interrupted.
    #[error("interrupted")]
    Cancelled,
}

/// Dumps, archives and uploads one source, and commits the backup.
///
/// # Errors
/// [`BackupError`]; then there is no backup, and nothing of it is in the store unless the log says so.
pub async fn backup(
    job: &Job,
    id: &BackupId,
    cores: &Cores,
    cancel: &CancellationToken,
) -> Result<Manifest, BackupError> {
    job.meter.set_phase(Phase::Running);
    let mut source = Source::spawn(&job.command, job.end_marker, job.exit_timeout)?;
    let footprint = SharedFootprint::default();
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(BackupError::Cancelled),
        stalled = watch(&job.meter, job.stall_timeout) => Err(stalled),
        result = stream(job, id, cores, &mut source, &footprint) => result,
    };
    if let Err(error) = &result {
        source.kill().await;
        let footprint = std::mem::take(&mut *footprint.lock().expect("no holder panics"));
        let left = match tokio::time::timeout(ERASE_TIMEOUT, footprint.erase(&job.store)).await {
            Ok(Ok(())) => None,
            Ok(Err(left)) => Some(left.to_string()),
            Err(_) => Some(format!("the store did not answer for {ERASE_TIMEOUT:?}")),
        };
        if let Some(left) = left {
            tracing::error!(database = job.database, %error, "the failed backup may have left something in the store: {left}");
        }
    }
    job.meter.set_phase(Phase::Done);
    result
}

/// The path itself: what comes out of it is a backup.
async fn stream(
    job: &Job,
    id: &BackupId,
    cores: &Cores,
    source: &mut Source,
    footprint: &SharedFootprint,
) -> Result<Manifest, BackupError> {
    let started = Timestamp::now();
    let Job { compression, level, layout, meter, .. } = job;
    let names = (archive_key(&job.database, id, compression.extension()), id.to_string());
    let mut uploader =
        Uploader::begin(job.store.clone(), meter.clone(), footprint.clone(), *layout, names, compression.head_len())
            .await?;

    // One permit is the memory of one segment and what it compresses to.
    let memory = Arc::new(Semaphore::new(layout.workers + 1));
    let (encoded, mut in_order) = mpsc::channel(layout.workers + 1);
    let read = async move {
        loop {
            let permit = meter.wait_for_encode(memory.clone().acquire_owned()).await.expect("never closed");
            let start = Instant::now();
            let next = meter.wait_for(Step::Dump, source.next(layout.segment, meter)).await?;
            meter.was_busy(Step::Dump, start);
            match next {
                Next::Segment(segment) => {
                    let encoding = Encoding::begin(*compression, *level, segment, permit, cores, meter);
                    if encoded.send(encoding).await.is_err() {
                        // The other end failed, and its error is the one to report.
                        std::future::pending::<()>().await;
                    }
                }
                Next::End(end) => return Ok::<_, BackupError>(end),
            }
        }
    };
    let write = async {
        let mut content = crc32fast::Hasher::new();
        while let Some(encoding) = in_order.recv().await {
            let (encoded, permit): (crate::format::Encoded, _) = encoding.finish().await?;
            content.combine(&encoded.crc);
            for buffer in encoded.buffers {
                uploader.push(buffer).await?;
            }
            drop(permit);
        }
        Ok::<_, BackupError>(content)
    };
    let (end, segments) = tokio::try_join!(read, write)?;

    // The dump is whole: what could not be written before can be now.
    meter.set_phase(Phase::Committing);
    let header = TarHeader { name: job.file_name.clone(), size: end.size(), sha256: Some(end.sha256()) }.to_bytes();
    let mut content = crc32fast::Hasher::new();
    content.update(&header);
    content.combine(&segments);
    uploader.push(compression.tail(padding(end.size()) + END_LEN, &content)).await?;
    let sealed = uploader.seal(compression.head(&header), end).await?;
    let facts = Manifest {
        format: Manifest::FORMAT,
        tapline: env!("CARGO_PKG_VERSION").into(),
        database: job.database.clone(),
        backup_id: id.clone(),
        engine: job.engine.clone(),
        dump_format: job.dump_format.clone(),
        tool: job.tool.clone(),
        mode: Mode::Streamed,
        started,
        finished: started,
        entries: Vec::new(),
        archive: Archive { container: "tar".into(), compression: *compression, size: 0, volumes: Vec::new() },
    };
    Ok(commit::commit(&*job.store, meter, footprint, sealed, &job.file_name, facts).await?)
}

/// Returns when nothing has moved for `timeout`; never without one.
async fn watch(meter: &Meter, timeout: Option<Duration>) -> BackupError {
    let Some(timeout) = timeout else { return std::future::pending().await };
    loop {
        let before = (meter.dump_bytes(), meter.archive_bytes());
        tokio::time::sleep(timeout).await;
        if before == (meter.dump_bytes(), meter.archive_bytes()) {
            return BackupError::Stalled(timeout, meter.waiting_for().map_or("nothing", Step::name));
        }
    }
}
