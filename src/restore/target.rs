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
use tokio::process::ChildStdin;

use super::{RestoreError, Whole};
use crate::dump::{Child, ChildError, ToolCommand};
use crate::engine::Unit;

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
}

/// A file that has its name only when it is whole.
pub struct NewFile {
    file: File,
    beside: Option<TempPath>,
    path: PathBuf,
    /// What is replaced with it; `None` when nothing may be.
    stale: Option<Vec<PathBuf>>,
}

/// A folder that has its name only when it is whole.
pub struct NewFolder {
    beside: Option<TempDir>,
    path: PathBuf,
    open: Option<File>,
}

/// A running client.
pub struct Client {
    // Before its stdin: whoever is dropped first goes first, and a client must never see an end
    // that is not one.
    child: Child,
    stdin: Option<ChildStdin>,
    unit: Unit,
}

impl From<ChildError> for RestoreError {
    fn from(error: ChildError) -> Self {
        Self::Target(error.to_string())
    }
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
    /// A file at `path`, written beside it and renamed in the end. `stale` is what goes with a file
    /// that it replaces; without it none is.
    ///
    /// # Errors
    /// When no file can be made in its folder.
    pub fn file(path: &Path, stale: Option<Vec<PathBuf>>) -> Result<Self, RestoreError> {
        let folder = folder_of(path);
        let made = tempfile::Builder::new()
            .prefix(".tapline-")
            .tempfile_in(folder)
            .map_err(failed(folder))?;
        let (file, beside) = NamedTempFile::into_parts(made);
        Ok(Self::File(NewFile {
            file: File::from_std(file),
            beside: Some(beside),
            path: path.to_owned(),
            stale,
        }))
    }

    /// A folder at `path`, filled beside it and renamed in the end.
    ///
    /// # Errors
    /// When no folder can be made there.
    pub fn folder(path: &Path) -> Result<Self, RestoreError> {
        let folder = folder_of(path);
        let beside = tempfile::Builder::new()
            .prefix(".tapline-")
            .tempdir_in(folder)
            .map_err(failed(folder))?;
        Ok(Self::Folder(NewFolder {
            beside: Some(beside),
            path: path.to_owned(),
            open: None,
        }))
    }

    /// A client, started now.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn client(command: &ToolCommand, unit: Unit) -> Result<Self, RestoreError> {
        let (child, stdin) = Child::writing(command)?;
        let mut client = Client {
            child,
            stdin: Some(stdin),
            unit,
        };
        if let Unit::Between(before, _) = &client.unit {
            let before = before.clone();
            client.write(before.as_bytes()).await?;
        }
        Ok(Self::Client(client))
    }

    /// The next file of the dump begins. Where there is only one place for bytes, files follow one
    /// another.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) async fn begin(&mut self, name: &str) -> Result<(), RestoreError> {
        match self {
            Target::Folder(new) => new.begin(name).await,
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
        }
    }

    /// The dump is whole and all of it was written: makes it count.
    ///
    /// # Errors
    /// When the client fails after all, or the file cannot take its place.
    pub(super) async fn finish(&mut self, _whole: Whole) -> Result<(), RestoreError> {
        match self {
            Target::Nowhere => Ok(()),
            Target::Stdout(stdout) => stdout.flush().await.map_err(failed(Path::new("stdout"))),
            Target::File(new) => new.finish().await,
            Target::Folder(new) => new.finish().await,
            Target::Client(client) => client.finish().await,
        }
    }

    /// The dump is not whole: nothing of it may look as if it were.
    pub(super) async fn abandon(self) {
        match self {
            // What stdout's reader makes of it is the exit code's to tell; a file beside goes when
            // dropped.
            Target::Nowhere | Target::Stdout(_) | Target::File(_) | Target::Folder(_) => {}
            // Its stdin is still open: it has not seen the end.
            Target::Client(mut client) => client.child.kill().await,
        }
    }
}

impl Client {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let stdin = self.stdin.as_mut().expect("open until finished");
        let mut write = std::pin::pin!(stdin.write_all(bytes));
        let written = loop {
            tokio::select! {
                written = &mut write => break written,
                // A client that failed may leave its stdin open in a process of its own.
                ended = self.child.wait(), if !self.child.has_exited_well() => ended?,
            }
        };
        if written.is_ok() {
            return Ok(());
        }
        self.child.wait().await?;
        Err(RestoreError::Target(format!(
            "{} exited before it had read the whole dump",
            self.child.program()
        )))
    }

    async fn finish(&mut self) -> Result<(), RestoreError> {
        if let Unit::Between(_, after) = self.unit {
            self.write(after.as_bytes()).await?;
        }
        let mut stdin = self.stdin.take().expect("finished once");
        // Fails when the client is gone already; then its exit status tells.
        let _ = stdin.shutdown().await;
        drop(stdin);
        self.child.wait().await?;
        let said = self.child.last_words().await;
        let matters = |line: &&str| line.contains("ERROR:") && !line.contains("already exists");
        if self.unit == Unit::Lenient && said.lines().any(|line| matters(&line)) {
            return Err(RestoreError::Target(format!(
                "{} went on after errors:\n{said}",
                self.child.program()
            )));
        }
        if !said.is_empty() {
            tracing::warn!("{} said: {said}", self.child.program());
        }
        Ok(())
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
        if let (Ok(old), Some(_)) = (std::fs::metadata(&self.path), &self.stale) {
            // Whoever used the old file uses the new one.
            std::fs::set_permissions(&beside, old.permissions()).map_err(&failed)?;
            let _ = chown(&beside, Some(old.uid()), Some(old.gid()));
        }
        for path in self.stale.iter().flatten().filter(|path| path.exists()) {
            std::fs::remove_file(path).map_err(self::failed(path))?;
        }
        match self.stale {
            Some(_) => beside.persist(&self.path),
            None => beside.persist_noclobber(&self.path),
        }
        .map_err(|error| failed(error.error))?;
        std::fs::File::open(folder_of(&self.path))
            .and_then(|folder| folder.sync_all())
            .map_err(failed)
    }
}
