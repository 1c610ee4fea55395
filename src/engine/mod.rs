//! What differs per database: commands, discovery, size estimate, end marker.
//!
//! An engine is made for one [`Database`] of the inventory, with its secrets resolved. It runs nothing of
//! the dump itself: it says which [`ToolCommand`] to run. The short queries (discovery, login, size) it
//! runs through the database's own client.

mod command;
mod mysql;
mod postgres;
mod secret_file;
mod sqlite;
mod tool;

use async_trait::async_trait;

pub use tool::{ToolCommand, ToolError};

/// What one dump's end looks like, for engines whose tools write a marker last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndMarker {
    /// The marker.
    pub text: &'static str,
    /// In how many of the dump's last bytes it must be found.
    pub within: usize,
}

/// An engine for one source.
#[async_trait]
pub trait Engine: Send + Sync {
    /// The command that writes the dump to its stdout and exits 0 only when the dump is whole.
    fn dump_command(&self) -> Result<ToolCommand, ToolError>;

    /// File name of the dump in the archive, such as `shop.sql`.
    fn file_name(&self) -> String;

    /// The dump's format as the manifest says it: `plain`, `custom`, `dump`.
    fn dump_format(&self) -> &'static str;

    /// The dump's last words, where the tool has any.
    fn end_marker(&self) -> Option<EndMarker>;

    /// The dump tool and its version in its own words.
    async fn version(&self) -> Result<String, ToolError>;

    /// Logs in and does nothing; for engines with nothing to log into, that the source is there and readable.
    async fn check_login(&self) -> Result<(), ToolError>;

    /// The names of the server's databases, template and system ones left out; `None` where an engine has one only.
    async fn discover(&self) -> Result<Option<Vec<String>>, ToolError>;

    /// About how many bytes the dump will have, at most; `None` when nothing is known.
    async fn estimate(&self) -> Result<Option<u64>, ToolError>;
}
