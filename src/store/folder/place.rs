//! Where a key's object is, and whether the disk that should be there is.

use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::tree::Folder;
use crate::store::{ErrorKind, StoreError};

/// Where uploads are until they are objects.
pub(super) const UPLOADS: &str = ".tapline";
/// How the folder of an upload begins; no key has a component that does.
pub(super) const UPLOAD: &str = "+upload-";
/// What ext4 makes at the top of a disk, for root alone.
const LOST: &str = "lost+found";
/// No file system takes a longer name.
pub const LONGEST_NAME: usize = 255;

/// A key as a way through folders and a file's name.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub folders: Vec<&'a str>,
    pub name: &'a str,
}

impl<'a> Place<'a> {
    /// # Errors
    /// When the key leads elsewhere, or to what is no object's.
    pub fn of(key: &'a str) -> Result<Self, StoreError> {
        let mut folders: Vec<&str> = key.split('/').collect();
        let name = folders.pop().unwrap_or_default();
        let odd = |part: &str| {
            ["", ".", ".."].contains(&part)
                || part.contains('\0')
                || part.len() > LONGEST_NAME
                || part.starts_with(UPLOAD)
        };
        let hidden = folders.iter().any(|folder| is_hidden(folder)) || name == UPLOADS;
        if hidden || folders.iter().copied().chain([name]).any(odd) {
            let why = format!("{key:?} is no key of a folder's");
            return Err(StoreError::new(ErrorKind::Invalid, why));
        }
        Ok(Self { folders, name })
    }

    /// The folders in which its uploads are.
    pub fn of_uploads(&self) -> Vec<&'a str> {
        let mut way = vec![UPLOADS];
        way.extend(&self.folders);
        way.push(self.name);
        way
    }
}

/// Whether a folder is no database's: snapshots, bins of desktops, uploads.
pub(super) fn is_hidden(folder: &str) -> bool {
    folder.starts_with('.') || folder == LOST
}

/// Whether the disk is there that should be at `root`, by the marker that must be on it and by
/// what `/etc/fstab` says.
///
/// # Errors
/// When it is not.
pub(super) fn mounted(root: &Path, folder: &Folder, marker: Option<&str>) -> Result<(), Fault> {
    if let Some(marker) = marker
        && folder.stat(marker)?.is_none()
    {
        let why = format!("there is no {marker} in it, the store's marker");
        return Err(away(&why).into());
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let root = root.canonicalize()?;
    match unmounted(&root, &read("/etc/fstab"), &read("/proc/self/mountinfo")) {
        Some(point) => {
            let point = point.display();
            Err(away(&format!(
                "/etc/fstab mounts something at {point}, and nothing is"
            ))
            .into())
        }
        None => Ok(()),
    }
}

/// The error of a folder that is not the one that is meant.
pub(super) fn away(why: &str) -> StoreError {
    StoreError::new(ErrorKind::Unreachable, why.to_owned())
        .with_advice("is its disk mounted? The folder itself is never made")
}

/// The mount point on the way to `root` that `fstab` knows and the kernel does not.
fn unmounted(root: &Path, fstab: &str, mountinfo: &str) -> Option<PathBuf> {
    let of_fstab = fstab
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_whitespace().nth(1));
    let mounted: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4))
        .map(unescaped)
        .collect();
    of_fstab
        .map(unescaped)
        .filter(|point| point.is_absolute() && point.parent().is_some() && root.starts_with(point))
        .find(|point| !mounted.contains(point))
}

/// A path of those files: a space and the like are octal there.
fn unescaped(path: &str) -> PathBuf {
    let mut text = path.to_owned();
    for (code, c) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        text = text.replace(code, c);
    }
    PathBuf::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_nowhere_but_below_the_folder() {
        for key in ["a", "a/b/c.tar.gz", ".tapline-check-1", "a b/ü%2F"] {
            let place = Place::of(key).unwrap();
            let whole = [place.folders.as_slice(), &[place.name]].concat().join("/");
            assert_eq!(whole, key);
        }
        let long = "x".repeat(256);
        for key in [
            "",
            "/",
            "/etc/passwd",
            "a//b",
            "a/",
            "..",
            "../x",
            "a/../../x",
            "a/./b",
            "a\0b",
            ".tapline/x",
            ".tapline",
            ".snapshot/a",
            "lost+found/x",
            "a/+upload-1",
            &long,
        ] {
            let error = Place::of(key).expect_err(key);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{key:?}");
        }
    }

    #[test]
    fn a_disk_of_fstab_that_is_not_mounted_is_missed() {
        let fstab = "# a comment\n/dev/sda1 / ext4 defaults 0 1\nUUID=1 /mnt/usb\\040disk ext4 noauto 0 0\n\
                     nas:/b /mnt/nas nfs soft 0 0\n/dev/sdb none swap sw 0 0\n";
        let root = "25 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n";
        let nas = format!("{root}40 25 0:44 / /mnt/nas rw - nfs4 nas:/b rw\n");
        let missed = |path: &str, mounts: &str| unmounted(Path::new(path), fstab, mounts);
        assert_eq!(missed("/mnt/nas/db", root), Some("/mnt/nas".into()));
        assert_eq!(missed("/mnt/nas/db", &nas), None);
        assert_eq!(missed("/mnt/usb disk", &nas), Some("/mnt/usb disk".into()));
        assert_eq!(missed("/mnt/nas2", root), None);
        assert_eq!(missed("/var/backups", root), None);
    }
}
