//! Folders by their handles, never by a path that somebody could bend: each step opens one folder
//! below the one before and follows no symbolic link, so nothing leads out of the store.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, Result};

/// What is made may be read by its group, as the umask has it: a dump is not everybody's.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o750);
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A folder that is open.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

/// What a folder has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: String,
    pub is_folder: bool,
}

impl Folder {
    /// The store's own folder, which may be behind a symbolic link.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        Ok(Self(fs::openat(CWD, path, flags, Mode::empty())?))
    }

    /// The same folder once more.
    pub fn again(&self) -> Result<Self> {
        self.enter(".")
    }

    /// The folder called `name` in it.
    pub fn enter(&self, name: &str) -> Result<Self> {
        Ok(Self(fs::openat(&self.0, name, FOLDER, Mode::empty())?))
    }

    /// The same, made when it is not there; `lasting`: it is there after a power cut, too.
    pub fn make(&self, name: &str, lasting: bool) -> Result<Self> {
        match self.enter(name) {
            Err(Errno::NOENT) => {}
            entered => return entered,
        }
        match fs::mkdirat(&self.0, name, FOLDER_MODE) {
            Ok(()) if lasting => self.sync()?,
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        self.enter(name)
    }

    /// The folder that a way of names leads to.
    pub fn walk<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let here = self.again()?;
        names
            .into_iter()
            .try_fold(here, |folder, name| folder.enter(name))
    }

    /// The same, each made when it is not there.
    pub fn make_way<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        lasting: bool,
    ) -> Result<Self> {
        let here = self.again()?;
        names
            .into_iter()
            .try_fold(here, |folder, name| folder.make(name, lasting))
    }

    /// A new file.
    pub fn create(&self, name: &str) -> Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        self.file(name, flags)
    }

    /// A file to write to, with nothing in it.
    pub fn overwrite(&self, name: &str) -> Result<File> {
        self.file(name, OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY)
    }

    /// A file that is there.
    pub fn read(&self, name: &str) -> Result<File> {
        self.file(name, OFlags::RDONLY)
    }

    /// A file that is there, to be written to.
    pub fn write(&self, name: &str) -> Result<File> {
        self.file(name, OFlags::RDWR)
    }

    fn file(&self, name: &str, flags: OFlags) -> Result<File> {
        // A pipe that somebody has put there must not make anybody wait.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        fs::openat(&self.0, name, flags, FILE_MODE).map(File::from)
    }

    /// What is known of an entry; `None` when there is none.
    pub fn stat(&self, name: &str) -> Result<Option<Stat>> {
        match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is known of the folder itself.
    pub fn own_stat(&self) -> Result<Stat> {
        fs::fstat(&self.0)
    }

    /// Gives `name` in `from` a second name in this folder, if that is free.
    pub fn link(&self, (from, name): (&Self, &str), as_name: &str) -> Result<()> {
        fs::linkat(&from.0, name, &self.0, as_name, AtFlags::empty())
    }

    /// Moves `name` in `from` here, if `as_name` is free.
    pub fn take(&self, (from, name): (&Self, &str), as_name: &str) -> Result<()> {
        let flags = fs::RenameFlags::NOREPLACE;
        fs::renameat_with(&from.0, name, &self.0, as_name, flags)
    }

    /// Gives a file another's name, whose it is no more.
    pub fn rename(&self, name: &str, as_name: &str) -> Result<()> {
        fs::renameat(&self.0, name, &self.0, as_name)
    }

    pub fn remove_file(&self, name: &str) -> Result<()> {
        fs::unlinkat(&self.0, name, AtFlags::empty())
    }

    /// Removes a folder with nothing in it.
    pub fn remove_folder(&self, name: &str) -> Result<()> {
        fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)
    }

    /// Sets the folder's time to its file system's present, and tells it.
    pub fn touch(&self) -> Result<i64> {
        let now = fs::Timespec {
            tv_sec: 0,
            tv_nsec: fs::UTIME_NOW,
        };
        let times = fs::Timestamps {
            last_access: now,
            last_modification: now,
        };
        fs::futimens(&self.0, &times)?;
        Ok(self.own_stat()?.st_mtime)
    }

    /// What is in it is there after a power cut, too.
    pub fn sync(&self) -> Result<()> {
        match fs::fsync(&self.0) {
            // Some file systems that are served over a network have no such call for folders.
            Err(Errno::INVAL | Errno::NOTSUP | Errno::BADF) => Ok(()),
            synced => synced,
        }
    }

    /// Files and folders in it, in the order of the keys below them. Links, pipes and names that are
    /// not text are nobody's keys.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if [".", ".."].contains(&name) {
                continue;
            }
            let kind = match entry.file_type() {
                // Not every file system says.
                FileType::Unknown => match self.stat(name)? {
                    Some(stat) => FileType::from_raw_mode(stat.st_mode),
                    None => continue,
                },
                kind => kind,
            };
            let is_folder = kind == FileType::Directory;
            if is_folder || kind == FileType::RegularFile {
                let name = name.to_owned();
                entries.push(Entry { name, is_folder });
            }
        }
        entries.sort_by_cached_key(Entry::sort_key);
        Ok(entries)
    }

    /// Removes the folders of a way that have nothing in them, the last first; never itself.
    pub fn prune(&self, names: &[&str]) {
        for at in (0..names.len()).rev() {
            let removed = self
                .walk(names[..at].iter().copied())
                .and_then(|folder| folder.remove_folder(names[at]));
            if removed.is_err() {
                return;
            }
        }
    }
}

impl Entry {
    /// A folder's keys stand where its name with a slash does.
    pub fn sort_key(&self) -> String {
        let slash = if self.is_folder { "/" } else { "" };
        format!("{}{slash}", self.name)
    }
}
