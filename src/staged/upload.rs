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
use crate::deposit::{Route, Tee};
use crate::job::{Job, JobError, Stowed, WholeDump, stalled};

/// How much of the file is read at once, in bytes.
const READ: usize = 1 << 20;

/// Uploads the archive and removes the file. What comes out lacks nothing but its completion.
pub async fn upload(
    job: &Arc<Job>,
    id: &BackupId,
    archived: Archived,
    container: Container,
    started: Timestamp,
    routes: &[Route],
    cores: &Cores,
) -> Result<Stowed, JobError> {
    tokio::select! {
        stalled = stalled(job) => Err(stalled),
        stowed = send(job, id, archived, container, started, routes, cores) => stowed,
    }
}

async fn send(
    job: &Arc<Job>,
    id: &BackupId,
    Archived { path, entries, end }: Archived,
    container: Container,
    started: Timestamp,
    routes: &[Route],
    cores: &Cores,
) -> Result<Stowed, JobError> {
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
    let window = job.layout.window(job.wants_digests());
    let mut file = File::open(&path).map_err(disk(&path))?;
    let size = file.metadata().map_err(disk(&path))?.len();
    let mut tee = Tee::new(routes, &job.meter, window, &names, Some(head))?;
    if size > job.layout.part {
        tee.begin().await?;
    }
    let kept = job.checksum_kind();
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
        tee.push(piece).await?;
    }
    let (tail, head) = envelope.close(Piece::new(Bytes::new(), kept), Bytes::new());
    tee.push(tail).await?;
    let landed = tee.seal(head).await?;
    std::fs::remove_file(&path).map_err(disk(&path))?;
    let (whole, container) = (
        WholeDump::of_files(&end, entries),
        (container.name(), compression),
    );
    Ok(Stowed::new(
        job, id, routes, started, &whole, container, landed,
    ))
}
