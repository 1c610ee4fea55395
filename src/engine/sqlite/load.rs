//! How an image gets into its place, and what is in a database.

use async_trait::async_trait;

use super::super::{Contents, Load, Loader};
use super::image::open;
use super::{Sqlite, beside};
use crate::dump::ToolError;

#[async_trait]
impl Loader for Sqlite {
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
            .map_err(|error| ToolError::Cannot(error.to_string()))?
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
            count.map_err(|error| ToolError::Cannot(format!("{}: {error}", path.display())))
        };
        let count = tokio::task::spawn_blocking(count)
            .await
            .map_err(|error| ToolError::Cannot(error.to_string()))??;
        Ok(Some(count.unsigned_abs()))
    }

    async fn remove(&self) -> Result<(), ToolError> {
        let path = self.path()?;
        for path in ["-wal", "-shm", "-journal", ""].map(|suffix| beside(path, suffix)) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ToolError::Cannot(format!("{}: {error}", path.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
