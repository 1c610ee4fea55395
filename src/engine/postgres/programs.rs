//! Which of the client programs that are installed to run.
//!
//! `pg_dump` refuses a server that is newer than itself, and what a newer one writes an older server
//! may not read (`SET transaction_timeout` of 17). So where several versions stand side by side, as
//! Debian and the PostgreSQL project install them, the server's own is taken, else the next above.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::Postgres;
use crate::dump::first_in_path;

/// Folders that have a folder for each version.
const VERSIONS: &[(&str, &str)] = &[("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];
/// Where a program of `PATH` is a package's and not somebody's choice.
const PACKAGED: &[&str] = &[
    "/usr/share/postgresql-common",
    "/usr/lib/postgresql",
    "/usr/pgsql-",
];

/// What the server says its version is, once it has been asked anything; 150018 is 15.18.
#[derive(Debug, Default)]
pub(super) struct ServerVersion(OnceLock<u32>);

impl ServerVersion {
    pub(super) fn learn(&self, number: &str) {
        if let Ok(number) = number.trim().parse() {
            let _ = self.0.set(number);
        }
    }

    /// The version that a client's must not be below.
    pub(super) fn major(&self) -> Option<u32> {
        self.0.get().map(|number| number / 10_000)
    }
}

impl Postgres {
    /// A client program, such as `psql`.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        if let Some(folder) = &self.database.tools {
            return folder.join(name);
        }
        let better = match (in_path(name), self.server.major()) {
            (Some(program), _) if !is_packaged(&program) => None,
            (_, Some(server)) => fitting(installed(name), server),
            // Any client can ask any server for its version. Debian's in `PATH` is a Perl script that
            // looks for one of these, and takes longer for it than they do for the question.
            (_, None) => installed(name).into_iter().max().map(|(_, path)| path),
        };
        better.unwrap_or_else(|| first_in_path(&[name]))
    }
}

impl Postgres {
    /// The newest of a program that is not connected to a server: it reads what all older ones have
    /// written.
    pub(super) fn newest(&self, name: &str) -> PathBuf {
        let chosen = self.program(name);
        if self.database.tools.is_some() || !is_packaged(&chosen) {
            return chosen;
        }
        let newest = installed(name).into_iter().max();
        newest.map_or(chosen, |(_, path)| path)
    }
}

/// The program of the server's version, or of the next above.
fn fitting(mut installed: Vec<(u32, PathBuf)>, server: u32) -> Option<PathBuf> {
    installed.sort();
    let mut fitting = installed
        .into_iter()
        .filter(|(version, _)| *version >= server);
    fitting.next().map(|(_, path)| path)
}

fn installed(name: &str) -> Vec<(u32, PathBuf)> {
    let mut found = Vec::new();
    for (folder, prefix) in VERSIONS {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let version = entry.file_name();
            let version = version.to_str().and_then(|name| name.strip_prefix(prefix));
            let program = entry.path().join("bin").join(name);
            if let Some(Ok(version)) = version.map(str::parse)
                && program.is_file()
            {
                found.push((version, program));
            }
        }
    }
    found
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Whether a program is a package's.
fn is_packaged(program: &Path) -> bool {
    let real = std::fs::canonicalize(program).unwrap_or_else(|_| program.to_owned());
    real.parent() == Some(Path::new("/usr/bin"))
        || PACKAGED
            .iter()
            .any(|folder| real.to_string_lossy().starts_with(folder))
}

/// The major version in `pg_dump (PostgreSQL) 15.18 (Debian …)`.
pub(super) fn major(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("(PostgreSQL) ")?;
    let digits = number
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_version_is_taken_or_the_next_above() {
        let installed = || {
            [18, 13, 16]
                .map(|v| (v, PathBuf::from(v.to_string())))
                .to_vec()
        };
        let chosen = |server| fitting(installed(), server);
        assert_eq!(chosen(13), Some("13".into()));
        assert_eq!(chosen(14), Some("16".into()));
        assert_eq!(chosen(17), Some("18".into()));
        assert_eq!(chosen(19), None);
        assert_eq!(
            major("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(major("pg_dump (PostgreSQL) 19beta1"), Some(19));
    }
}
