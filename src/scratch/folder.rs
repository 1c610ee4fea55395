//! Where a staged run keeps its files: one folder for the run, one in it for each job, gone when
//! they are dropped.
//!
//! A run that is killed cannot tidy up. So a running run holds a lock on its folder, and the next
//! one removes the folders that nobody holds.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use crate::scratch::occupied;

const PREFIX: &str = "tapline-staged-";
/// A folder is locked well within this time after it was made.
const NEW: Duration = Duration::from_mins(1);
/// How often the files are measured.
const MEASURE: Duration = Duration::from_millis(50);

/// The folder of a run, or of a restore that must unpack.
pub struct RunFolder {
    folder: TempDir,
    peak: Arc<AtomicU64>,
    _lock: File,
    _measuring: AbortOnDropHandle<()>,
}

impl RunFolder {
    /// Makes a folder for a run in `dir`, readable by its owner alone.
    ///
    /// # Errors
    /// When it cannot be made or locked.
    pub fn create(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        remove_abandoned(dir)?;
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(dir)?;
        let lock = File::open(folder.path())?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let peak = Arc::<AtomicU64>::default();
        let measuring = tokio::spawn(measure(folder.path().to_owned(), peak.clone()));
        Ok(Self {
            folder,
            peak,
            _lock: lock,
            _measuring: AbortOnDropHandle::new(measuring),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A new folder for one job.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn of_job(&self) -> io::Result<TempDir> {
        tempfile::Builder::new()
            .prefix("job-")
            .tempdir_in(self.folder.path())
    }

    /// The most bytes that its files have occupied at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

/// Removes the folders of runs that are over without having tidied up.
fn remove_abandoned(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let new = entry
            .metadata()
            .and_then(|found| found.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < NEW));
        if !ours || new {
            continue;
        }
        let Ok(folder) = File::open(entry.path()) else {
            continue;
        };
        if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            tracing::info!(folder = %entry.path().display(), "removing what a killed run has left");
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::warn!(folder = %entry.path().display(), %error, "cannot remove what a killed run has left");
            }
        }
    }
    Ok(())
}

async fn measure(folder: std::path::PathBuf, peak: Arc<AtomicU64>) {
    loop {
        let folder = folder.clone();
        let now = spawn_blocking(move || occupied(&folder)).await;
        peak.fetch_max(now.unwrap_or_default(), Ordering::Relaxed);
        tokio::time::sleep(MEASURE).await;
    }
}
