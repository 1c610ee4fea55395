//! What a disk holds and has left.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use rustix::fs::statvfs;

/// The sum of a measure over all files below `folder`; what goes away meanwhile counts nothing.
pub fn sum(folder: &Path, of: &dyn Fn(&Metadata) -> u64) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let each = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => sum(&entry.path(), of),
        Ok(found) => of(&found),
        Err(_) => 0,
    });
    each.sum()
}

/// Refuses when fewer than `needed` bytes are free in `folder` for `what`.
///
/// # Errors
/// [`io::ErrorKind::StorageFull`] then, in words.
pub fn check_free(folder: &Path, needed: u64, what: &str) -> io::Result<()> {
    let found = statvfs(folder)?;
    let free = found.f_bavail * found.f_frsize;
    if free >= needed {
        return Ok(());
    }
    let (free, needed) = (free >> 20, needed.div_ceil(1 << 20));
    let why = format!("{free} MiB are free, and {what} may need {needed} MiB");
    Err(io::Error::new(io::ErrorKind::StorageFull, why))
}
