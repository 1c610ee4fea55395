//! SQLite: an exact page image of a consistent snapshot, written by a child process of our own
//! binary.

mod image;
mod load;

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{Access, Engine, file_stem};
use crate::config::Database;
use crate::dump::{ToolCommand, ToolError};
pub use image::{SqliteError, dump};

/// The hidden subcommand that calls [`dump`].
pub const SUBCOMMAND: &str = "__sqlite-dump";

pub(super) struct Sqlite {
    pub(super) database: Database,
    pub(super) access: Access,
}

impl Sqlite {
    fn path(&self) -> Result<&Path, ToolError> {
        self.database
            .path
            .as_deref()
            .ok_or_else(|| ToolError("a SQLite database needs its path".into()))
    }
}

#[async_trait]
impl Engine for Sqlite {
    fn dump_command(&self) -> Result<ToolCommand, ToolError> {
        let path = self.path()?;
        let text = path
            .to_str()
            .ok_or_else(|| ToolError(format!("{}: not UTF-8", path.display())))?;
        Ok(ToolCommand::new(&self.access.tapline).args([SUBCOMMAND, "--", text]))
    }

    fn file_name(&self) -> String {
        let name = self
            .database
            .path
            .as_deref()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str());
        name.map_or_else(
            || format!("{}.sqlite", file_stem(&self.database.name)),
            file_stem,
        )
    }

    async fn version(&self) -> Result<String, ToolError> {
        Ok(format!("SQLite {} (bundled)", rusqlite::version()))
    }

    async fn check_login(&self) -> Result<(), ToolError> {
        let path = self.path()?.to_owned();
        let check = move || {
            image::open(&path)
                .map(drop)
                .map_err(|error| ToolError(format!("{}: {error}", path.display())))
        };
        tokio::task::spawn_blocking(check)
            .await
            .map_err(|error| ToolError(error.to_string()))?
    }

    async fn estimate(&self) -> Result<Option<u64>, ToolError> {
        let path = self.path()?;
        let size = std::fs::metadata(path)
            .map_err(|error| ToolError(format!("{}: {error}", path.display())))?
            .len();
        Ok(Some(
            size + std::fs::metadata(beside(path, "-wal")).map_or(0, |wal| wal.len()),
        ))
    }
}

/// A file beside the database's, such as its WAL.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
