//! PostgreSQL: `pg_dump`, and `pg_dumpall --globals-only`.
//!
//! The password reaches libpq through a password file that is a memfd
//! (<https://www.postgresql.org/docs/current/libpq-pgpass.html>: a regular file, mode 0600).

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::tool::{SECRET_PATH, ToolCommand, ToolError, first_in_path};
use super::{Access, EndMarker, Engine, file_stem, number};
use crate::config::{Database, DumpFormat, Selection};

/// The database that queries about the server are asked in; every server has it.
const MAINTENANCE: &str = "postgres";

pub(super) struct Postgres {
    pub(super) database: Database,
    pub(super) access: Access,
}

impl Postgres {
    fn globals(&self) -> bool {
        self.database.database == Selection::Globals
    }

    fn name(&self) -> &str {
        match &self.database.database {
            Selection::One(name) => name,
            _ => MAINTENANCE,
        }
    }

    /// `program`, connected to `database`. What libpq takes from its environment need not be quoted.
    fn tool(&self, program: impl Into<std::path::PathBuf>, database: &str) -> ToolCommand {
        let mut tool = ToolCommand::new(program);
        let mut set = |name: &str, value: String| tool.env.push((name.into(), value));
        if let Some(host) = self.database.host.clone() {
            set("PGHOST", host);
        }
        if let Some(folder) = &self.database.socket {
            set("PGHOST", folder.display().to_string());
        }
        if let Some(port) = self.database.port {
            set("PGPORT", port.to_string());
        }
        if let Some(user) = self.database.user.clone() {
            set("PGUSER", user);
        }
        set("PGDATABASE", database.to_owned());
        set("PGAPPNAME", "tapline".into());
        set("PGCONNECT_TIMEOUT", self.access.timeout.as_secs().max(1).to_string());
        if let Some(password) = &self.access.password {
            tool.env.push(("PGPASSFILE".into(), SECRET_PATH.into()));
            tool.secret_file = Some(passfile(password));
        }
        tool.secret_env.clone_from(&self.access.env);
        tool
    }

    async fn ask(&self, database: &str, query: &str) -> Result<String, ToolError> {
        let args = ["-XAtq", "--no-password", "-v", "ON_ERROR_STOP=1", "-c", query];
        self.tool(first_in_path(&["psql"]), database).args(args).query(self.access.timeout).await
    }

    fn program(&self) -> std::path::PathBuf {
        let usual = if self.globals() { "pg_dumpall" } else { "pg_dump" };
        self.database.dump_tool.clone().unwrap_or_else(|| first_in_path(&[usual]))
    }
}

/// One line that fits every server: the connection is given elsewhere. A password cannot hold a line break here.
fn passfile(password: &SecretString) -> SecretString {
    let escaped = password.expose_secret().replace('\\', r"\\").replace(':', r"\:");
    format!("*:*:*:*:{escaped}\n").into()
}

#[async_trait]
impl Engine for Postgres {
    fn dump_command(&self) -> Result<ToolCommand, ToolError> {
        let mut args = vec!["--no-password".to_owned()];
        if self.globals() {
            args.push("--globals-only".into());
        } else if self.database.dump_format == DumpFormat::Custom {
            // We compress, in parallel; twice is slower and no smaller.
            args.extend(["--format=custom".into(), "--compress=0".into()]);
        }
        args.extend(self.database.options.iter().cloned());
        Ok(self.tool(self.program(), self.name()).args(args))
    }

    fn file_name(&self) -> String {
        match (&self.database.database, self.database.dump_format) {
            (Selection::Globals, _) => "globals.sql".into(),
            (_, DumpFormat::Plain) => format!("{}.sql", file_stem(self.name())),
            (_, DumpFormat::Custom) => format!("{}.dump", file_stem(self.name())),
        }
    }

    fn dump_format(&self) -> &'static str {
        match self.database.dump_format {
            DumpFormat::Custom if !self.globals() => "custom",
            _ => "plain",
        }
    }

    fn end_marker(&self) -> Option<EndMarker> {
        // Newer versions write a line `\unrestrict KEY` after it.
        let text = match self.database.dump_format {
            _ if self.globals() => "-- PostgreSQL database cluster dump complete",
            DumpFormat::Plain => "-- PostgreSQL database dump complete",
            DumpFormat::Custom => return None,
        };
        Some(EndMarker { text, within: 1024 })
    }

    async fn version(&self) -> Result<String, ToolError> {
        let answer = ToolCommand::new(self.program()).args(["--version"]).query(self.access.timeout).await?;
        Ok(answer.trim().to_owned())
    }

    async fn check_login(&self) -> Result<(), ToolError> {
        self.ask(self.name(), "select 1").await.map(drop)
    }

    async fn discover(&self) -> Result<Option<Vec<String>>, ToolError> {
        // A NUL cannot be in a name, nor in an answer: names come as hex.
        let query = "select encode(convert_to(datname, 'UTF8'), 'hex') from pg_database \
                     where datallowconn and not datistemplate order by datname";
        let answer = self.ask(MAINTENANCE, query).await?;
        answer
            .lines()
            .map(unhex)
            .collect::<Option<_>>()
            .map(Some)
            .ok_or_else(|| ToolError("psql: no list of names".into()))
    }

    async fn estimate(&self) -> Result<Option<u64>, ToolError> {
        if self.globals() {
            return Ok(None);
        }
        Ok(number(&self.ask(self.name(), "select pg_database_size(current_database())").await?))
    }
}

/// Text from its UTF-8 bytes in hex digits, as both clients are asked to give names.
pub(super) fn unhex(digits: &str) -> Option<String> {
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    String::from_utf8((0..digits.len()).step_by(2).map(byte).collect::<Option<_>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passwords_colons_and_backslashes_are_escaped() {
        assert_eq!(passfile(&r"a:b\c".to_owned().into()).expose_secret(), "*:*:*:*:a\\:b\\\\c\n");
        assert_eq!(unhex("67c3b6"), Some("gö".into()));
        assert_eq!(unhex("6"), None);
    }
}
