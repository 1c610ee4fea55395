//! Step B: the folder of a dump becomes one file, `.tar.gz`, `.tar.zst`, `.tar` or `.zip`.
//!
//! A tar archive is compressed like the stream's, on all cores, and is read back by the same code;
//! only that the sizes are known here, and the hashes, computed while the files are read, are in
//! the manifest alone. Each file is removed when it has been read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::disk;
use super::dump::{Dumped, DumpedFile};
use crate::archive::{Compression, END_LEN, TarHeader, hex, padding};
use crate::archive::{Cores, Encoding, encoder};
use crate::catalog::Entry;
use crate::config::Container;
use crate::dump::DumpEnd;
use crate::job::{Job, JobError};
use crate::scratch::check_free;

/// A dump compresses to no less than this share, as far as the check for free space is concerned.
const BEST_RATIO: u64 = 10;
/// How much of a file is read at once for a zip, in bytes.
const READ: usize = 1 << 20;

/// An archive that is whole, as a file.
pub struct Archived {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub entries: Vec<Entry>,
    /// The proof that the dump was whole.
    pub end: DumpEnd,
}

/// Makes the archive of a dump, in `folder`.
pub async fn archive(
    job: &Job,
    dumped: Dumped,
    container: Container,
    folder: &Path,
    cores: &Cores,
) -> Result<Archived, JobError> {
    let size: u64 = dumped.files.iter().map(|file| file.size).sum();
    let needed = if job.compression == Compression::None {
        size
    } else {
        size / BEST_RATIO
    };
    check_free(folder, needed, &format!("the archive of {}", job.database))
        .map_err(disk(folder))?;
    let (path, Dumped { files, end }) = (folder.join("archive"), dumped);
    let entries = match container {
        Container::Tar => tar(job, files, &path, cores).await?,
        Container::Zip => zip(job, files, &path).await?,
    };
    Ok(Archived { path, entries, end })
}

async fn tar(
    job: &Job,
    files: Vec<DumpedFile>,
    path: &Path,
    cores: &Cores,
) -> Result<Vec<Entry>, JobError> {
    let (compression, failed) = (job.compression, disk(path));
    let (first, last) = (&files[0], &files[files.len() - 1]);
    let (header, rest) = (header(first), padding(last.size) + END_LEN);
    let mut out = File::create(path).map_err(&failed)?;
    out.write_all(&compression.head(&header)).map_err(&failed)?;

    let encoding = Encoding {
        compression,
        level: job.level,
        segment: job.layout.segment,
        workers: job.layout.workers,
        feeds: 1,
        checksum: None,
        sha256: false,
    };
    let (mut inlet, mut outlet) = encoder(cores, encoding, &job.meter);
    let read = async move {
        let mut tar = TarStream::new(files);
        loop {
            let mut room = inlet.room().await;
            let read = spawn_blocking(move || tar.next(room.segment()).map(|()| (tar, room))).await;
            let (back, mut room) = read.map_err(io::Error::other)??;
            tar = back;
            if room.segment().is_empty() {
                return Ok::<_, io::Error>(tar.entries);
            }
            inlet.put(room).await;
        }
    };
    let write = async {
        while let Some((piece, _room)) = outlet.next().await? {
            let write = move || out.write_all(&piece.into_parts().0).map(|()| out);
            out = spawn_blocking(write).await.map_err(io::Error::other)??;
        }
        Ok::<_, io::Error>(out)
    };
    let (entries, mut out) = tokio::try_join!(read, write).map_err(&failed)?;
    let (tail, _) = outlet.tail(&header, rest).into_parts();
    out.write_all(&tail).map_err(&failed)?;
    Ok(entries)
}

fn header(file: &DumpedFile) -> [u8; crate::archive::HEADER_LEN] {
    TarHeader {
        name: file.name.clone(),
        size: file.size,
        sha256: None,
    }
    .to_bytes()
}

/// A tar archive's bytes from behind its first header to the end of its last file.
struct TarStream {
    files: VecDeque<DumpedFile>,
    open: Option<(File, Sha256, u64)>,
    /// Padding and header between two files.
    between: Bytes,
    entries: Vec<Entry>,
}

impl TarStream {
    fn new(files: Vec<DumpedFile>) -> Self {
        Self {
            files: files.into(),
            open: None,
            between: Bytes::new(),
            entries: Vec::new(),
        }
    }

    /// Fills `bytes` up to its capacity, less at the end, then not at all.
    fn next(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let segment = bytes.capacity();
        while bytes.len() < segment {
            let room = segment - bytes.len();
            if !self.between.is_empty() {
                bytes.extend_from_slice(&self.between.split_to(room.min(self.between.len())));
                continue;
            }
            let Some(file) = self.files.front() else {
                break;
            };
            let (open, hash, left) = match &mut self.open {
                Some(open) => open,
                none => none.insert((File::open(&file.path)?, Sha256::new(), file.size)),
            };
            let length = usize::try_from(*left).unwrap_or(room).min(room);
            let from = bytes.len();
            bytes.resize(from + length, 0);
            open.read_exact(&mut bytes[from..])?;
            hash.update(&bytes[from..]);
            *left -= length as u64;
            if *left == 0 {
                self.next_file()?;
            }
        }
        Ok(())
    }

    /// The file has been read: it is removed, and the next one's header follows its padding.
    fn next_file(&mut self) -> io::Result<()> {
        let (Some(done), Some((_, hash, _))) = (self.files.pop_front(), self.open.take()) else {
            return Ok(());
        };
        std::fs::remove_file(&done.path)?;
        if let Some(next) = self.files.front() {
            self.between = [&vec![0; padding(done.size)][..], &header(next)]
                .concat()
                .into();
        }
        self.entries.push(Entry {
            name: done.name,
            size: done.size,
            sha256: hex(&hash.finalize()),
        });
        Ok(())
    }
}

async fn zip(job: &Job, files: Vec<DumpedFile>, path: &Path) -> Result<Vec<Entry>, JobError> {
    let (method, level) = match job.compression {
        Compression::Gzip => (CompressionMethod::Deflated, Some(i64::from(job.level))),
        _ => (CompressionMethod::Stored, None),
    };
    let options = SimpleFileOptions::default()
        .compression_method(method)
        .compression_level(level);
    let wanted = Wanted(Arc::new(AtomicBool::new(true)));
    let (out, flag) = (path.to_owned(), wanted.0.clone());
    let written = spawn_blocking(move || {
        let mut zip = ZipWriter::new(File::create(out)?);
        let (mut entries, mut buffer) = (Vec::new(), vec![0; READ]);
        for file in files {
            // A size of 4 GiB and more has a place only when that is said before.
            zip.start_file(
                &file.name,
                options
                    .large_file(file.size >= u32::MAX.into())
                    .unix_permissions(0o600),
            )?;
            let (mut from, mut hash, mut size) = (File::open(&file.path)?, Sha256::new(), 0);
            loop {
                if !flag.load(Ordering::Relaxed) {
                    return Err(io::Error::other("interrupted"));
                }
                let read = from.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                hash.update(&buffer[..read]);
                size += read as u64;
                zip.write_all(&buffer[..read])?;
            }
            if size != file.size {
                return Err(io::Error::other(format!(
                    "{} has changed since it was dumped",
                    file.path.display()
                )));
            }
            std::fs::remove_file(&file.path)?;
            entries.push(Entry {
                name: file.name,
                size,
                sha256: hex(&hash.finalize()),
            });
        }
        zip.finish()?;
        Ok(entries)
    });
    written.await.map_err(io::Error::other)?.map_err(disk(path))
}

/// Dropped, it ends the thread that writes a zip.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
