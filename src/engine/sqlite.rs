//! SQLite: an exact page image of a consistent snapshot, written by a child process of our own
//! binary.
//!
//! The pages are read from the `sqlite_dbpage` virtual table inside one read transaction, as
//! `sqlite3_rsync` does (<https://www.sqlite.org/dbpage.html>): writers in WAL mode go on
//! meanwhile, and content that is still in the WAL is in the image. The image is a database file as
//! it is.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags};

use super::{Access, Contents, Engine, Load, file_stem};
use crate::config::Database;
use crate::dump::{ToolCommand, ToolError};

/// The hidden subcommand that calls [`dump`].
pub const SUBCOMMAND: &str = "__sqlite-dump";

/// How long a database that another process has locked is waited for.
const BUSY: Duration = Duration::from_secs(30);

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
            open(&path)
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

    fn load(&self, _: &str, _: bool) -> Result<Load, ToolError> {
        // A WAL or a journal of the old file would be played into the new one.
        let path = self.path()?;
        // Behind a link: SQLite keeps its files beside the file itself.
        let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let stale = ["-wal", "-shm", "-journal"]
            .map(|suffix| beside(path, suffix))
            .to_vec();
        Ok(Load::File {
            path: path.to_owned(),
            stale,
        })
    }

    async fn contents(&self) -> Result<Contents, ToolError> {
        if !self
            .path()?
            .try_exists()
            .map_err(|error| ToolError(error.to_string()))?
        {
            return Ok(Contents::Absent);
        }
        Ok(match self.count_tables().await {
            Ok(Some(0)) => Contents::Empty,
            Ok(count) => Contents::Holds(format!("{} tables", count.unwrap_or_default())),
            Err(_) => Contents::Holds("something that cannot be read as a SQLite database".into()),
        })
    }

    async fn count_tables(&self) -> Result<Option<u64>, ToolError> {
        let path = self.path()?.to_owned();
        let count = move || {
            let query = "select count(*) from sqlite_schema where type = 'table' and name not like 'sqlite~_%' escape '~'";
            let count = open(&path)
                .and_then(|database| database.query_row(query, [], |row| row.get::<_, i64>(0)));
            count.map_err(|error| ToolError(format!("{}: {error}", path.display())))
        };
        let count = tokio::task::spawn_blocking(count)
            .await
            .map_err(|error| ToolError(error.to_string()))??;
        Ok(Some(count.unsigned_abs()))
    }

    async fn remove(&self) -> Result<(), ToolError> {
        let path = self.path()?;
        for path in ["-wal", "-shm", "-journal", ""].map(|suffix| beside(path, suffix)) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ToolError(format!("{}: {error}", path.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A file beside the database's, such as its WAL.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Why a page image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// SQLite's own words.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The image could not be written.
    #[error("writing the image: {0}")]
    Write(#[from] std::io::Error),
    /// The pages do not make up the database.
    #[error("{got} of {expected} bytes of pages could be read")]
    Short {
        /// Bytes read.
        got: u64,
        /// `page_count × page_size`.
        expected: u64,
    },
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    // Read-only first. A database in WAL mode needs its -shm file, which only a writer may create.
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let read_only = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let usable = |connection: &Connection| {
        connection.busy_timeout(BUSY)?;
        connection.query_row("select count(*) from sqlite_schema", [], |row| {
            row.get::<_, i64>(0)
        })
    };
    match usable(&read_only) {
        Ok(_) => Ok(read_only),
        Err(rusqlite::Error::SqliteFailure(error, _))
            if error.code == rusqlite::ErrorCode::CannotOpen =>
        {
            let read_write =
                Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            usable(&read_write)?;
            Ok(read_write)
        }
        Err(error) => Err(error),
    }
}

/// Writes the page image of the database at `path`. Returns its size in bytes.
///
/// # Errors
/// [`SqliteError`]; what was written by then is no database.
pub fn dump(path: &Path, out: &mut impl Write) -> Result<u64, SqliteError> {
    let mut connection = open(path)?;
    let snapshot = connection.transaction()?;
    // The first read takes the snapshot that all the following see.
    let count: u64 = snapshot
        .query_row("pragma page_count", [], |row| row.get::<_, i64>(0))?
        .cast_unsigned();
    let size: u64 = snapshot
        .query_row("pragma page_size", [], |row| row.get::<_, i64>(0))?
        .cast_unsigned();
    let mut pages = snapshot.prepare("select data from sqlite_dbpage('main') order by pgno")?;
    let mut rows = pages.query([])?;
    let mut written = 0;
    while let Some(row) = rows.next()? {
        let page = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        out.write_all(page)?;
        written += page.len() as u64;
    }
    out.flush()?;
    if written == count * size {
        Ok(written)
    } else {
        Err(SqliteError::Short {
            got: written,
            expected: count * size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_the_snapshot_with_what_is_still_in_the_wal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("größe it's.db");
        let writer = Connection::open(&path).unwrap();
        writer.pragma_update(None, "journal_mode", "wal").unwrap();
        writer.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        writer
            .execute_batch(
                "create table t (x); insert into t values (randomblob(100000)), ('late');",
            )
            .unwrap();
        let mut image = Vec::new();
        assert_eq!(dump(&path, &mut image).unwrap(), image.len() as u64);
        writer
            .pragma_update(None, "wal_checkpoint", "truncate")
            .unwrap();
        drop(writer);
        assert_eq!(image, std::fs::read(&path).unwrap());
    }

    #[test]
    fn what_is_no_database_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        assert!(dump(&path, &mut Vec::new()).is_err());
        std::fs::write(&path, "not a database, but long enough to be looked at").unwrap();
        assert!(dump(&path, &mut Vec::new()).is_err());
    }
}
