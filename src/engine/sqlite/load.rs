//! How an image gets into its place, and what is in a database.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tempfile::TempDir;

use super::super::Engine;
use super::super::load::{
    Beside, Contents, Destination, Load, LoadOptions, Loader, Purpose, Replacement,
};
use super::image::open;
use super::{Sqlite, beside};
use crate::catalog::Properties;
use crate::dump::ToolError;
use crate::scratch::folder_beside;

/// How long others may take to leave a database that is about to be replaced.
const LEAVE: Duration = Duration::from_secs(5);

#[async_trait]
impl Loader for Sqlite {
    async fn load(
        &self,
        _: &str,
        _: Destination,
        options: &LoadOptions,
    ) -> Result<Load, ToolError> {
        options.only(&[])?;
        let path = self.path()?;
        // Behind a link: SQLite keeps its files beside the file itself.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let (old, force) = (path.clone(), options.force);
        let settle = move || settle(&old, force);
        Ok(Load::File {
            path,
            settle: Some(Box::new(settle)),
        })
    }

    async fn contents(&self) -> Result<Contents, ToolError> {
        let path = self.path()?;
        let there = path.try_exists();
        let there =
            there.map_err(|error| ToolError::Cannot(format!("{}: {error}", path.display())));
        if !there? {
            return Ok(Contents::Absent);
        }
        let size = std::fs::metadata(path).map_or(0, |found| found.len());
        let size = crate::units::size(size);
        Ok(match self.count_tables().await {
            Ok(0) => Contents::Empty,
            Ok(count) => Contents::Holds(format!("{count} tables, {size}")),
            Err(_) => Contents::Holds(format!(
                "something that cannot be read as a SQLite database, {size}"
            )),
        })
    }

    async fn beside(
        &self,
        purpose: Purpose,
        _: Option<&Properties>,
        _: &LoadOptions,
    ) -> Result<Replacement, ToolError> {
        // A file is written beside its target in any case.
        if purpose == Purpose::Restore {
            return Ok(Replacement::Other);
        }
        let dir = std::env::temp_dir();
        let made = folder_beside(&dir);
        let (folder, lock) =
            made.map_err(|error| ToolError::Cannot(format!("{}: {error}", dir.display())))?;
        let mut database = self.database.clone();
        database.path = Some(folder.path().join("drill.db"));
        let sqlite = Self {
            database,
            access: self.access.clone(),
        };
        Ok(Replacement::Beside(Box::new(DrillFile {
            sqlite,
            folder: Some(folder),
            _lock: lock,
        })))
    }

    async fn examine(&self) -> Result<Option<u64>, ToolError> {
        let path = self.path()?.to_owned();
        let check = move || {
            let words = open(&path).and_then(|database| {
                let mut check = database.prepare("pragma integrity_check(3)")?;
                let lines = check.query_map([], |row| row.get::<_, String>(0))?;
                lines.collect::<Result<Vec<_>, _>>()
            });
            match words {
                Ok(words) if words == ["ok"] => Ok(()),
                Ok(words) => Err(format!("integrity_check says: {}", words.join("; "))),
                Err(error) => Err(error.to_string()),
            }
        };
        blocking(check).await?;
        self.count_tables().await.map(Some)
    }

    async fn remove(&self) -> Result<(), ToolError> {
        let path = self.path()?;
        for path in ["-wal", "-shm", "-journal", ""].map(|suffix| beside(path, suffix)) {
            remove(&path)?;
        }
        Ok(())
    }
}

impl Sqlite {
    async fn count_tables(&self) -> Result<u64, ToolError> {
        let path = self.path()?.to_owned();
        let count = move || {
            let query = "select count(*) from sqlite_schema \
                         where type = 'table' and name not like 'sqlite~_%' escape '~'";
            let count = open(&path)
                .and_then(|database| database.query_row(query, [], |row| row.get::<_, i64>(0)));
            count.map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok(blocking(count).await?.unsigned_abs())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, ToolError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(error.to_string()))
        .map_err(ToolError::Cannot)
}

fn remove(path: &Path) -> Result<(), ToolError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ToolError::Cannot(format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// A drill's database, in a folder of its own that the next one removes when this one is killed.
struct DrillFile {
    sqlite: Sqlite,
    folder: Option<TempDir>,
    _lock: std::fs::File,
}

#[async_trait]
impl Beside for DrillFile {
    fn engine(&self) -> &dyn Engine {
        &self.sqlite
    }

    async fn switch(&mut self) -> Result<(), ToolError> {
        Err(ToolError::Cannot("a drill replaces nothing".into()))
    }

    async fn discard(&mut self) -> Result<(), ToolError> {
        let removed = self.folder.take().map_or(Ok(()), TempDir::close);
        removed.map_err(|error| ToolError::Cannot(format!("the drill's folder: {error}")))
    }
}

/// Brings a database that is about to be replaced to rest: all that it holds is in its file, and no
/// WAL or journal of it is left that would be played into its successor. If this program is killed
/// between this and the rename, the old file is whole.
fn settle(path: &Path, force: bool) -> Result<(), ToolError> {
    let in_use = |who: &str| {
        Err(ToolError::Cannot(format!(
            "{}: another process uses the database{who}: it was not replaced; end that, or give \
             --force",
            path.display()
        )))
    };
    // One that does nothing holds no lock, and would go on with a file that has no name any more.
    let holders = open_elsewhere(path);
    if !holders.is_empty() && !force {
        return in_use(&format!(" ({})", holders.join(", ")));
    }
    match come_to_rest(path) {
        Err(rusqlite::Error::SqliteFailure(error, _))
            if matches!(
                error.code,
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked
            ) && !force =>
        {
            return in_use("");
        }
        // What is no database has nothing to lose in files beside it.
        Ok(()) | Err(_) => {}
    }
    let files: [PathBuf; 3] = ["-wal", "-shm", "-journal"].map(|suffix| beside(path, suffix));
    files.iter().try_for_each(|file| remove(file))
}

/// The other processes that have a file open, as far as the system shows them to this user.
fn open_elsewhere(path: &Path) -> Vec<String> {
    let Ok(file) = std::fs::metadata(path) else {
        return Vec::new();
    };
    let is_it = |link: &Path| {
        // By its name first: asking for what is behind a link may wait for a server that is away.
        let names_it = std::fs::read_link(link).is_ok_and(|to| to.file_name() == path.file_name());
        let same =
            |found: std::fs::Metadata| (found.dev(), found.ino()) == (file.dev(), file.ino());
        names_it && std::fs::metadata(link).is_ok_and(same)
    };
    let own = std::process::id().to_string();
    let mut holders = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = process.file_name().to_string_lossy().into_owned();
        if number == own || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let open = std::fs::read_dir(process.path().join("fd"));
        let mut open = open.into_iter().flatten().flatten();
        if open.any(|link| is_it(&link.path())) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            holders.push(format!("{} {number}", name.trim()));
        }
    }
    holders
}

fn come_to_rest(path: &Path) -> rusqlite::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_READ_WRITE;
    let old = Connection::open_with_flags(path, flags)?;
    old.busy_timeout(LEAVE)?;
    // Alone with it: in WAL mode no other connection may even be open then.
    old.query_row("pragma locking_mode = exclusive", [], |_| Ok(()))?;
    old.execute_batch("begin exclusive; commit")?;
    old.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))?;
    old.close().map_err(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_replaced_comes_to_rest_first_and_not_under_anybodys_hands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let writer = Connection::open(&path).unwrap();
        writer.pragma_update(None, "journal_mode", "wal").unwrap();
        writer
            .execute_batch("create table t (x); insert into t values (1)")
            .unwrap();
        let error = settle(&path, false).unwrap_err().to_string();
        assert!(error.contains("another process uses"), "{error}");
        assert!(beside(&path, "-wal").exists());
        // As if it had been killed: nobody there, and what it wrote is in the WAL alone.
        let copy = folder.path().join("copy.db");
        for suffix in ["", "-wal"] {
            std::fs::copy(beside(&path, suffix), beside(&copy, suffix)).unwrap();
        }
        settle(&copy, false).unwrap();
        assert!(!beside(&copy, "-wal").exists());
        let count = Connection::open(&copy).unwrap();
        let count = count.query_row("select count(*) from t", [], |row| row.get::<_, i64>(0));
        assert_eq!(count.unwrap(), 1, "its file alone holds everything");
        std::fs::write(&copy, "no database at all, but long enough to be read").unwrap();
        settle(&copy, false).unwrap();
        settle(Path::new("/nowhere/x.db"), false).unwrap();
    }
}
