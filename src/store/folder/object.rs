//! The end of an upload: its file is whole, on the disk, and gets the key for its name.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::{self, Stat};
use rustix::io::Errno;

use super::fault::Fault;
use super::mark::{Mark, own_name};
use super::upload::{Open, PARTS, TRIES, invalid};
use crate::store::{Checksum, ErrorKind, PartReceipt, StoreError, Written};

const JOINED: &str = "joined";
/// Copied at once.
const PIECE: usize = 1 << 20;

impl Open<'_> {
    /// The file with all parts in it, and its name: nearly always the data as they are.
    pub(super) fn joined(
        &self,
        receipts: &[PartReceipt],
        marks: &[Mark],
        size: u64,
    ) -> Result<(String, File), Fault> {
        let found = self.data_name()?;
        let Some((name, stride)) = found else {
            return Err(invalid("the parts' bytes are gone"));
        };
        let data = self.folder.write(&name)?;
        let mut end = 0;
        let in_place = receipts.iter().zip(marks).all(|(receipt, mark)| {
            let at = u64::from(receipt.number - 1) * stride;
            let follows = at == end && !mark.own;
            end = at + mark.size;
            follows
        });
        if in_place {
            // A part that was put twice may have been longer the first time.
            fs::ftruncate(&data, size)?;
            return Ok((name, data));
        }
        let parts = self.folder.enter(PARTS)?;
        let mut joined = self.folder.overwrite(JOINED)?;
        for (receipt, mark) in receipts.iter().zip(marks) {
            if mark.own {
                let own = parts.read(&own_name(receipt.number))?;
                copy(&own, 0, mark.size, &mut joined)?;
            } else {
                let at = u64::from(receipt.number - 1) * stride;
                copy(&data, at, mark.size, &mut joined)?;
            }
        }
        Ok((JOINED.to_owned(), joined))
    }

    /// Makes what is in the file called `name` the object, if no object has the key.
    pub(super) fn publish(
        self,
        name: &str,
        data: &File,
        size: u64,
        checksum: Option<Checksum>,
    ) -> Result<Written, Fault> {
        // When this fails, the kernel may forget what it could not write, and would say yes to a
        // second try: there must be none.
        fs::fsync(data).map_err(|error| {
            let why = format!("the object may not be on the disk: {error}");
            invalid(why)
        })?;
        let ours = fs::fstat(data)?;
        if u64::try_from(ours.st_size) != Ok(size) {
            let has = ours.st_size;
            return Err(invalid(format!(
                "its parts have {size} bytes, and the file {has}"
            )));
        }
        let mut named = self.name(name, &ours);
        for _ in 1..TRIES {
            match named {
                Err(error) if error.is(Errno::NOENT) => named = self.name(name, &ours),
                _ => break,
            }
        }
        named?;
        let etag = format!("\"{size}-{}-{}\"", ours.st_mtime, ours.st_ino);
        if let Err(error) = self.remove() {
            let error = error.explain(false);
            tracing::info!(%error, "an upload stays open until `tapline cleanup`");
        }
        Ok(Written {
            etag: Some(etag),
            checksum,
            is_proven: true,
        })
    }

    /// One try to give a file the key as its name. A link whose reply was lost is there already, and
    /// is told by its inode.
    fn name(&self, name: &str, ours: &Stat) -> Result<(), Fault> {
        let key = self.place.name;
        let to = self
            .base
            .make_way(self.place.folders.iter().copied(), true)?;
        let is_ours = || {
            let there = to.stat(key).ok().flatten();
            there.is_some_and(|there| (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino))
        };
        let linked = match to.link((&self.folder, name), key) {
            // FAT and some network file systems have no links.
            Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::MLINK) => {
                to.take((&self.folder, name), key)
            }
            linked => linked,
        };
        match linked {
            Ok(()) => {}
            Err(_) if is_ours() => {}
            Err(Errno::EXIST) => {
                let why = format!("PreconditionFailed: {}", self.place.name);
                return Err(StoreError::new(ErrorKind::AlreadyExists, why).into());
            }
            Err(Errno::INVAL) => return Err(Errno::NOTSUP.into()),
            Err(error) => return Err(error.into()),
        }
        // A name that a power cut would take away is none.
        to.sync().map_err(|error| {
            let _ = to.remove_file(key);
            error.into()
        })
    }
}

fn copy(from: &File, at: u64, length: u64, to: &mut File) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let (mut at, end) = (at, at + length);
    while at < end {
        let most = piece
            .len()
            .min(usize::try_from(end - at).unwrap_or(piece.len()));
        from.read_exact_at(&mut piece[..most], at)?;
        to.write_all(&piece[..most])?;
        at += most as u64;
    }
    Ok(())
}
