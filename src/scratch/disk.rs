//! What a disk holds and has left.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
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

/// The bytes that the files below `folder` occupy.
pub fn occupied(folder: &Path) -> u64 {
    /// As `st_blocks` counts, whatever the file system's blocks are.
    const BLOCK: u64 = 512;
    sum(folder, &|file| file.blocks() * BLOCK)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_all_folders_are_counted_by_the_blocks_that_they_occupy() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(occupied(folder.path()), 0);
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        std::fs::write(folder.path().join("inner/a"), vec![1; 100_000]).unwrap();
        let sparse = std::fs::File::create(folder.path().join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        let bytes = occupied(folder.path());
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
        assert_eq!(occupied(Path::new("/nowhere")), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_in_words() {
        let error = check_free(Path::new("/"), u64::MAX, "the dump of shop").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(
            error
                .to_string()
                .contains("MiB are free, and the dump of shop may need"),
            "{error}"
        );
        check_free(Path::new("/"), 0, "nothing").unwrap();
    }
}
