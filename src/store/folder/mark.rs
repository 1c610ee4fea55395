//! What is written down of each part of an upload, and its bytes written to the disk.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use rustix::fs;
use rustix::io::Errno;
use tokio::time::Instant;

use super::fault::Fault;
use super::tree::Folder;
use super::upload::invalid;
use crate::store::pace::Paces;
use crate::store::progress::Progress;
use crate::store::{Checksum, ChecksumKind, PartBody, PartReceipt};

/// Written at once, so that a slow disk is seen to move.
const PIECE: usize = 1 << 20;
/// Written to the disk at once: at 1 MB/s a minute.
const SYNC: usize = 64 << 20;

/// What is written down of a part.
pub(super) struct Mark {
    pub size: u64,
    pub checksum: Checksum,
    /// Whether its bytes are in a file of their own.
    pub own: bool,
}

impl Mark {
    pub fn to_text(&self) -> String {
        let place = if self.own { "own" } else { "data" };
        format!("{} {} {place}\n", self.size, self.checksum.to_base64())
    }

    /// `None` when the part is not there, or was not written to its end.
    pub fn read(parts: &Folder, number: u32) -> Result<Option<Self>, Fault> {
        let mut text = String::new();
        match parts.read(&number.to_string()) {
            Ok(file) => file.take(1024).read_to_string(&mut text)?,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let parsed = || {
            let mut words = text.strip_suffix('\n')?.split(' ');
            let (size, checksum, place) = (words.next()?, words.next()?, words.next()?);
            Some(Self {
                size: size.parse().ok()?,
                checksum: Checksum::from_base64(ChecksumKind::Crc64Nvme, checksum)?,
                own: place == "own",
            })
        };
        Ok(parsed())
    }
}

pub(super) fn own_name(number: u32) -> String {
    format!("{number}.own")
}

pub(super) fn etag(checksum: Checksum) -> String {
    format!("\"{}\"", checksum.to_base64())
}

/// The checksum of a body, which must be what one that came with it says.
pub(super) fn checked(body: &PartBody, sent: Option<Checksum>) -> Result<Checksum, Fault> {
    let of = |kind| Checksum::of_buffers(kind, body.buffers().iter().map(AsRef::as_ref));
    match sent {
        Some(sent) if of(sent.kind()) != sent => Err(invalid(
            "BadDigest: the checksum of the part is not that of its bytes",
        )),
        Some(sent) if sent.kind() == ChecksumKind::Crc64Nvme => Ok(sent),
        _ => Ok(of(ChecksumKind::Crc64Nvme)),
    }
}

/// The checksum of parts that are numbered from 1 without a gap or not, one after the other.
pub(super) fn joined_checksum(receipts: &[PartReceipt], marks: &[Mark]) -> Option<Checksum> {
    debug_assert_eq!(receipts.len(), marks.len());
    marks
        .iter()
        .map(|mark| (mark.checksum, mark.size))
        .reduce(|(before, size), (next, length)| (before.then(next, length), size + length))
        .map(|(checksum, _)| checksum)
}

/// Writes a body from `at` on, and to the disk.
pub(super) fn write(
    file: &File,
    at: u64,
    body: &PartBody,
    (progress, paces): (&Progress, &Paces),
) -> Result<(), Fault> {
    let (mut at, mut left, mut unsynced) = (at, body.len(), 0);
    for buffer in body.buffers() {
        for piece in buffer.chunks(PIECE) {
            if let Some(turn) = paces.turn(piece.len()) {
                progress.moves_at(turn);
                std::thread::sleep(turn.saturating_duration_since(Instant::now()));
            }
            file.write_all_at(piece, at)?;
            at += piece.len() as u64;
            left -= piece.len() as u64;
            unsynced += piece.len();
            if unsynced >= SYNC {
                fs::fdatasync(file)?;
                unsynced = 0;
            }
            progress.moved_to(left);
        }
    }
    fs::fdatasync(file)?;
    Ok(())
}
