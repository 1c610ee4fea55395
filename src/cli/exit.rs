//! Exit codes: one table, from what happened to the number.

use std::process::ExitCode;

use crate::catalog::LookupError;
use crate::config::ConfigError;
use crate::store::StoreError;

/// The table, as `tapline --help` and the README show it.
pub(super) const TABLE: &str = "\
Exit codes:
  0    all good
  1    a backup or a restore failed, or what was to be removed was not
  2    the command line makes no sense
  3    the inventory makes no sense, or a secret is missing
  4    the store cannot be reached or refuses
  5    a check found something wrong, or a backup is damaged
  6    there is no such backup
  130  interrupted (SIGINT)
  143  terminated (SIGTERM)";

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Good = 0,
    Failed = 1,
    Usage = 2,
    Config = 3,
    Store = 4,
    Check = 5,
    NoBackup = 6,
    Interrupted = 130,
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why the program ends other than well, in words for a person.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    pub message: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    pub fn print(&self) -> ExitCode {
        eprintln!("tapline: {}", self.message);
        self.exit.into()
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Exit::Store, error.to_string())
    }
}

impl From<LookupError> for Failure {
    fn from(error: LookupError) -> Self {
        let exit = match error {
            LookupError::NoSuchBackup(_) => Exit::NoBackup,
            LookupError::Ambiguous { .. } => Exit::Usage,
            LookupError::Unusable(_) => Exit::Check,
            LookupError::Store(_) => Exit::Store,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_table() {
        use Exit::{Check, Config, Failed, Good, Interrupted, NoBackup, Store, Terminated, Usage};
        for exit in [
            Good,
            Failed,
            Usage,
            Config,
            Store,
            Check,
            NoBackup,
            Interrupted,
            Terminated,
        ] {
            assert!(
                TABLE.contains(&format!("\n  {:<3}  ", exit as u8)),
                "{exit:?}"
            );
        }
    }
}
