//! The last step back: where a dump goes.
//!
//! A target only shows a result when [`Target::finish`] is given the proof that the dump is whole.
//! A client's stdin stays open until then, a file has another name until then.

use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::{NamedTempFile, TempDir, TempPath};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, Stdout};

use super::client::Client;
use super::sessions::Sessions;
use super::{RestoreError, Whole};
use crate::engine::{ClientLoad, Settle};
use crate::scratch::{file_beside, folder_beside};

/// Where a dump goes.
pub enum Target {
    /// Nowhere: to verify it.
    Nowhere,
    /// This program's stdout.
    Stdout(Stdout),
    /// A file.
    File(NewFile),
    /// A folder, for the files of a staged dump.
    Folder(NewFolder),
    /// A client that reads it from its stdin.
    Client(Client),
    /// Several, for a dump of many files.
    Sessions(Box<Sessions>),
}

/// A file that has its name only when it is whole.
pub struct NewFile {
    file: File,
    beside: Option<TempPath>,
    path: PathBuf,
    replace: bool,
    /// Whether it is whoever's the folder is, where nobody's file is replaced.
    of_folder: bool,
    settle: Option<Settle>,
}

/// A folder that has its name only when it is whole.
pub struct NewFolder {
    beside: Option<TempDir>,
    path: PathBuf,
    open: Option<File>,
    _lock: std::fs::File,
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| *folder != Path::new(""))
        .unwrap_or(Path::new("."))
}

/// What a failed access to `path` means.
pub(super) fn failed(path: &Path) -> impl Fn(io::Error) -> RestoreError {
    move |error| RestoreError::Target(format!("{}: {error}", path.display()))
}

impl Target {
    /// A file at `path`, written beside it and renamed in the end; without `replace` only where
    /// there is none.
    ///
    /// # Errors
    /// When no file can be made in its folder.
    pub fn file(path: &Path, replace: bool) -> Result<Self, RestoreError> {
        let folder = folder_of(path);
        // Nobody may read meanwhile what nobody but its owner may read in the end.
        let private = path.exists();
        let made = file_beside(folder, private).map_err(failed(folder))?;
        let (file, beside) = NamedTempFile::into_parts(made);
        Ok(Self::File(NewFile {
            file: File::from_std(file),
            beside: Some(beside),
            path: path.to_owned(),
            replace,
            of_folder: false,
            settle: None,
        }))
    }

    /// A database's own file, which its application is to use: a new one belongs to whom its folder
    /// belongs.
    ///
    /// # Errors
    /// As for [`Target::file`].
    pub(super) fn database_file(
        path: &Path,
        replace: bool,
        settle: Option<Settle>,
    ) -> Result<Self, RestoreError> {
        let mut target = Self::file(path, replace)?;
        if let Target::File(new) = &mut target {
            new.of_folder = true;
            new.settle = settle;
        }
        Ok(target)
    }

    /// A folder at `path`, filled beside it and renamed in the end.
    ///
    /// # Errors
    /// When no folder can be made there.
    pub fn folder(path: &Path) -> Result<Self, RestoreError> {
        let folder = folder_of(path);
        let (beside, lock) = folder_beside(folder).map_err(failed(folder))?;
        Ok(Self::Folder(NewFolder {
            beside: Some(beside),
            path: path.to_owned(),
            open: None,
            _lock: lock,
        }))
    }

    /// A client, started now; or so many, where that is how a dump of many files can be loaded.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) async fn client(load: ClientLoad, at_once: usize) -> Result<Self, RestoreError> {
        if at_once > 1 && load.another().is_some() {
            return Ok(Self::Sessions(Box::new(Sessions::new(load, at_once))));
        }
        Client::start(load).await.map(Self::Client)
    }

    /// The next file of the dump begins. Where there is only one place for bytes, files follow one
    /// another.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) async fn begin(&mut self, name: &str) -> Result<(), RestoreError> {
        match self {
            Target::Folder(new) => new.begin(name).await,
            Target::Sessions(sessions) => Box::pin(sessions.begin(name)).await,
            Target::Nowhere | Target::Stdout(_) | Target::File(_) | Target::Client(_) => Ok(()),
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they cannot be written; of a client, its own failure.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), RestoreError> {
        match self {
            Target::Nowhere => Ok(()),
            Target::Stdout(stdout) => stdout
                .write_all(&bytes)
                .await
                .map_err(failed(Path::new("stdout"))),
            Target::File(new) => new.file.write_all(&bytes).await.map_err(failed(&new.path)),
            Target::Folder(new) => new.write(&bytes).await,
            Target::Client(client) => client.write(&bytes).await,
            Target::Sessions(sessions) => sessions.write(bytes).await,
        }
    }

    /// The dump is whole and all of it was written: makes it count.
    ///
    /// # Errors
    /// When the client fails after all, or the file cannot take its place.
    pub(super) async fn finish(self, _whole: Whole) -> Result<(), RestoreError> {
        match self {
            Target::Nowhere => Ok(()),
            Target::Stdout(mut stdout) => stdout.flush().await.map_err(failed(Path::new("stdout"))),
            Target::File(mut new) => new.finish().await,
            Target::Folder(mut new) => new.finish().await,
            Target::Client(client) => client.finish().await,
            Target::Sessions(sessions) => Box::pin(sessions.finish()).await,
        }
    }

    /// The dump is not whole: nothing of it may look as if it were.
    pub(super) async fn abandon(self) {
        match self {
            // What stdout's reader makes of it is the exit code's to tell; a file beside goes when
            // dropped.
            Target::Nowhere | Target::Stdout(_) | Target::File(_) | Target::Folder(_) => {}
            // Its stdin is still open: it has not seen the end.
            Target::Client(mut client) => client.kill().await,
            Target::Sessions(mut sessions) => sessions.kill().await,
        }
    }
}

impl NewFolder {
    async fn begin(&mut self, name: &str) -> Result<(), RestoreError> {
        self.close().await?;
        // The archive's own folder is this one. A manifest's names are plain.
        let name = name.split_once('/').map_or(name, |(_, rest)| rest);
        let beside = self.beside.as_ref().expect("filled before it is finished");
        let path = beside.path().join(name);
        let made = async {
            tokio::fs::create_dir_all(folder_of(&path)).await?;
            File::create_new(&path).await
        };
        self.open = Some(made.await.map_err(failed(&path))?);
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        match &mut self.open {
            Some(file) => file.write_all(bytes).await.map_err(failed(&self.path)),
            None => Ok(()),
        }
    }

    async fn close(&mut self) -> Result<(), RestoreError> {
        match self.open.take() {
            Some(mut file) => file.flush().await.map_err(failed(&self.path)),
            None => Ok(()),
        }
    }

    async fn finish(&mut self) -> Result<(), RestoreError> {
        self.close().await?;
        let beside = self.beside.take().expect("finished once");
        std::fs::rename(beside.path(), &self.path).map_err(failed(&self.path))?;
        // There is nothing left to remove.
        let _ = beside.keep();
        Ok(())
    }
}

impl NewFile {
    async fn finish(&mut self) -> Result<(), RestoreError> {
        let failed = failed(&self.path);
        self.file.flush().await.map_err(&failed)?;
        self.file.sync_all().await.map_err(&failed)?;
        let beside = self.beside.take().expect("finished once");
        let temporary = self::failed(&self.path);
        match std::fs::metadata(&self.path) {
            // Whoever used the old file uses the new one. A new owner takes bits of the mode away,
            // so it comes first; only root can give a file away.
            Ok(old) if self.replace => {
                if let Err(error) = chown(&beside, Some(old.uid()), Some(old.gid())) {
                    let (path, uid) = (self.path.display(), old.uid());
                    tracing::warn!("{path} belonged to user {uid}, and cannot again: {error}");
                }
                std::fs::set_permissions(&beside, old.permissions()).map_err(temporary)?;
            }
            _ if self.of_folder && rustix::process::geteuid().is_root() => {
                let folder = std::fs::metadata(folder_of(&self.path)).map_err(&failed)?;
                chown(&beside, Some(folder.uid()), Some(folder.gid())).map_err(temporary)?;
            }
            _ => {}
        }
        if let Some(settle) = self.settle.take() {
            settle()?;
        }
        if self.replace {
            beside.persist(&self.path)
        } else {
            beside.persist_noclobber(&self.path)
        }
        .map_err(|error| failed(error.error))?;
        std::fs::File::open(folder_of(&self.path))
            .and_then(|folder| folder.sync_all())
            .map_err(failed)
    }
}
