//! Step C: the archive's file goes to the store, in parts.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::archive::Archived;
use super::disk;
use crate::archive::{Compression, Cores, Piece};
use crate::catalog::BackupId;
use crate::config::Container;
use crate::deposit::{Deposit, Ledger};
use crate::job::{Job, JobError, Sealed, WholeDump, stalled};

/// How much of the file is read at once, in bytes.
const READ: usize = 1 << 20;

/// Uploads the archive and removes the file. What comes out lacks nothing but its completion.
pub async fn upload(
    job: &Arc<Job>,
    id: &BackupId,
    archived: Archived,
    container: Container,
    started: Timestamp,
    ledger: &Ledger,
    cores: &Cores,
) -> Result<Sealed, JobError> {
    tokio::select! {
        stalled = stalled(job) => Err(stalled),
        sealed = send(job, id, archived, container, started, ledger, cores) => sealed,
    }
}

async fn send(
    job: &Arc<Job>,
    id: &BackupId,
    Archived { path, entries, end }: Archived,
    container: Container,
    started: Timestamp,
    ledger: &Ledger,
    cores: &Cores,
) -> Result<Sealed, JobError> {
    let (extension, compression) = match container {
        Container::Tar => (job.compression.extension(), job.compression),
        // Each file in a zip is compressed for itself, and the whole of it is not.
        Container::Zip => ("zip", Compression::None),
    };
    let mut envelope = job.envelope(0, cores).await?;
    let (names, head) = (
        (job.archive_key(id, extension), id.to_string()),
        envelope.head_len(),
    );
    let (store, meter) = (job.store.clone(), job.meter.clone());
    let window = job.layout.window(job.wants_digests());
    let mut file = File::open(&path).map_err(disk(&path))?;
    let size = file.metadata().map_err(disk(&path))?.len();
    let ledger = ledger.clone();
    let mut deposit = if size <= job.layout.part {
        Deposit::of_little(store, meter, ledger.clone(), window, names, head)?
    } else {
        Deposit::begin(store, meter, ledger.clone(), window, names, head).await?
    };
    let kept = job.store.checksum_kind();
    loop {
        let read = spawn_blocking(move || {
            let mut buffer = BytesMut::zeroed(READ);
            let read = file.read(&mut buffer)?;
            buffer.truncate(read);
            Ok((file, buffer.freeze()))
        });
        let (back, buffer) = read
            .await
            .map_err(std::io::Error::other)?
            .map_err(disk(&path))?;
        if buffer.is_empty() {
            break;
        }
        file = back;
        let (piece, ()) = envelope.body(Piece::new(buffer, kept), ()).await?;
        deposit.push(piece).await?;
    }
    let (tail, head) = envelope.close(Piece::new(Bytes::new(), kept), Bytes::new());
    deposit.push(tail).await?;
    let volumes = deposit.seal(head).await?;
    std::fs::remove_file(&path).map_err(disk(&path))?;
    let (whole, container) = (
        WholeDump::of_files(&end, entries),
        (container.name(), compression),
    );
    let id = id.clone();
    Ok(Sealed::new(
        job, id, ledger, started, whole, container, volumes,
    ))
}
