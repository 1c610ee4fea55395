//! Exit codes: one table, from what happened to the number.

use std::process::ExitCode;

use crate::config::ConfigError;
use crate::store::StoreError;

/// The table, as `tapline --help` and the README show it.
pub(super) const TABLE: &str = "\
Exit codes:
  0    all good
  1    some backups failed
  2    the command line makes no sense
  3    the inventory makes no sense, or a secret is missing
  4    the store cannot be reached or refuses
  5    a check found something wrong
  130  interrupted (SIGINT)
  143  terminated (SIGTERM)";

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Good = 0,
    Failed = 1,
    Config = 3,
    Store = 4,
    Check = 5,
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
    message: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
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
        use Exit::{Check, Config, Failed, Good, Interrupted, Store, Terminated};
        for exit in [Good, Failed, Config, Store, Check, Interrupted, Terminated] {
            assert!(TABLE.contains(&format!("\n  {:<3}  ", exit as u8)), "{exit:?}");
        }
    }
}
