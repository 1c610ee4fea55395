//! SQLite: an exact page image of a consistent snapshot, written by a child process of our own
//! binary.

mod image;
mod load;

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{Access, Engine, Survey, file_stem, local_identity};
use crate::catalog::SourceIdentity;
use crate::config::Database;
use crate::dump::{DumpShape, ToolCommand, ToolError};
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
            .ok_or_else(|| ToolError::Cannot("a SQLite database needs its path".into()))
    }
}

#[async_trait]
impl Engine for Sqlite {
    fn dump_command(&self) -> Result<ToolCommand, ToolError> {
        let path = self.path()?;
        let text = path
            .to_str()
            .ok_or_else(|| ToolError::Cannot(format!("{}: not UTF-8", path.display())))?;
        let limit = self.database.lock_timeout.as_secs_f64().to_string();
        let args = [SUBCOMMAND, "--lock-timeout", &limit, "--", text];
        let mut command = ToolCommand::new(&self.access.tapline).args(args);
        command.title = Some(format!("the SQLite dump of {text}"));
        Ok(command)
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

    fn dump_shape(&self) -> DumpShape {
        DumpShape {
            beginning: Some("SQLite format 3\0"),
            end_marker: None,
            may_be_empty: self.database.allow_empty,
        }
    }

    async fn version(&self) -> Result<String, ToolError> {
        Ok(format!("SQLite {} (bundled)", rusqlite::version()))
    }

    async fn survey(&self, size: Option<u64>) -> Survey {
        Survey::of(self, size).await
    }

    async fn identity(&self) -> SourceIdentity {
        let path = self.database.path.clone().unwrap_or_default();
        let path = std::fs::canonicalize(&path)
            .or_else(|_| std::path::absolute(&path))
            .unwrap_or(path);
        local_identity(&self.database, &path.display().to_string())
    }

    async fn check_login(&self) -> Result<(), ToolError> {
        let path = self.path()?.to_owned();
        let check = move || {
            let opened = image::open(&path).map_err(image::SqliteError::from);
            opened
                .map(drop)
                .map_err(|error| ToolError::Cannot(format!("{}: {error}", path.display())))
        };
        tokio::task::spawn_blocking(check)
            .await
            .map_err(|error| ToolError::Cannot(error.to_string()))?
    }

    async fn check_dump(&self) -> Result<Vec<String>, ToolError> {
        let path = self.path()?.to_owned();
        let check = move || {
            image::check(&path)
                .map_err(|error| ToolError::Cannot(format!("{}: {error}", path.display())))
        };
        let state = tokio::task::spawn_blocking(check)
            .await
            .map_err(|error| ToolError::Cannot(error.to_string()))??;
        let said = state.warning(self.database.lock_timeout);
        Ok(said.into_iter().collect())
    }

    async fn estimate(&self) -> Result<Option<u64>, ToolError> {
        let path = self.path()?;
        let size = std::fs::metadata(path)
            .map_err(|error| ToolError::Cannot(format!("{}: {error}", path.display())))?
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
