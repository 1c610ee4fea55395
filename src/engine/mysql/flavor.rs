//! Whose client programs these are: Oracle's and MariaDB's differ in their options.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::dump::ToolCommand;

/// Who made a client program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavor {
    Mariadb,
    Mysql,
}

static KNOWN: Mutex<Option<HashMap<PathBuf, Flavor>>> = Mutex::new(None);

impl Flavor {
    /// Of a program: by its version's words, because either is found under either's name.
    pub(super) fn of(program: &Path) -> Self {
        let mut known = KNOWN.lock().expect("no holder panics");
        let known = known.get_or_insert_default();
        if let Some(flavor) = known.get(program) {
            return *flavor;
        }
        let answer = ToolCommand::new(program)
            .args(["--version"])
            .to_command()
            .and_then(|mut command| command.output());
        let Ok(answer) = answer else {
            // Not there: what it would have been told does not matter.
            return Flavor::Mariadb;
        };
        let flavor = Self::named(&String::from_utf8_lossy(&answer.stdout));
        known.insert(program.to_owned(), flavor);
        flavor
    }

    /// As `--version` and the server's `version()` say it.
    pub(super) fn named(version: &str) -> Self {
        if version.contains("MariaDB") {
            Flavor::Mariadb
        } else {
            Flavor::Mysql
        }
    }

    /// What its dump tool is told so that it asks for no more rights than a dump takes. GTIDs that a
    /// server has cannot be set on it again, they are a replica's business, and take a lock of
    /// everything; tablespaces are a server's.
    pub(super) fn modest(self) -> &'static [&'static str] {
        match self {
            Flavor::Mysql => &["--set-gtid-purged=OFF", "--no-tablespaces"],
            Flavor::Mariadb => &[],
        }
    }

    pub(super) fn maker(self) -> &'static str {
        match self {
            Flavor::Mariadb => "MariaDB",
            Flavor::Mysql => "MySQL",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_is_told_by_its_version() {
        let mariadb =
            "mysqldump  Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)";
        assert_eq!(Flavor::named(mariadb), Flavor::Mariadb);
        assert_eq!(Flavor::named("10.11.19-MariaDB-0+deb12u1"), Flavor::Mariadb);
        let mysql = "mysqldump  Ver 8.4.3 for Linux on x86_64 (MySQL Community Server - GPL)";
        assert_eq!(Flavor::named(mysql), Flavor::Mysql);
    }
}
