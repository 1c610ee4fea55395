//! The first step back: the volumes' bytes, in order, by several ranged requests at once.
//!
//! ```text
//! memory = (in flight + one being read) × range
//! ```
//!
//! A connection that breaks is taken up again at the byte where it broke, for as long as it is worth
//! it: `retry_for` without [`PROGRESS`] is the end. Every volume's CRC-64/NVME is
//! compared with its manifest's when its last byte has gone by, so that no flipped bit passes; and its
//! SHA-256 where the manifest has one, so that nobody's does.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use ring::digest::{Context, SHA256};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Progress, RestoreError, Stored};
use crate::archive::hex;
use crate::catalog::{PartsDigest, Volume};
use crate::store::retry::{Backoff, RetryPolicy};
use crate::store::{
    Checksum, ChecksumKind, Digest, ErrorKind, ObjectInfo, SharedStore, StoreError,
};

/// Bytes asked for by one request: so many that a request's latency does not count.
pub(super) const RANGE: u64 = 8 << 20;
/// So many bytes are worth a connection. A server that sends a few and closes would take a request
/// for each of them, for ever.
const PROGRESS: u64 = 256 << 10;
/// Requests at once.
const IN_FLIGHT: usize = 4;

/// Asks for every volume without reading it: it is there, is of this backup, and has the size and,
/// where the store keeps one of the same kind, the checksum of its manifest. Returns whether all
/// checksums could be compared.
///
/// # Errors
/// The first volume with which something is wrong.
pub async fn check(stored: &Stored) -> Result<bool, RestoreError> {
    let mut compared = true;
    for (key, volume) in stored.volumes() {
        let damaged = |why: String| RestoreError::Damaged(format!("{key}: {why}"));
        let Some(object) = stored.store.head(&key).await? else {
            return Err(damaged("the volume is missing".into()));
        };
        if object.size != volume.size {
            let (has, size) = (object.size, volume.size);
            return Err(damaged(format!(
                "the volume has {has} bytes, and its manifest says {size}"
            )));
        }
        if object
            .backup_id
            .as_ref()
            .is_some_and(|id| id != stored.manifest.backup_id.as_str())
        {
            return Err(damaged("the object was written by another backup".into()));
        }
        match object.checksum.zip(expected(volume, &object)?) {
            Some((stored, expected)) if stored != expected => {
                return Err(damaged(
                    "its checksum in the store is not its manifest's".into(),
                ));
            }
            Some(_) => {}
            None => compared = false,
        }
    }
    Ok(compared)
}

/// Sends the bytes of all volumes to `to`, in order. Ends early, without an error, when nobody
/// reads them any more.
///
/// # Errors
/// When the store fails for too long, or a volume is not what its manifest says; then the last
/// thing sent is an error too, so that a reader cannot take the end for the archive's.
pub async fn fetch(
    stored: Arc<Stored>,
    to: mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), RestoreError> {
    for (key, volume) in stored.volumes() {
        if to.is_closed() {
            return Ok(());
        }
        if let Err(error) = fetch_volume(&stored, &key, volume, &to).await {
            let _ = to
                .send(Err(io::Error::other("the archive could not be read")))
                .await;
            return Err(error);
        }
    }
    Ok(())
}

/// Sends the bytes of one volume to `to`. Ends early, without an error, when nobody reads them any
/// more.
///
/// # Errors
/// When the store fails for too long, or the volume is not what its manifest says.
pub async fn fetch_volume(
    stored: &Arc<Stored>,
    key: &str,
    volume: &Volume,
    to: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), RestoreError> {
    let expected = checksum(volume)?;
    let mut slices = volume.digest.as_ref().map(Slices::of);
    let starts = (0..volume.size).step_by(usize::try_from(RANGE).expect("a range fits in memory"));
    let requests = starts.map(|start| {
        let range = start..(start + RANGE).min(volume.size);
        let (store, retry, progress) =
            (stored.store.clone(), stored.retry, stored.progress.clone());
        let key = key.to_owned();
        AbortOnDropHandle::new(tokio::spawn(async move {
            fetch_range(&store, retry, &key, range, &progress).await
        }))
    });
    let mut in_order = stream::iter(requests).buffered(IN_FLIGHT);
    let mut digest = Digest::new(ChecksumKind::Crc64Nvme);
    while let Some(fetched) = in_order.next().await {
        let fetched = fetched.map_err(|error| {
            StoreError::new(
                ErrorKind::Invalid,
                format!("reading {key} broke down: {error}"),
            )
        })??;
        for buffer in fetched {
            digest.update(&buffer);
            if let Some(slices) = &mut slices {
                slices.update(&buffer);
            }
            if to.send(Ok(buffer)).await.is_err() {
                return Ok(());
            }
        }
    }
    let found = digest.finish();
    if found != expected {
        let (found, expected) = (found.to_base64(), expected.to_base64());
        return Err(RestoreError::Damaged(format!(
            "{key}: the volume's CRC-64/NVME is {found}, and its manifest says {expected}"
        )));
    }
    match (slices.map(Slices::finish), &volume.digest) {
        (Some(found), Some(PartsDigest { sha256, .. })) if found != *sha256 => {
            Err(RestoreError::Damaged(format!(
                "{key}: the SHA-256 of the volume's slices is {found}, and its manifest says \
                 {sha256}: it was replaced"
            )))
        }
        _ => Ok(()),
    }
}

/// SHA-256 of the slices of a volume, as [`PartsDigest`] has it.
struct Slices {
    slice: u64,
    /// How much of this slice is to come.
    left: u64,
    this: Context,
    all: Context,
}

impl Slices {
    fn of(digest: &PartsDigest) -> Self {
        Self {
            slice: digest.slice,
            left: digest.slice,
            this: Context::new(&SHA256),
            all: Context::new(&SHA256),
        }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.next();
            }
            let length = usize::try_from(self.left)
                .unwrap_or(bytes.len())
                .min(bytes.len());
            let (of_this, rest) = bytes.split_at(length);
            self.this.update(of_this);
            self.left -= length as u64;
            bytes = rest;
        }
    }

    fn next(&mut self) {
        let done = std::mem::replace(&mut self.this, Context::new(&SHA256));
        self.all.update(done.finish().as_ref());
        self.left = self.slice;
    }

    fn finish(mut self) -> String {
        self.next();
        hex(self.all.finish().as_ref())
    }
}

/// The manifest's checksum of a volume, of the kind that its object has.
fn expected(volume: &Volume, object: &ObjectInfo) -> Result<Option<Checksum>, RestoreError> {
    Ok(match object.checksum.map(Checksum::kind) {
        None => None,
        Some(ChecksumKind::Crc64Nvme) => Some(checksum(volume)?),
        Some(ChecksumKind::Crc32) => volume
            .crc32
            .as_ref()
            .and_then(|text| Checksum::from_base64(ChecksumKind::Crc32, text)),
    })
}

fn checksum(volume: &Volume) -> Result<Checksum, RestoreError> {
    let checksum = Checksum::from_base64(ChecksumKind::Crc64Nvme, &volume.crc64nvme);
    checksum.ok_or_else(|| {
        RestoreError::Damaged(format!("the manifest has no checksum of {}", volume.name))
    })
}

/// Reads one range, in as many requests as it takes.
async fn fetch_range(
    store: &SharedStore,
    retry: RetryPolicy,
    key: &str,
    range: Range<u64>,
    progress: &Progress,
) -> Result<Vec<Bytes>, StoreError> {
    let (mut at, mut buffers) = (range.start, Vec::new());
    let (mut backoff, mut patient_since) = (Backoff::new(retry), at);
    while at < range.end {
        // The store has its own patience for a request; what it gives up is given up.
        let body = store.get(key, Some(at..range.end)).await?;
        let error = match read(body, range.end, &mut buffers, &mut at, progress).await {
            Ok(()) if at == range.end => break,
            Ok(()) => StoreError::new(ErrorKind::Transient, "the connection ended too early"),
            Err(error) => error,
        };
        if at - patient_since >= PROGRESS {
            (backoff, patient_since) = (Backoff::new(retry), at);
        }
        progress.add_retry();
        backoff
            .after(error.context(format!("reading {key} from byte {at}")))
            .await?;
    }
    Ok(buffers)
}

async fn read(
    mut body: BoxStream<'static, Result<Bytes, StoreError>>,
    end: u64,
    buffers: &mut Vec<Bytes>,
    at: &mut u64,
    progress: &Progress,
) -> Result<(), StoreError> {
    while let Some(buffer) = body.next().await {
        let buffer = buffer?;
        let length = buffer.len() as u64;
        if length > end - *at {
            return Err(StoreError::new(
                ErrorKind::Invalid,
                "the store sent more than the range that was asked for",
            ));
        }
        *at += length;
        progress.add_fetched(length);
        buffers.push(buffer);
    }
    Ok(())
}
