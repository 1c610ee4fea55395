//! Listings: the keys below a prefix, in their order, a page at a time.

use rustix::io::Errno;

use super::fault::Fault;
use super::place::{UPLOAD, UPLOADS, is_hidden};
use super::tree::{Entry, Folder};
use super::upload;
use crate::store::{ObjectInfo, OpenUpload, Page};

/// Entries of one page, as S3 has it.
const PAGE: usize = 1000;
/// Keys have three components; what is deeper than this is not ours.
const DEEPEST: usize = 16;

/// What is looked for.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Objects,
    Uploads,
}

struct Walk<'a> {
    wanted: Wanted,
    prefix: &'a str,
    after: Option<&'a str>,
    /// Ways that were found, each with the folder that they are in.
    found: Vec<(String, Seen)>,
}

enum Seen {
    Object { size: u64, modified: i64 },
    Upload { begun: i64 },
}

/// A page of the objects whose keys begin with `prefix`, after the key `after`.
pub(super) fn objects(
    base: &Folder,
    prefix: &str,
    after: Option<&str>,
) -> Result<Page<ObjectInfo>, Fault> {
    page(base, Wanted::Objects, prefix, after, |key, seen| {
        let Seen::Object { size, modified } = seen else {
            return None;
        };
        Some(ObjectInfo {
            key,
            size,
            modified,
            checksum: None,
            backup_id: None,
        })
    })
}

/// A page of the open uploads whose keys begin with `prefix`.
pub(super) fn uploads(
    base: &Folder,
    prefix: &str,
    after: Option<&str>,
) -> Result<Page<OpenUpload>, Fault> {
    let prefix = format!("{UPLOADS}/{prefix}");
    page(base, Wanted::Uploads, &prefix, after, |way, seen| {
        let Seen::Upload { begun } = seen else {
            return None;
        };
        let (key, id) = upload::of_way(&way)?;
        Some(OpenUpload {
            key,
            id,
            initiated: begun,
        })
    })
}

fn page<T>(
    base: &Folder,
    wanted: Wanted,
    prefix: &str,
    after: Option<&str>,
    describe: impl Fn(String, Seen) -> Option<T>,
) -> Result<Page<T>, Fault> {
    let mut walk = Walk {
        wanted,
        prefix,
        after,
        found: Vec::new(),
    };
    walk.look_into(base, "", 0)?;
    // One more than a page was looked for.
    let more = walk.found.len() > PAGE;
    walk.found.truncate(PAGE);
    let next = walk.found.last().filter(|_| more);
    let next = next.map(|(way, _)| way.clone());
    let found = walk.found.into_iter();
    Ok(Page {
        items: found
            .filter_map(|(way, seen)| describe(way, seen))
            .collect(),
        next,
    })
}

impl Walk<'_> {
    fn look_into(&mut self, folder: &Folder, way: &str, depth: usize) -> Result<(), Fault> {
        let entries = match folder.entries() {
            Err(Errno::NOENT) => return Ok(()),
            entries => entries?,
        };
        for Entry { name, is_folder } in entries {
            if self.found.len() > PAGE {
                return Ok(());
            }
            let here = format!("{way}{name}");
            if is_folder && self.wanted == Wanted::Uploads && name.starts_with(UPLOAD) {
                if self.is_wanted(&here)
                    && let Some(upload) = entered(folder, &name)?
                {
                    let begun = upload::begun(&upload)?;
                    self.found.push((here, Seen::Upload { begun }));
                }
            } else if is_folder {
                let below = format!("{here}/");
                if depth < DEEPEST
                    && self.may_have(&below)
                    && (self.wanted == Wanted::Uploads || !is_hidden(&name))
                    && let Some(inner) = entered(folder, &name)?
                {
                    self.look_into(&inner, &below, depth + 1)?;
                }
            } else if self.wanted == Wanted::Objects
                && self.is_wanted(&here)
                && let Some(stat) = folder.stat(&name)?
            {
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                let modified = stat.st_mtime;
                self.found.push((here, Seen::Object { size, modified }));
            }
        }
        Ok(())
    }

    fn is_wanted(&self, way: &str) -> bool {
        way.starts_with(self.prefix) && self.after.is_none_or(|after| way > after)
    }

    /// Whether something that is wanted may be below a folder.
    fn may_have(&self, below: &str) -> bool {
        let on_the_way = below.starts_with(self.prefix) || self.prefix.starts_with(below);
        let passed = |after: &str| below < after && !after.starts_with(below);
        on_the_way && !self.after.is_some_and(passed)
    }
}

/// A folder that may be gone since it was listed.
fn entered(folder: &Folder, name: &str) -> Result<Option<Folder>, Fault> {
    match folder.enter(name) {
        Ok(inner) => Ok(Some(inner)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
