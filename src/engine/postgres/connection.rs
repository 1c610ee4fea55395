//! The clients, connected to the inventory's server.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::super::ADMIN_TIMEOUT;
use super::super::session::Session;
use super::Postgres;
use super::load::PATIENCE;
use crate::config::{Database, Tls};
use crate::dump::{SECRET_PATH, ToolCommand, ToolError};

/// The database that queries about the server are asked in; every server has it.
pub(super) const MAINTENANCE: &str = "postgres";

/// A question is asked with this program's own patience, and of the server's own catalogs: who may
/// set what holds for the sessions of a database could answer it by a table or a function of his,
/// which would then do what it likes with the rights of whoever asks.
const UNSWAYED: &str = "set local search_path = '';
set local statement_timeout = 0;
set local idle_in_transaction_session_timeout = 0";

/// A path at which there never is a file.
const NOWHERE: &str = "/dev/null/nowhere";

impl Postgres {
    /// `program`, connected to `database`.
    pub(super) fn tool(&self, program: impl Into<PathBuf>, database: &str) -> ToolCommand {
        self.connected(program)
            .args([format!("--dbname={}", plain_name(database))])
    }

    /// `program`, connected to the server. Whom to connect to is said in arguments, which are
    /// stronger than anything else that libpq reads; how is said in variables, of which the tool
    /// gets no others.
    pub(super) fn connected(&self, program: impl Into<PathBuf>) -> ToolCommand {
        let Database {
            host,
            socket,
            port,
            user,
            ..
        } = &self.database;
        let host = host
            .clone()
            .or_else(|| socket.as_ref().map(|folder| folder.display().to_string()));
        let option = |name: &str, value: Option<String>| value.map(|v| format!("--{name}={v}"));
        let address = [
            option("host", host),
            option("port", port.map(|port| port.to_string())),
            option("username", user.clone()),
        ];
        let mut tool = ToolCommand::new(program).args(address.into_iter().flatten());
        let mut set = |name: &str, value: String| tool.env.push((name.into(), value));
        set("PGAPPNAME", "tapline".into());
        set(
            "PGCONNECT_TIMEOUT",
            self.access.timeout.as_secs().max(1).to_string(),
        );
        // Always said, or ~/.pgpass would be asked.
        let passfile = self.access.password.as_ref().map(passfile);
        let path = passfile.as_ref().map_or(NOWHERE, |_| SECRET_PATH);
        set("PGPASSFILE", path.into());
        let Tls {
            mode,
            ca,
            cert,
            key,
        } = &self.database.tls;
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        for (name, value) in [
            ("PGSERVICE", self.database.service.clone()),
            ("PGSSLMODE", mode.clone()),
            ("PGSSLROOTCERT", path(ca)),
            ("PGSSLCERT", path(cert)),
            ("PGSSLKEY", path(key)),
        ] {
            if let Some(value) = value {
                set(name, value);
            }
        }
        tool.secret_file = passfile;
        tool.secret_env.clone_from(&self.access.env);
        tool
    }

    /// psql with a query's options: names come and go as UTF-8, whatever the database is encoded
    /// in.
    pub(super) fn psql(&self, database: &str) -> ToolCommand {
        let mut psql = self.tool(self.program("psql"), database).args([
            "-Xq",
            "--no-password",
            "-v",
            "ON_ERROR_STOP=1",
        ]);
        psql.env.push(("PGCLIENTENCODING".into(), "UTF8".into()));
        psql
    }

    /// A session that stays.
    pub(super) fn session(&self, database: &str) -> Result<Session, ToolError> {
        let command = self.psql(database).args(["-At", "-f", "-"]);
        Session::open(&command, "\\echo 'tapline: end of the answer'")
    }

    pub(super) async fn ask(&self, database: &str, query: &str) -> Result<String, ToolError> {
        if let Some(interview) = self.interview.as_ref().filter(|_| database == self.name()) {
            let open = || self.session(database);
            let greeting =
                format!("begin;\n{UNSWAYED};\nselect current_setting('server_version_num')");
            let greeting = (greeting.as_str(), |version: &str| {
                self.server.learn(version);
            });
            return interview
                .ask(open, greeting, query, self.access.timeout)
                .await;
        }
        // psql knows the server's version without asking for it.
        let answer = self
            .psql(database)
            .args(["-At", "--single-transaction", "-c", UNSWAYED, "-c", query])
            .args(["-c", "\\echo :SERVER_VERSION_NUM"])
            .query(self.access.timeout)
            .await?;
        let answer = answer.trim_end();
        let (answer, version) = answer.rsplit_once('\n').unwrap_or(("", answer));
        self.server.learn(version);
        Ok(answer.to_owned())
    }

    pub(super) async fn administer(&self, statements: &[&str]) -> Result<(), ToolError> {
        let statements = statements.iter().flat_map(|statement| ["-c", statement]);
        self.psql(MAINTENANCE)
            .args(["-o", "/dev/null", "-c", PATIENCE])
            .args(statements)
            .query(ADMIN_TIMEOUT)
            .await
            .map(drop)
    }
}

/// A database's name as libpq takes it for one: a name that looks like a connection string is
/// written as one.
fn plain_name(name: &str) -> String {
    let is_plain = !name.contains('=')
        && !name.starts_with("postgresql://")
        && !name.starts_with("postgres://");
    if is_plain {
        return name.to_owned();
    }
    format!(
        "dbname='{}'",
        name.replace('\\', r"\\").replace('\'', r"\'")
    )
}

/// One line that fits every server: the connection is given elsewhere. A password cannot hold a
/// line break here.
fn passfile(password: &SecretString) -> SecretString {
    let escaped = password
        .expose_secret()
        .replace('\\', r"\\")
        .replace(':', r"\:");
    format!("*:*:*:*:{escaped}\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_a_database_is_a_connection_string() {
        assert_eq!(plain_name("größe it's"), "größe it's");
        assert_eq!(plain_name(r"a'\ host=b"), r"dbname='a\'\\ host=b'");
        assert_eq!(plain_name("postgres://x"), "dbname='postgres://x'");
    }

    #[test]
    fn a_passwords_colons_and_backslashes_are_escaped() {
        assert_eq!(
            passfile(&r"a:b\c".to_owned().into()).expose_secret(),
            "*:*:*:*:a\\:b\\\\c\n"
        );
    }
}
