//! Files and folders that are made beside what they are to become, and get their name when they are
//! whole.
//!
//! A restore that is killed cannot tidy up. So what is being written is locked, and the next restore
//! into the same folder removes what nobody holds.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use tempfile::{NamedTempFile, TempDir};

const PREFIX: &str = ".tapline-";
/// As many letters as `tempfile` puts behind it.
const RANDOM: usize = 6;

/// A new, locked file in `folder`. With `private` it is its owner's alone; else whose it is decides
/// the umask, as for any new file.
///
/// # Errors
/// When it cannot be made.
pub fn file_beside(folder: &Path, private: bool) -> io::Result<NamedTempFile> {
    sweep(folder);
    let mode = if private { 0o600 } else { 0o666 };
    loop {
        let new = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder)?;
        // Where a file system has no locks, there is nothing to be found by them either.
        let _ = flock(new.as_file(), FlockOperation::NonBlockingLockExclusive);
        // Between the making and the lock another one may have taken it for nobody's.
        if new.as_file().metadata()?.nlink() > 0 {
            return Ok(new);
        }
    }
}

/// A new, locked folder in `folder`, and what holds its lock.
///
/// # Errors
/// When it cannot be made.
pub fn folder_beside(folder: &Path) -> io::Result<(TempDir, File)> {
    sweep(folder);
    let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(folder)?;
    let lock = File::open(made.path())?;
    let _ = flock(&lock, FlockOperation::NonBlockingLockExclusive);
    Ok((made, lock))
}

/// Removes what killed restores have left in `folder`; what cannot be removed is only said.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let random =
            |end: &str| end.len() == RANDOM && end.bytes().all(|b| b.is_ascii_alphanumeric());
        if !ours.is_some_and(random) {
            continue;
        }
        let path = entry.path();
        // Not through a link, which somebody else may have put there.
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        if !found.is_file() && !found.is_dir() {
            continue;
        }
        let Ok(left) = File::open(&path) else {
            continue;
        };
        if flock(&left, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let removed = if found.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        match removed {
            Ok(()) => tracing::warn!(
                "removed {}, which a killed restore had left",
                path.display()
            ),
            Err(error) => tracing::warn!(
                "{}, which a killed restore has left, cannot be removed: {error}",
                path.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in [".tapline-abc123", ".tapline-notes", ".tapline-abc1234", "x"] {
            fs::write(path(name), "x").unwrap();
        }
        fs::create_dir(path(".tapline-def456")).unwrap();
        fs::write(path(".tapline-def456/inner"), "x").unwrap();
        let held = file_beside(folder.path(), true).unwrap();
        let (held_folder, _lock) = folder_beside(folder.path()).unwrap();
        let open = file_beside(folder.path(), false).unwrap();
        for gone in [".tapline-abc123", ".tapline-def456"] {
            assert!(!path(gone).exists(), "{gone}");
        }
        for stays in ["x", ".tapline-abc1234"] {
            assert!(path(stays).exists(), "{stays}");
        }
        assert!(held.path().exists() && held_folder.path().exists());
        let mode = |file: &NamedTempFile| file.as_file().metadata().unwrap().mode() & 0o777;
        let ordinary = File::create(path("ordinary")).unwrap();
        let ordinary = ordinary.metadata().unwrap().mode() & 0o777;
        assert_eq!((mode(&held), mode(&open)), (0o600, ordinary));
    }
}
