//! What differs per database: commands, discovery, size estimate, end marker.
//!
//! An engine is made for one [`Database`] of the inventory, with its secrets resolved. It runs
//! nothing of the dump itself: it says which [`ToolCommand`] to run. The short queries (discovery,
//! login, size) it runs through the database's own client.

mod command;
mod identity;
mod load;
mod mysql;
mod parallel;
mod postgres;
mod script;
mod session;
pub mod sqlite;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::catalog::{Properties, SourceIdentity};
use crate::config::{Database, EngineKind};
use crate::dump::{DumpError, DumpShape, ToolCommand, ToolError};
use crate::meter::Meter;
use identity::{local_identity, server_identity};
use load::ADMIN_TIMEOUT;
pub use load::{
    Activity, Beside, ClientLoad, Contents, Destination, Load, LoadOptions, Loader, Part, Purpose,
    Replacement, Settle, Unit,
};
pub use parallel::{Copy, Keeper, Streams, Table};
pub use postgres::{Task, steps};
pub use script::{Cut, Cutter, Script};

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

/// What is found out about a source before its dump.
pub struct Survey {
    /// See [`Engine::version`].
    pub version: Result<String, ToolError>,
    /// See [`Engine::identity`].
    pub identity: SourceIdentity,
    /// See [`Engine::estimate`]. A server that does not answer fails the dump, with better words
    /// than this query's.
    pub size: Option<u64>,
    /// See [`Engine::properties`].
    pub properties: Result<Option<Properties>, ToolError>,
    /// See [`Engine::lacks`].
    pub lacks: Result<Vec<String>, ToolError>,
}

impl Survey {
    /// All of it at once: a server that does not answer takes its time for each question. The size
    /// is asked for where it is not known.
    pub(super) async fn of(engine: &dyn Engine, size: Option<u64>) -> Self {
        let estimate = async {
            match size {
                Some(size) => Some(size),
                None => engine.estimate().await.unwrap_or_default(),
            }
        };
        let (version, identity, size, properties, lacks) = tokio::join!(
            engine.version(),
            engine.identity(),
            estimate,
            engine.properties(),
            engine.lacks()
        );
        Self {
            version,
            identity,
            size,
            properties,
            lacks,
        }
    }
}

/// An engine for one source.
#[async_trait]
pub trait Engine: Loader {
    /// The command that writes the dump to its stdout and exits 0 only when the dump is whole.
    fn dump_command(&self) -> Result<ToolCommand, ToolError>;

    /// The same for a staged backup, where the tool may use `parallel` connections, and the format
    /// that its dump has.
    fn staged_dump(&self, _parallel: usize) -> Result<(StagedDump, &'static str), ToolError> {
        Ok((StagedDump::Stdout(self.dump_command()?), self.dump_format()))
    }

    /// Begins a dump by `streams` sessions at once, from one snapshot. `segment` is what one of its
    /// files has at most, in bytes.
    async fn parallel_dump(
        &self,
        _streams: usize,
        _segment: usize,
        _exit_timeout: Duration,
        _meter: &Meter,
    ) -> Result<Streams, DumpError> {
        let why = "this engine has no parallel dump";
        Err(ToolError::Cannot(why.into()).into())
    }

    /// File name of the dump in the archive, such as `shop.sql`, when the inventory gives none.
    fn file_name(&self) -> String;

    /// The dump's format as the manifest says it: `plain`, `custom`, `dump`.
    fn dump_format(&self) -> &'static str {
        "dump"
    }

    /// What a whole dump looks like from outside.
    fn dump_shape(&self) -> DumpShape;

    /// The dump tool and its version in its own words.
    async fn version(&self) -> Result<String, ToolError>;

    /// All that is found out before a dump; `size` is the dump's, where it is known.
    async fn survey(&self, size: Option<u64>) -> Survey;

    /// Which source this is, in words that do not change from one backup to the next: two databases
    /// of one name in one store are told apart by it. What the server does not say is left out.
    async fn identity(&self) -> SourceIdentity;

    /// What is said about the database itself, which is in no dump of its content.
    async fn properties(&self) -> Result<Option<Properties>, ToolError> {
        Ok(None)
    }

    /// What a dump that ends well will lack all the same, in words: what this user may not see and
    /// no tool complains of.
    async fn lacks(&self) -> Result<Vec<String>, ToolError> {
        Ok(Vec::new())
    }

    /// Logs in and does nothing; for engines with nothing to log into, that the source is there and
    /// readable.
    async fn check_login(&self) -> Result<(), ToolError>;

    /// Whether a dump can be expected to work, beyond the login: the tool knows the options and fits
    /// the server, the user may read what there is. What may still go wrong, or is done to others,
    /// is returned in words.
    async fn check_dump(&self) -> Result<Vec<String>, ToolError> {
        Ok(Vec::new())
    }

    /// The names of the server's databases, template and system ones left out; `None` where an
    /// engine has one only.
    async fn discover(&self) -> Result<Option<Vec<String>>, ToolError> {
        Ok(None)
    }

    /// About how many bytes the dump will have, at most; `None` when nothing is known.
    async fn estimate(&self) -> Result<Option<u64>, ToolError> {
        Ok(None)
    }
}

/// The engine for an entry of the inventory.
pub fn open(database: &Database, access: Access) -> Arc<dyn Engine> {
    let database = database.clone();
    match database.engine {
        EngineKind::Postgres => Arc::new(postgres::Postgres::new(database, access)),
        EngineKind::Mysql | EngineKind::Mariadb => Arc::new(mysql::Mysql::new(database, access)),
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

/// Text from its UTF-8 bytes in hex digits, as both clients are asked to give names.
fn unhex(digits: &str) -> Option<String> {
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    String::from_utf8(
        (0..digits.len())
            .step_by(2)
            .map(byte)
            .collect::<Option<_>>()?,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_hex_digits() {
        assert_eq!(unhex("67c3b6"), Some("gö".into()));
        assert_eq!(unhex("6"), None);
    }
}
