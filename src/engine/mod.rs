//! What differs per database: commands, discovery, size estimate, end marker.
//!
//! An engine is made for one [`Database`] of the inventory, with its secrets resolved. It runs
//! nothing of the dump itself: it says which [`ToolCommand`] to run. The short queries (discovery,
//! login, size) it runs through the database's own client.

mod command;
mod mysql;
mod postgres;
pub mod sqlite;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::config::{Database, EngineKind};
use crate::dump::{EndMarker, ToolCommand, ToolError};

/// What a database holds that is to be restored into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// There is no such database.
    Absent,
    /// There is nothing in it.
    Empty,
    /// Something is in it, in words such as `12 tables`.
    Holds(String),
    /// There is no way to tell.
    Unknown,
}

/// How a dump becomes files in a folder, for a staged backup.
#[derive(Debug, Clone)]
pub enum StagedDump {
    /// One file: the tool's stdout.
    Stdout(ToolCommand),
    /// A file for each table: the tool's stdout, cut before the lines that begin so.
    Tables {
        /// The tool.
        command: ToolCommand,
        /// A table's name follows those that end with a backquote.
        cuts: &'static [&'static str],
    },
    /// The tool writes a folder by itself.
    Folder {
        /// The tool.
        command: ToolCommand,
        /// What comes before the folder's path in its last argument, such as `--file=`.
        option: &'static str,
    },
}

impl StagedDump {
    /// The tool.
    pub fn command(&self) -> &ToolCommand {
        let (StagedDump::Stdout(command)
        | StagedDump::Tables { command, .. }
        | StagedDump::Folder { command, .. }) = self;
        command
    }
}

/// What keeps a database from holding a part of a dump, when its client does not see the end of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    /// A transaction that this program begins and ends: these statements go before the dump, those
    /// after it. When the client's input ends for any other reason, even because this program was
    /// killed, there is no end of the transaction.
    Between(String, &'static str),
    /// The client has a transaction of its own, and knows from the dump when it is whole.
    Own,
    /// Nothing.
    None,
    /// Nothing, and the client goes on after errors, of which those about what exists already do
    /// not matter.
    Lenient,
}

/// How a dump gets into its database.
#[derive(Debug, Clone)]
pub enum Load {
    /// A client reads it from its stdin, and exits 0 only when all of it has been loaded.
    Client {
        /// The client.
        command: ToolCommand,
        /// How it keeps the database from holding a part of the dump.
        unit: Unit,
    },
    /// A client reads it from a folder, whose path is its last argument.
    Folder(ToolCommand),
    /// The dump is the database.
    File {
        /// Where it belongs.
        path: PathBuf,
        /// Files that belong to the database that it replaces, and must go with it.
        stale: Vec<PathBuf>,
    },
}

/// What an engine needs besides the inventory's entry.
#[derive(Debug, Clone)]
pub struct Access {
    /// The password, resolved.
    pub password: Option<SecretString>,
    /// Extra environment for the tools, resolved.
    pub env: Vec<(String, SecretString)>,
    /// This program's own binary, which dumps SQLite databases.
    pub tapline: PathBuf,
    /// How long a login or a query may take.
    pub timeout: Duration,
}

/// An engine for one source.
#[async_trait]
pub trait Engine: Send + Sync {
    /// The command that writes the dump to its stdout and exits 0 only when the dump is whole.
    fn dump_command(&self) -> Result<ToolCommand, ToolError>;

    /// The same for a staged backup, where the tool may use `parallel` connections, and the format
    /// that its dump has.
    fn staged_dump(&self, _parallel: usize) -> Result<(StagedDump, &'static str), ToolError> {
        Ok((StagedDump::Stdout(self.dump_command()?), self.dump_format()))
    }

    /// File name of the dump in the archive, such as `shop.sql`, when the inventory gives none.
    fn file_name(&self) -> String;

    /// The dump's format as the manifest says it: `plain`, `custom`, `dump`.
    fn dump_format(&self) -> &'static str {
        "dump"
    }

    /// The dump's last words, where the tool has any.
    fn end_marker(&self) -> Option<EndMarker> {
        None
    }

    /// The dump tool and its version in its own words.
    async fn version(&self) -> Result<String, ToolError>;

    /// Logs in and does nothing; for engines with nothing to log into, that the source is there and
    /// readable.
    async fn check_login(&self) -> Result<(), ToolError>;

    /// The names of the server's databases, template and system ones left out; `None` where an
    /// engine has one only.
    async fn discover(&self) -> Result<Option<Vec<String>>, ToolError> {
        Ok(None)
    }

    /// About how many bytes the dump will have, at most; `None` when nothing is known.
    async fn estimate(&self) -> Result<Option<u64>, ToolError> {
        Ok(None)
    }

    /// How a dump of `dump_format` gets into this database; with `replace`, instead of what is in
    /// it.
    fn load(&self, dump_format: &str, replace: bool) -> Result<Load, ToolError>;

    /// What is in this database now.
    async fn contents(&self) -> Result<Contents, ToolError> {
        Ok(Contents::Unknown)
    }

    /// Makes the database, empty.
    async fn create(&self) -> Result<(), ToolError> {
        Ok(())
    }

    /// Empties the database, where loading a dump with `replace` does not do it by itself.
    async fn clear(&self) -> Result<(), ToolError> {
        Ok(())
    }

    /// How many tables the database has; `None` where the question does not arise.
    async fn count_tables(&self) -> Result<Option<u64>, ToolError> {
        Ok(None)
    }

    /// Removes the database.
    async fn remove(&self) -> Result<(), ToolError> {
        Err(ToolError(
            "this engine's databases cannot be made and removed at will".into(),
        ))
    }
}

/// How long making, emptying or removing a database may take.
const ADMIN_TIMEOUT: Duration = Duration::from_mins(10);

/// The engine for an entry of the inventory.
pub fn open(database: &Database, access: Access) -> Arc<dyn Engine> {
    let database = database.clone();
    match database.engine {
        EngineKind::Postgres => Arc::new(postgres::Postgres { database, access }),
        EngineKind::Mysql | EngineKind::Mariadb => Arc::new(mysql::Mysql { database, access }),
        EngineKind::Sqlite => Arc::new(sqlite::Sqlite { database, access }),
        EngineKind::Command => Arc::new(command::Command { database, access }),
    }
}

/// A database's name as a file name: no slash, no control character, not too long for a tar header.
pub fn file_stem(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| if c == '/' || c.is_control() { '_' } else { c })
        .collect();
    let mut end = safe.len().min(200);
    while !safe.is_char_boundary(end) {
        end -= 1;
    }
    safe[..end].to_owned()
}

/// A number that a client printed.
fn number(answer: &str) -> Option<u64> {
    // MariaDB's sum() is a decimal.
    answer.trim().split('.').next()?.parse().ok()
}
