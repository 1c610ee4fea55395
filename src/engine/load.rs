//! The restore's side of an engine: what a database holds, and how a dump gets into it.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use crate::dump::{ToolCommand, ToolError};

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

/// How long making, emptying or removing a database may take.
pub(super) const ADMIN_TIMEOUT: Duration = Duration::from_mins(10);

/// An engine's database as a restore's target.
#[async_trait]
pub trait Loader: Send + Sync {
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
        Err(ToolError::Cannot(
            "this engine's databases cannot be made and removed at will".into(),
        ))
    }
}
