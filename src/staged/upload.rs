//! Step C: the archive's file goes to the store, in parts, and becomes a backup.

use std::fs::File;
use std::io::Read;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::archive::Archived;
use super::disk;
use crate::archive::Compression;
use crate::catalog::{self, BackupId, Manifest, Mode, archive_key};
use crate::config::Container;
use crate::deposit::{SharedFootprint, Uploader};
use crate::job::{BackupError, Job, Whole, commit, watch};

/// How much of the file is read at once, in bytes.
const READ: usize = 1 << 20;

/// Uploads the archive, commits the backup, and removes the file.
pub async fn upload(
    job: &Job,
    id: &BackupId,
    archived: Archived,
    container: Container,
    started: Timestamp,
    footprint: &SharedFootprint,
) -> Result<Manifest, BackupError> {
    tokio::select! {
        stalled = watch(&job.meter, job.stall_timeout) => Err(stalled),
        manifest = send(job, id, archived, container, started, footprint) => manifest,
    }
}

async fn send(
    job: &Job,
    id: &BackupId,
    Archived { path, entries, end }: Archived,
    container: Container,
    started: Timestamp,
    footprint: &SharedFootprint,
) -> Result<Manifest, BackupError> {
    let (extension, compression) = match container {
        Container::Tar => (job.compression.extension(), job.compression),
        // Each file in a zip is compressed for itself, and the whole of it is not.
        Container::Zip => ("zip", Compression::None),
    };
    let names = (archive_key(&job.database, id, extension), id.to_string());
    let (store, meter) = (job.store.clone(), job.meter.clone());
    let mut uploader =
        Uploader::begin(store, meter, footprint.clone(), job.layout, names, 0).await?;
    let mut file = File::open(&path).map_err(disk(&path))?;
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
        uploader.push(buffer).await?;
    }
    let sealed = uploader
        .seal(Bytes::new(), Whole::new(end, entries))
        .await?;
    std::fs::remove_file(&path).map_err(disk(&path))?;
    let archive = catalog::Archive {
        container: container.name().into(),
        compression,
        size: 0,
        volumes: Vec::new(),
    };
    let facts = job.facts(id, Mode::Staged, started, archive);
    Ok(commit(&*job.store, &job.meter, footprint, sealed, facts).await?)
}
