//! The read path of one backup, on one screen: [`restore`].
//!
//! ```text
//! fetch ──bytes──▶ decrypt ──▶ decode ──pieces──▶ target
//! (ranges of       (where it    (gunzip, untar,    (client's stdin, file,
//!  the volumes)     is sealed)   SHA-256)           stdout, nowhere)
//! ```
//!
//! The last piece is **held** until everything behind it has been checked too: the tar's end, the
//! compression's checksum, every volume's CRC. So no target ever sees the end of a dump that is not
//! the one that was stored, and a client that works in one transaction has nothing to commit: on
//! any failure it is ended before its stdin is. Verifying is restoring to nowhere.

mod client;
mod database;
pub(crate) mod decode;
mod fetch;
mod frames;
mod hash;
mod sessions;
mod target;
mod unlock;
mod watch;

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::{Manifest, Volume};
use crate::cipher::{Identities, Locked, opened};
use crate::dump::ToolError;
use crate::store::retry::RetryPolicy;
use crate::store::{SharedStore, StoreError};
pub use database::{RestoreOptions, drill, restore_into};
pub use decode::{DecodeError, Piece, decode};
pub use fetch::{check, fetch_volume};
pub use target::Target;
pub use unlock::{inspect, unlock};
pub use watch::Patience;

/// Pieces and fetched buffers on their way: enough that no step waits for a wake-up, a few MiB at
/// most.
const ON_THE_WAY: usize = 8;

/// A backup in its store, and how to read it.
pub struct Stored {
    /// Where it is.
    pub store: SharedStore,
    /// What it is.
    pub manifest: Manifest,
    /// How long a read is tried again without a byte.
    pub retry: RetryPolicy,
    /// What an encrypted one is opened with.
    pub identities: Arc<Identities>,
    /// What is counted.
    pub progress: Arc<Progress>,
}

impl Stored {
    /// The same backup, to be read another time: it is counted for itself.
    fn once_more(&self) -> Arc<Self> {
        let (store, manifest, retry) = (self.store.clone(), self.manifest.clone(), self.retry);
        Arc::new(Self {
            store,
            manifest,
            retry,
            identities: self.identities.clone(),
            progress: Arc::default(),
        })
    }

    /// The volumes with their keys, in order.
    pub fn volumes(&self) -> impl Iterator<Item = (String, &Volume)> {
        self.manifest
            .volume_keys()
            .zip(&self.manifest.archive.volumes)
    }
}

/// Counters of one restore; written by the read path, read by the display.
#[derive(Debug, Default)]
pub struct Progress {
    fetched: AtomicU64,
    written: AtomicU64,
    retries: AtomicU64,
    /// Whether it waits for the target, and not for the store.
    at_target: AtomicBool,
}

/// What a restore waits for when nothing moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Store,
    Target,
}

impl Progress {
    /// Archive bytes that have arrived.
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Dump bytes that the target has taken.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Connections that broke and were taken up again.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Counts bytes that have gone on.
    pub fn add_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    fn wait_for(&self, what: Waiting) {
        self.at_target
            .store(what == Waiting::Target, Ordering::Relaxed);
    }

    fn waits_for(&self) -> Waiting {
        if self.at_target.load(Ordering::Relaxed) {
            Waiting::Target
        } else {
            Waiting::Store
        }
    }

    fn add_fetched(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    fn add_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a backup was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store failed, after all retries.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// What is in the store is not what was put there.
    #[error("{0}")]
    Damaged(String),
    /// It is encrypted, and there is no key for it.
    #[error("{0}")]
    Locked(String),
    /// The target did not take it.
    #[error("{0}")]
    Target(String),
    /// It was interrupted.
    #[error("interrupted")]
    Cancelled,
}

impl From<ToolError> for RestoreError {
    fn from(error: ToolError) -> Self {
        Self::Target(error.to_string())
    }
}

/// Proof that an archive was read to its end and is, byte for byte, what its manifest says.
#[derive(Debug)]
pub struct Whole(());

/// Restores a backup into `target`. When this returns well, sizes and checksums were right and the
/// target has finished.
///
/// # Errors
/// [`RestoreError`]; then the target was abandoned: its client ended before the end of its input,
/// its file removed.
pub async fn restore(
    stored: Arc<Stored>,
    mut target: Target,
    cancel: &CancellationToken,
) -> Result<(), RestoreError> {
    let whole = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(RestoreError::Cancelled),
        whole = read(stored.clone(), &mut target) => whole,
    };
    match whole {
        Ok(whole) => {
            stored.progress.wait_for(Waiting::Target);
            // Dropped when it is cancelled, which ends a client as well, but without its words.
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(RestoreError::Cancelled),
                finished = target.finish(whole) => finished,
            }
        }
        Err(error) => {
            target.abandon().await;
            Err(error)
        }
    }
}

/// The path itself: every byte goes to the target, the last ones when all is known to be right.
async fn read(stored: Arc<Stored>, target: &mut Target) -> Result<Whole, RestoreError> {
    check(&stored).await?;
    unlock(&stored).await?;
    let (fetched_in, fetched) = mpsc::channel(ON_THE_WAY);
    let (pieces_in, mut pieces) = mpsc::channel(ON_THE_WAY);
    let fetch = AbortOnDropHandle::new(tokio::spawn(fetch::fetch(stored.clone(), fetched_in)));
    let sealed = stored.clone();
    let decode = spawn_blocking(move || {
        let archive = arriving(fetched);
        let emit = &mut |piece| pieces_in.blocking_send(piece).is_ok();
        let Stored {
            manifest,
            identities,
            ..
        } = &*sealed;
        if manifest.archive.encryption.is_none() {
            return decode(manifest, archive, emit);
        }
        let archive = opened(archive, identities).map_err(|locked: Locked| {
            let why = locked.to_string();
            let size = manifest.archive.size;
            DecodeError::Damaged { at: 0, size, why }
        })?;
        decode(manifest, BufReader::with_capacity(1 << 18, archive), emit)
    });

    let progress = &stored.progress;
    let mut held = Bytes::new();
    loop {
        progress.wait_for(Waiting::Store);
        let Some(piece) = pieces.recv().await else {
            break;
        };
        progress.wait_for(Waiting::Target);
        let next = match &piece {
            Piece::Begin(_) => Bytes::new(),
            Piece::Data(bytes) => bytes.clone(),
        };
        let ready = std::mem::replace(&mut held, next);
        progress
            .written
            .fetch_add(ready.len() as u64, Ordering::Relaxed);
        target.write(ready).await?;
        if let Piece::Begin(name) = piece {
            target.begin(&name).await?;
        }
    }

    let broke_down =
        |error| RestoreError::Damaged(format!("reading the archive broke down: {error}"));
    let decoded = decode.await.map_err(broke_down)?;
    // The decoder's end of input, when it comes too early, is the fetch's failure.
    fetch.await.map_err(broke_down)??;
    decoded.map_err(|error| RestoreError::Damaged(error.to_string()))?;
    progress
        .written
        .fetch_add(held.len() as u64, Ordering::Relaxed);
    target.write(held).await?;
    Ok(Whole(()))
}

/// What fetch sends, as a reader for the decoder's thread.
fn arriving(fetched: mpsc::Receiver<io::Result<Bytes>>) -> impl io::BufRead {
    let buffer = Bytes::new();
    BufReader::with_capacity(1 << 20, Arriving { fetched, buffer })
}

struct Arriving {
    fetched: mpsc::Receiver<io::Result<Bytes>>,
    buffer: Bytes,
}

impl Read for Arriving {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.buffer.is_empty() {
            match self.fetched.blocking_recv() {
                Some(buffer) => self.buffer = buffer?,
                None => return Ok(0),
            }
        }
        let length = into.len().min(self.buffer.len());
        into[..length].copy_from_slice(&self.buffer.split_to(length));
        Ok(length)
    }
}
