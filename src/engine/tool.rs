//! A tool to run: program, arguments, environment, and secrets that reach it without being on its command line.

use std::path::PathBuf;

use secrecy::SecretString;

/// A command line whose secrets are kept apart. `Debug` and [`ToolCommand::display`] never show one.
#[derive(Debug, Clone)]
pub struct ToolCommand {
    /// The program, a path or a name to find in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment that is no secret.
    pub env: Vec<(String, String)>,
    /// Environment that is.
    pub secret_env: Vec<(String, SecretString)>,
    /// A file for the child alone: it inherits a memfd (mode 0600) with this content as descriptor 3,
    /// and knows it as `/proc/self/fd/3`.
    pub secret_file: Option<SecretString>,
}

/// Why a tool could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ToolError(pub String);

impl ToolCommand {
    /// The command as a person would type it, quoted for a shell; secrets are left out.
    pub fn display(&self) -> String {
        todo!()
    }

    /// The command ready to be spawned: its own process group, stdin from `/dev/null`, killed when dropped.
    /// stdout and stderr are the caller's to set.
    pub fn to_command(&self) -> std::io::Result<tokio::process::Command> {
        todo!()
    }
}
