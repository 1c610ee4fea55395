//! How the program ends: one table, from what happened to the number.

use std::process::ExitCode;

use serde_json::{Map, Value};

use crate::catalog::LookupError;
use crate::config::ConfigError;
use crate::job::FailureKind;
use crate::store::{ErrorKind, StoreError};
use crate::upkeep::UpkeepError;

/// The table, as `tapline --help` and the README show it.
pub(super) const TABLE: &str = "\
Exit codes:
  0    all good
  1    a backup or a restore failed, or what was to be removed was not
  2    the command line makes no sense
  3    the inventory makes no sense, or a secret is missing
  4    the store cannot be reached or refuses
  5    a check found something wrong, a backup is damaged, or a database has none
  6    there is no such backup
  7    all that was asked for is done, but a report, a picture or stdout could not be written
  129  hung up (SIGHUP: the terminal was closed)
  130  interrupted (SIGINT)
  143  terminated (SIGTERM)

A run in which jobs failed ends with the code that all their failures share, else with 1.";

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
    Untold = 7,
    HungUp = 129,
    Interrupted = 130,
    Terminated = 143,
}

impl Exit {
    /// What happened, for programs, where an error says nothing more precise.
    pub fn kind(self) -> &'static str {
        match self {
            Exit::Good => "good",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::Config => "inventory",
            Exit::Store => "store",
            Exit::Check => "damaged",
            Exit::NoBackup => "no_backup",
            Exit::Untold => "output",
            Exit::HungUp | Exit::Interrupted | Exit::Terminated => "interrupted",
        }
    }

    /// Whether a signal has ended the program.
    pub fn is_by_signal(self) -> bool {
        matches!(self, Self::HungUp | Self::Interrupted | Self::Terminated)
    }

    /// The code of a job's failure.
    pub fn of_job(kind: FailureKind) -> Exit {
        match kind {
            FailureKind::Inventory | FailureKind::Secret | FailureKind::Memory => Exit::Config,
            FailureKind::StoreUnreachable
            | FailureKind::StoreDenied
            | FailureKind::StoreRefused => Exit::Store,
            FailureKind::Tool
            | FailureKind::Source
            | FailureKind::Busy
            | FailureKind::Hook
            | FailureKind::Dump
            | FailureKind::Disk
            | FailureKind::Stalled
            | FailureKind::Interrupted
            | FailureKind::Internal => Exit::Failed,
        }
    }

    /// The code of a run, from its failures': theirs when they agree.
    pub fn of_all(failures: impl IntoIterator<Item = Exit>) -> Exit {
        let mut failures = failures.into_iter();
        match failures.next() {
            None => Exit::Good,
            Some(first) if failures.all(|other| other == first) => first,
            Some(_) => Exit::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why the program ends other than well: words for a person, the rest for programs.
#[derive(Debug)]
pub(super) struct Failure {
    pub exit: Exit,
    /// More precise than the exit code, such as `denied` of a store.
    kind: &'static str,
    step: Option<&'static str>,
    store: Option<String>,
    pub message: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            kind: exit.kind(),
            step: None,
            store: None,
            message: message.into(),
        }
    }

    /// While doing what it happened.
    #[must_use]
    pub fn step(self, step: &'static str) -> Self {
        Self {
            step: self.step.or(Some(step)),
            ..self
        }
    }

    /// In which store it happened.
    #[must_use]
    pub fn store(self, store: impl Into<String>) -> Self {
        Self {
            store: Some(store.into()),
            ..self
        }
    }

    /// What a program wants to know of it.
    pub fn fields(&self) -> Map<String, Value> {
        let fields = [
            ("message", Some(Value::from(self.message.as_str()))),
            ("step", self.step.map(Value::from)),
            ("kind", Some(Value::from(self.kind))),
            ("store", self.store.as_deref().map(Value::from)),
            ("exit_code", Some(Value::from(self.exit as u8))),
        ];
        fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect()
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, error.to_string()).step("inventory")
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self {
            kind: match error.kind() {
                ErrorKind::Transient => "transient",
                ErrorKind::NotFound => "not_found",
                ErrorKind::AlreadyExists => "already_exists",
                ErrorKind::Denied => "denied",
                ErrorKind::Invalid => "invalid",
                ErrorKind::Unreachable => "unreachable",
                ErrorKind::Unsupported => "unsupported",
            },
            ..Self::new(Exit::Store, error.to_string()).step("store")
        }
    }
}

impl From<LookupError> for Failure {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NoSuchBackup(_) => Self::new(Exit::NoBackup, error.to_string()),
            LookupError::Ambiguous { .. } | LookupError::SeveralSources(_) => {
                Self::new(Exit::Usage, error.to_string())
            }
            LookupError::Unusable(_) => Self::new(Exit::Check, error.to_string()),
            LookupError::Store(error) => error.into(),
        }
        .step("look up")
    }
}

impl From<UpkeepError> for Failure {
    fn from(error: UpkeepError) -> Self {
        let message = error.to_string();
        match error {
            UpkeepError::Config(error) => error.into(),
            UpkeepError::Lookup(error) => error.into(),
            UpkeepError::Store { store, error, .. } => Self {
                message,
                ..Self::from(error).store(store)
            },
            UpkeepError::NoBackup(_) => Self::new(Exit::NoBackup, message).step("look up"),
            UpkeepError::Senseless(_) => Self::new(Exit::Usage, message).step("command line"),
        }
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

    const ALL: [Exit; 11] = [
        Exit::Good,
        Exit::Failed,
        Exit::Usage,
        Exit::Config,
        Exit::Store,
        Exit::Check,
        Exit::NoBackup,
        Exit::Untold,
        Exit::HungUp,
        Exit::Interrupted,
        Exit::Terminated,
    ];

    #[test]
    fn every_code_is_in_the_table_and_in_the_readme() {
        let readme = include_str!("../../README.md");
        for exit in ALL {
            let line = TABLE
                .lines()
                .find_map(|line| line.trim().strip_prefix(&format!("{:<3}  ", exit as u8)))
                .unwrap_or_else(|| panic!("{exit:?} is not in the table"));
            let row = format!("| {} | {line} |", exit as u8);
            assert!(readme.contains(&row), "the README has no line {row}");
        }
    }

    #[test]
    fn a_run_ends_with_the_code_that_its_failures_share() {
        assert_eq!(Exit::of_all([]), Exit::Good);
        assert_eq!(Exit::of_all([Exit::Store, Exit::Store]), Exit::Store);
        assert_eq!(Exit::of_all([Exit::Store, Exit::Failed]), Exit::Failed);
    }
}
