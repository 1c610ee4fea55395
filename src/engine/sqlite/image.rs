//! The page image.
//!
//! The pages are read from the `sqlite_dbpage` virtual table inside one read transaction, as
//! `sqlite3_rsync` does (<https://www.sqlite.org/dbpage.html>): writers in WAL mode go on
//! meanwhile, and content that is still in the WAL is in the image. The image is a database file as
//! it is.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// How long a database that another process has locked is waited for.
const BUSY: Duration = Duration::from_secs(30);

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

pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
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
