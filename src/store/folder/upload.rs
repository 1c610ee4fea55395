//! An upload on disk, from its begin to its object.
//!
//! ```text
//! .tapline/KEY…/+upload-ID/begin          empty; its time is the upload's begin
//!                         /data-STRIDE    the object to be: part n at (n - 1) × STRIDE
//!                         /parts/N        size and checksum of part N; its time is its arrival
//!                         /parts/N.own    its bytes, where they have no place in the data
//! ```
//!
//! Parts have one size but for the last, so the first that arrives says where all others belong, and
//! what is complete needs no copy. Only where the first to arrive was the last of all, which a few
//! parts on their way at once can come to, those few are joined by copying.
//!
//! Every byte of a part is on the disk before its receipt is given, so a full disk ends a dump when it
//! is full and not at the end; the object gets its name when all of it is on the disk.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::{self, Stat};
use rustix::io::Errno;

use super::fault::Fault;
use super::place::{Place, UPLOAD, UPLOADS};
use super::tree::Folder;
use crate::store::progress::Progress;
use crate::store::{
    Checksum, ChecksumKind, ErrorKind, PartBody, PartReceipt, StoreError, UploadInfo, Written,
};

const BEGIN: &str = "begin";
const PARTS: &str = "parts";
const DATA: &str = "data-";
const JOINED: &str = "joined";
/// Written at once, so that a slow disk is seen to move.
const PIECE: usize = 1 << 20;
/// Written to the disk at once: at 1 MB/s a minute.
const SYNC: usize = 64 << 20;
/// How often a folder is made again that another job has removed because nothing was in it, and
/// an upload is emptied.
const TRIES: usize = 10;

fn no_upload(id: &str) -> Fault {
    StoreError::new(ErrorKind::NotFound, format!("NoSuchUpload: {id}")).into()
}

fn invalid(why: impl Into<String>) -> Fault {
    StoreError::new(ErrorKind::Invalid, why).into()
}

/// An upload that is under way.
pub(super) struct Open<'a> {
    base: &'a Folder,
    place: &'a Place<'a>,
    id: &'a str,
    folder: Folder,
}

/// Begins an upload and names it.
pub(super) fn begin(base: &Folder, place: &Place<'_>) -> Result<String, Fault> {
    let id = format!("{:016x}", fastrand::u64(..));
    for _ in 1..TRIES {
        match make(base, place, &id) {
            Err(error) if error.is(Errno::NOENT) => {}
            made => return made.map(|()| id),
        }
    }
    make(base, place, &id).map(|()| id)
}

fn make(base: &Folder, place: &Place<'_>, id: &str) -> Result<(), Fault> {
    let folder = base.make_way(place.of_uploads(), false)?;
    let folder = folder.make(&format!("{UPLOAD}{id}"), false)?;
    folder.make(PARTS, false)?;
    folder.create(BEGIN)?;
    Ok(())
}

/// When the upload whose folder this is was begun.
pub(super) fn begun(folder: &Folder) -> Result<i64, Fault> {
    let stat = match folder.stat(BEGIN)? {
        Some(stat) => stat,
        None => folder.own_stat()?,
    };
    Ok(stat.st_mtime)
}

impl<'a> Open<'a> {
    /// # Errors
    /// When there is no such upload.
    pub fn find(base: &'a Folder, place: &'a Place<'a>, id: &'a str) -> Result<Self, Fault> {
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(no_upload(id));
        }
        let found = base
            .walk(place.of_uploads())
            .and_then(|folder| folder.enter(&format!("{UPLOAD}{id}")));
        match found {
            Ok(folder) => Ok(Self {
                base,
                place,
                id,
                folder,
            }),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(no_upload(id)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether nothing is left of it is told by what it was doing when it found nothing.
    fn gone(&self, fault: Fault) -> Fault {
        if fault.is(Errno::NOENT) {
            no_upload(self.id)
        } else {
            fault
        }
    }

    /// The data file, made by the first part; parts of one upload ask one after the other.
    pub fn data(&self, first: u64) -> Result<(File, u64), Fault> {
        if let Some((name, stride)) = self.data_name()? {
            return Ok((self.folder.write(&name)?, stride));
        }
        let made = self.folder.create(&format!("{DATA}{first}"));
        made.map(|file| (file, first))
            .map_err(|error| self.gone(error.into()))
    }

    fn data_name(&self) -> Result<Option<(String, u64)>, Fault> {
        let entries = self
            .folder
            .entries()
            .map_err(|error| self.gone(error.into()))?;
        Ok(entries.into_iter().find_map(|entry| {
            let stride = entry.name.strip_prefix(DATA)?.parse().ok()?;
            Some((entry.name, stride))
        }))
    }

    /// Writes a part to its place in `data`, or beside it.
    pub fn put(
        &self,
        (data, stride): (&File, u64),
        number: u32,
        (body, checksum): (&PartBody, Checksum),
        progress: &Progress,
    ) -> Result<PartReceipt, Fault> {
        let parts = self
            .folder
            .enter(PARTS)
            .map_err(|error| self.gone(error.into()))?;
        let size = body.len();
        let fits = size <= stride;
        if fits {
            write(data, u64::from(number - 1) * stride, body, progress)?;
        } else {
            let own = parts
                .overwrite(&own_name(number))
                .map_err(|error| self.gone(error.into()))?;
            write(&own, 0, body, progress)?;
        }
        let mut mark = parts
            .overwrite(&number.to_string())
            .map_err(|error| self.gone(error.into()))?;
        let text = Mark {
            size,
            checksum,
            own: !fits,
        };
        mark.write_all(text.to_text().as_bytes())?;
        Ok(PartReceipt {
            number,
            size,
            etag: etag(checksum),
            checksum: Some(checksum),
        })
    }

    /// Joins the parts, and gives what they are the key.
    pub fn complete(
        self,
        receipts: &[PartReceipt],
        sent: Option<Checksum>,
    ) -> Result<Written, Fault> {
        let marks = self.marks(receipts)?;
        let whole = joined_checksum(receipts, &marks);
        if sent.is_some_and(|sent| Some(sent) != whole) {
            return Err(invalid(
                "BadDigest: the checksum of the object is not that of its parts",
            ));
        }
        let size = marks.iter().map(|mark| mark.size).sum();
        let (name, data) = self.joined(receipts, &marks, size)?;
        self.publish(&name, &data, size, whole)
    }

    /// A small object: an upload of one part that nobody else has seen.
    pub fn put_whole(
        self,
        (body, checksum): (&PartBody, Checksum),
        progress: &Progress,
    ) -> Result<Written, Fault> {
        let name = format!("{DATA}{}", body.len());
        let data = self.folder.create(&name)?;
        write(&data, 0, body, progress)?;
        self.publish(&name, &data, body.len(), Some(checksum))
    }

    /// What is written down of each part that is named: it must be what its receipt says.
    fn marks(&self, receipts: &[PartReceipt]) -> Result<Vec<Mark>, Fault> {
        if receipts.is_empty() {
            return Err(invalid("MalformedXML: no part is named"));
        }
        if !receipts.is_sorted_by(|a, b| a.number < b.number) {
            return Err(invalid("InvalidPartOrder: the parts are not in order"));
        }
        let parts = self
            .folder
            .enter(PARTS)
            .map_err(|error| self.gone(error.into()))?;
        let marks = receipts.iter().map(|receipt| {
            let number = receipt.number;
            match Mark::read(&parts, number)? {
                Some(mark) if etag(mark.checksum) == receipt.etag => Ok(mark),
                _ => Err(invalid(format!(
                    "InvalidPart: part {number} is not what was uploaded"
                ))),
            }
        });
        marks.collect()
    }

    /// The file with all parts in it, and its name: nearly always the data as they are.
    fn joined(
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
    fn publish(
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

    /// Takes away all of it; parts on their way find nothing to write to.
    pub fn remove(self) -> Result<(), Fault> {
        let name = format!("{UPLOAD}{}", self.id);
        let way = self.place.of_uploads();
        let above = self.base.walk(way.iter().copied())?;
        let mut emptied = self.empty(&above, &name);
        for _ in 1..TRIES {
            // Parts on their way still write, or the disk hiccups.
            if emptied.is_err() {
                emptied = self.empty(&above, &name);
            }
        }
        gone(emptied)?;
        self.base.prune(&way);
        Ok(())
    }

    fn empty(&self, above: &Folder, name: &str) -> rustix::io::Result<()> {
        match self.folder.enter(PARTS) {
            Ok(parts) => {
                for entry in parts.entries()? {
                    gone(parts.remove_file(&entry.name))?;
                }
                gone(self.folder.remove_folder(PARTS))?;
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        for entry in self.folder.entries()? {
            gone(self.folder.remove_file(&entry.name))?;
        }
        above.remove_folder(name)
    }

    /// What it holds.
    pub fn info(&self) -> Result<UploadInfo, Fault> {
        let mut info = UploadInfo::default();
        let parts = self.folder.enter(PARTS)?;
        for entry in parts.entries()? {
            let Ok(number) = entry.name.parse() else {
                continue;
            };
            if let (Some(mark), Some(stat)) =
                (Mark::read(&parts, number)?, parts.stat(&entry.name)?)
            {
                info.add(mark.size, stat.st_mtime);
            }
        }
        Ok(info)
    }
}

/// What is gone already need not be removed.
fn gone(removed: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match removed {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

/// What is written down of a part.
struct Mark {
    size: u64,
    checksum: Checksum,
    /// Whether its bytes are in a file of their own.
    own: bool,
}

impl Mark {
    fn to_text(&self) -> String {
        let place = if self.own { "own" } else { "data" };
        format!("{} {} {place}\n", self.size, self.checksum.to_base64())
    }

    /// `None` when the part is not there, or was not written to its end.
    fn read(parts: &Folder, number: u32) -> Result<Option<Self>, Fault> {
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

fn own_name(number: u32) -> String {
    format!("{number}.own")
}

fn etag(checksum: Checksum) -> String {
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
fn joined_checksum(receipts: &[PartReceipt], marks: &[Mark]) -> Option<Checksum> {
    debug_assert_eq!(receipts.len(), marks.len());
    marks
        .iter()
        .map(|mark| (mark.checksum, mark.size))
        .reduce(|(before, size), (next, length)| (before.then(next, length), size + length))
        .map(|(checksum, _)| checksum)
}

/// Writes a body from `at` on, and to the disk.
fn write(file: &File, at: u64, body: &PartBody, progress: &Progress) -> Result<(), Fault> {
    let (mut at, mut left, mut unsynced) = (at, body.len(), 0);
    for buffer in body.buffers() {
        for piece in buffer.chunks(PIECE) {
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

/// The key of an upload's folder, and its id, from its way below the store.
pub(super) fn of_way(way: &str) -> Option<(String, String)> {
    let rest = way.strip_prefix(UPLOADS)?.strip_prefix('/')?;
    let (key, upload) = rest.rsplit_once('/')?;
    Some((key.to_owned(), upload.strip_prefix(UPLOAD)?.to_owned()))
}
