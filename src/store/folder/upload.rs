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
//! What becomes of the parts in the end is in `object`, and what is written down of each in `mark`.
//!
//! Every byte of a part is on the disk before its receipt is given, so a full disk ends a dump when it
//! is full and not at the end; the object gets its name when all of it is on the disk.

use std::fs::File;
use std::io::Write;

use rustix::io::Errno;

use super::fault::Fault;
use super::mark::{Mark, etag, joined_checksum, own_name, write};
use super::place::{Place, UPLOAD, UPLOADS};
use super::tree::Folder;
use crate::store::pace::Paces;
use crate::store::progress::Progress;
use crate::store::{Checksum, ErrorKind, PartBody, PartReceipt, StoreError, UploadInfo, Written};

const BEGIN: &str = "begin";
pub(super) const PARTS: &str = "parts";
const DATA: &str = "data-";
/// How often a folder is made again that another job has removed because nothing was in it, and
/// an upload is emptied.
pub(super) const TRIES: usize = 10;

fn no_upload(id: &str) -> Fault {
    StoreError::new(ErrorKind::NotFound, format!("NoSuchUpload: {id}")).into()
}

pub(super) fn invalid(why: impl Into<String>) -> Fault {
    StoreError::new(ErrorKind::Invalid, why).into()
}

/// An upload that is under way.
pub(super) struct Open<'a> {
    pub base: &'a Folder,
    pub place: &'a Place<'a>,
    id: &'a str,
    pub folder: Folder,
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

    pub fn data_name(&self) -> Result<Option<(String, u64)>, Fault> {
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
        pace: (&Progress, &Paces),
    ) -> Result<PartReceipt, Fault> {
        let parts = self
            .folder
            .enter(PARTS)
            .map_err(|error| self.gone(error.into()))?;
        let size = body.len();
        let fits = size <= stride;
        if fits {
            write(data, u64::from(number - 1) * stride, body, pace)?;
        } else {
            let own = parts
                .overwrite(&own_name(number))
                .map_err(|error| self.gone(error.into()))?;
            write(&own, 0, body, pace)?;
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
        pace: (&Progress, &Paces),
    ) -> Result<Written, Fault> {
        let name = format!("{DATA}{}", body.len());
        let data = self.folder.create(&name)?;
        write(&data, 0, body, pace)?;
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

/// The key of an upload's folder, and its id, from its way below the store.
pub(super) fn of_way(way: &str) -> Option<(String, String)> {
    let rest = way.strip_prefix(UPLOADS)?.strip_prefix('/')?;
    let (key, upload) = rest.rsplit_once('/')?;
    Some((key.to_owned(), upload.strip_prefix(UPLOAD)?.to_owned()))
}
