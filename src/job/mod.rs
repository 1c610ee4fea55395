//! The write path of one job, on one screen: [`backup`].
//!
//! ```text
//! source ──segments──▶ encode ──pieces──▶ upload ──parts──▶ commit
//! (child)              (cores)            (window)          (complete, then manifest)
//! ```
//!
//! Whatever fails before the manifest is put, there is no backup: the child's process group is
//! killed, and everything that is in the store is taken away again, also when the run is being
//! cancelled.

mod commit;
mod layout;
pub mod places;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::archive::{Compression, Cores, END_LEN, Hash, TarHeader, encoder, hex, padding};
use crate::catalog::{Archive, BackupId, Entry, Manifest, Mode, archive_key};
use crate::deposit::{SharedFootprint, Uploader};
use crate::dump::{DumpError, DumpShape, Next, Source, ToolCommand};
use crate::meter::{Meter, Phase, Step};
use crate::store::{SharedStore, StoreError};
pub use commit::{Facts, Whole, commit};
pub use layout::Layout;

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
    /// What a whole dump looks like.
    pub dump_shape: DumpShape,
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

impl Job {
    /// What the manifest of a backup says that is known before the archive is in the store.
    pub fn facts(&self, id: &BackupId, mode: Mode, started: Timestamp, archive: Archive) -> Facts {
        Manifest {
            format: Manifest::FORMAT,
            tapline: env!("CARGO_PKG_VERSION").into(),
            database: self.database.clone(),
            backup_id: id.clone(),
            engine: self.engine.clone(),
            dump_format: self.dump_format.clone(),
            tool: self.tool.clone(),
            mode,
            started,
            finished: started,
            entries: Vec::new(),
            archive,
        }
    }
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
    /// A staged job cannot keep its files.
    #[error("{0}")]
    Disk(String),
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
/// [`BackupError`]; then there is no backup, and nothing of it is in the store unless the log says
/// so.
pub async fn backup(
    job: &Job,
    id: &BackupId,
    cores: &Cores,
    cancel: &CancellationToken,
) -> Result<Manifest, BackupError> {
    job.meter.set_phase(Phase::Running);
    let mut source = Source::spawn(&job.command, job.dump_shape, job.exit_timeout)?;
    let footprint = SharedFootprint::default();
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(BackupError::Cancelled),
        stalled = watch(&job.meter, job.stall_timeout) => Err(stalled),
        result = stream(job, id, cores, &mut source, &footprint) => result,
    };
    if let Err(error) = &result {
        source.kill().await;
        erase(job, &footprint, error).await;
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
    let Job {
        compression,
        level,
        layout,
        meter,
        ..
    } = job;
    let names = (
        archive_key(&job.database, id, compression.extension()),
        id.to_string(),
    );
    let mut uploader = Uploader::begin(
        job.store.clone(),
        meter.clone(),
        footprint.clone(),
        *layout,
        names,
        compression.head_len(),
    )
    .await?;

    let (inlet, mut outlet) = encoder(layout.workers, (*compression, *level), cores, meter);
    let read = async move {
        let mut hash = Hash::new();
        loop {
            let (room, start) = (inlet.room().await, Instant::now());
            let next = meter
                .wait_for(Step::Dump, source.next(layout.segment, meter))
                .await?;
            meter.was_busy(Step::Dump, start);
            match next {
                Next::Segment(segment) => {
                    hash.update(segment.clone()).await?;
                    inlet.put(segment, room).await;
                }
                Next::End(end) => return Ok::<_, BackupError>((end, hash.finish().await?)),
            }
        }
    };
    let write = async {
        while let Some((buffers, _room)) = outlet.next().await? {
            for buffer in buffers {
                uploader.push(buffer).await?;
            }
        }
        Ok::<_, BackupError>(())
    };
    let ((end, sha256), ()) = tokio::try_join!(read, write)?;

    // The dump is whole: what could not be written before can be now.
    meter.set_phase(Phase::Committing);
    let header = TarHeader {
        name: job.file_name.clone(),
        size: end.size(),
        sha256: Some(sha256),
    }
    .to_bytes();
    let mut content = crc32fast::Hasher::new();
    content.update(&header);
    content.combine(&outlet.content());
    uploader
        .push(compression.tail(padding(end.size()) + END_LEN, &content))
        .await?;
    let entry = Entry {
        name: job.file_name.clone(),
        size: end.size(),
        sha256: hex(&sha256),
    };
    let sealed = uploader
        .seal(compression.head(&header), Whole::new(end, vec![entry]))
        .await?;
    let archive = Archive {
        container: "tar".into(),
        compression: *compression,
        size: 0,
        volumes: Vec::new(),
    };
    let facts = job.facts(id, Mode::Streamed, started, archive);
    Ok(commit(&*job.store, meter, footprint, sealed, facts).await?)
}

/// Takes away what a failed job has put into the store; what cannot be taken away is logged beside
/// the job's own error.
pub async fn erase(job: &Job, footprint: &SharedFootprint, error: &BackupError) {
    let footprint = std::mem::take(&mut *footprint.lock().expect("no holder panics"));
    let left = match tokio::time::timeout(ERASE_TIMEOUT, footprint.erase(&job.store)).await {
        Ok(Ok(())) => return,
        Ok(Err(left)) => left.to_string(),
        Err(_) => format!("the store did not answer for {ERASE_TIMEOUT:?}"),
    };
    let database = &job.database;
    tracing::error!(database, %error, "the failed backup may have left something in the store: {left}");
}

/// Returns when nothing has moved for `timeout`; never without one.
pub async fn watch(meter: &Meter, timeout: Option<Duration>) -> BackupError {
    let Some(timeout) = timeout else {
        return std::future::pending().await;
    };
    loop {
        let before = (meter.dump_bytes(), meter.archive_bytes());
        tokio::time::sleep(timeout).await;
        if before == (meter.dump_bytes(), meter.archive_bytes()) {
            return BackupError::Stalled(
                timeout,
                meter.waiting_for().map_or("nothing", Step::name),
            );
        }
    }
}
