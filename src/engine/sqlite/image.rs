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

/// A database up to this size is read into memory at once, so that its lock does not last as long as
/// an upload.
const AT_ONCE: u64 = 32 << 20;
/// What a SQLite without `sqlite_dbpage` can still do, because it must hold all of it in memory.
const WITHOUT_PAGES: u64 = 256 << 20;

/// Why a page image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// SQLite's own words.
    #[error("{error}{}", hint(.error))]
    Sqlite {
        /// Its error.
        #[from]
        error: rusqlite::Error,
    },
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
    /// This program was built without what it reads pages with.
    #[error(
        "this tapline was built without sqlite_dbpage and can dump databases of up to {WITHOUT_PAGES} bytes, and this one has {0}: build it with LIBSQLITE3_FLAGS=-DSQLITE_ENABLE_DBPAGE_VTAB"
    )]
    NoPages(u64),
}

/// What a person can do about SQLite's error.
fn hint(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, ReadOnly};
    let left_half_done = |failure: &rusqlite::ffi::Error| {
        failure.extended_code == rusqlite::ffi::SQLITE_READONLY_ROLLBACK
    };
    match error.sqlite_error_code() {
        _ if error.sqlite_error().is_some_and(left_half_done) => {
            " (the application that used it was ended in the middle of a transaction, which whoever opens the database next takes back: tapline must be allowed to write to the file and to its folder, or the application must open it once)"
        }
        Some(CannotOpen | ReadOnly) => {
            " (tapline must be allowed to read the file; one in WAL mode that no program has open needs its -shm file, so tapline must be allowed to write to its folder, too)"
        }
        Some(DatabaseBusy | DatabaseLocked) => " (another program kept it locked for 30 s)",
        _ => "",
    }
}

/// What is known of a database before it is dumped.
pub(super) struct State {
    size: u64,
    is_wal: bool,
    has_pages: bool,
}

impl State {
    fn of(database: &Connection) -> rusqlite::Result<Self> {
        let number = |query: &str| database.query_row(query, [], |row| row.get::<_, i64>(0));
        let count = number("pragma page_count")?.cast_unsigned();
        let size = count * number("pragma page_size")?.cast_unsigned();
        let mode: String = database.query_row("pragma journal_mode", [], |row| row.get(0))?;
        let pages = number("select count(*) from pragma_module_list where name = 'sqlite_dbpage'")?;
        Ok(Self {
            size,
            is_wal: mode.eq_ignore_ascii_case("wal"),
            has_pages: pages > 0,
        })
    }

    /// The same, where it can be dumped.
    fn checked(self) -> Result<Self, SqliteError> {
        if !self.has_pages && self.size > WITHOUT_PAGES {
            return Err(SqliteError::NoPages(self.size));
        }
        Ok(self)
    }

    /// What the dump does to others.
    pub(super) fn warning(&self, lock_timeout: Duration) -> Option<String> {
        let limit = crate::units::time(lock_timeout.as_secs_f64());
        (!self.is_wal && self.size > AT_ONCE).then(|| {
            format!(
                "journal_mode is not WAL: whoever writes to this database waits until it is \
                 dumped, which takes as long as the store does, and {limit} (lock_timeout) at \
                 most; `pragma journal_mode = wal` changes that"
            )
        })
    }
}

/// Opens the database, and looks whether it can be dumped and, where that is quick, whether it is
/// whole.
pub(super) fn check(path: &Path) -> Result<State, SqliteError> {
    let database = open(path)?;
    let state = State::of(&database)?.checked()?;
    if state.size <= WITHOUT_PAGES {
        let found: String = database.query_row("pragma quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(error, Some(found)).into());
        }
    }
    Ok(state)
}

pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    // Read-only first. What an application that was killed has left half done must be taken back,
    // as whoever opens the database next does: that only a writer may.
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
            if error.code == rusqlite::ErrorCode::ReadOnly =>
        {
            let read_write =
                Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            usable(&read_write)?;
            Ok(read_write)
        }
        Err(error) => Err(error),
    }
}

/// Writes the page image of the database at `path`, and says on stderr what that does to others.
/// Returns its size in bytes. Where others have waited for `lock_timeout` to write to the database,
/// this process ends: nothing else ends a write to a pipe that nobody reads.
///
/// # Errors
/// [`SqliteError`]; what was written by then is no database.
pub fn dump(path: &Path, out: &mut impl Write, lock_timeout: Duration) -> Result<u64, SqliteError> {
    let mut database = open(path)?;
    // The first read takes the snapshot that all the following see.
    database.execute_batch("begin")?;
    let state = State::of(&database)?.checked()?;
    let expected = state.size;
    let got = if !state.has_pages || expected <= AT_ONCE {
        let image = if state.has_pages {
            let mut image = Vec::new();
            copy(&database, &mut image)?;
            image
        } else {
            database.serialize("main")?.to_vec()
        };
        database.execute_batch("commit")?;
        out.write_all(&image)?;
        image.len() as u64
    } else {
        if let Some(warning) = state.warning(lock_timeout) {
            eprintln!("warning: {warning}");
            std::thread::spawn(move || end_after(lock_timeout));
        }
        copy(&database, out)?
    };
    out.flush()?;
    if got == expected {
        Ok(got)
    } else {
        Err(SqliteError::Short { got, expected })
    }
}

/// Lets those who write go on, when they have waited for so long.
fn end_after(lock_timeout: Duration) {
    std::thread::sleep(lock_timeout);
    eprintln!(
        "whoever writes to the database has waited {} for it (lock_timeout), and the store had not \
         taken it yet: `pragma journal_mode = wal` keeps nobody waiting; lock_timeout says how long \
         they may wait",
        crate::units::time(lock_timeout.as_secs_f64())
    );
    std::process::exit(1);
}

fn copy(snapshot: &Connection, out: &mut impl Write) -> Result<u64, SqliteError> {
    let mut pages = snapshot.prepare("select data from sqlite_dbpage('main') order by pgno")?;
    let mut rows = pages.query([])?;
    let mut written = 0;
    while let Some(row) = rows.next()? {
        let page = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        out.write_all(page)?;
        written += page.len() as u64;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(10);

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
        assert_eq!(dump(&path, &mut image, LONG).unwrap(), image.len() as u64);
        writer
            .pragma_update(None, "wal_checkpoint", "truncate")
            .unwrap();
        drop(writer);
        assert_eq!(image, std::fs::read(&path).unwrap());
    }

    #[test]
    fn the_image_is_the_same_without_the_page_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let writer = Connection::open(&path).unwrap();
        writer.pragma_update(None, "journal_mode", "wal").unwrap();
        writer
            .execute_batch("create table t (x); insert into t values (randomblob(100000));")
            .unwrap();
        let mut image = Vec::new();
        dump(&path, &mut image, LONG).unwrap();
        let mut reader = open(&path).unwrap();
        assert!(State::of(&reader).unwrap().has_pages, "build with the flag");
        assert!(reader.serialize("main").unwrap().to_vec() == image);
    }

    #[test]
    fn without_the_page_table_what_is_too_large_for_memory_is_refused() {
        let of = |size, has_pages| State {
            size,
            is_wal: true,
            has_pages,
        };
        assert!(of(WITHOUT_PAGES, false).checked().is_ok());
        assert!(of(1 << 40, true).checked().is_ok());
        let refused = of(WITHOUT_PAGES + 1, false).checked().err().unwrap();
        assert!(
            refused.to_string().contains("LIBSQLITE3_FLAGS"),
            "{refused}"
        );
    }

    #[test]
    fn whoever_would_wait_for_the_dump_of_a_large_database_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let writer = Connection::open(&path).unwrap();
        let warned = || check(&path).unwrap().warning(LONG).is_some();
        let grow = |bytes: u64| {
            let rows = format!(
                "create table if not exists t (x); insert into t values (zeroblob({bytes}));"
            );
            writer.execute_batch(&rows).unwrap();
        };
        grow(AT_ONCE / 2);
        assert!(!warned(), "it is let go of before it is stored");
        grow(AT_ONCE);
        assert!(warned());
        writer.pragma_update(None, "journal_mode", "wal").unwrap();
        assert!(!warned(), "nobody waits");
    }

    /// An application waits for its lock only while the pages are read, not while they are stored.
    #[test]
    fn a_small_database_is_let_go_of_before_its_image_is_written() {
        struct Slow<'a>(&'a Connection);
        impl Write for Slow<'_> {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.execute("insert into t values (1)", []).unwrap();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch("create table t (x)").unwrap();
        assert!(dump(&path, &mut Slow(&writer), LONG).unwrap() > 0);
    }

    #[test]
    fn a_corrupt_database_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let writer = Connection::open(&path).unwrap();
        let fill = "create table t (x primary key); \
                    with recursive c(i) as (select 1 union all select i + 1 from c where i < 300) \
                    insert into t select hex(randomblob(500)) from c";
        writer.execute_batch(fill).unwrap();
        drop(writer);
        check(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[4096 * 20..4096 * 22].fill(0x55);
        std::fs::write(&path, bytes).unwrap();
        assert!(check(&path).is_err());
    }

    #[test]
    fn what_is_no_database_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        assert!(dump(&path, &mut Vec::new(), LONG).is_err());
        std::fs::write(&path, "not a database, but long enough to be looked at").unwrap();
        assert!(dump(&path, &mut Vec::new(), LONG).is_err());
    }
}
