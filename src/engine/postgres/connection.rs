//! The clients, connected to the inventory's server.

use secrecy::{ExposeSecret, SecretString};

use super::super::ADMIN_TIMEOUT;
use super::Postgres;
use crate::dump::{SECRET_PATH, ToolCommand, ToolError, first_in_path};

/// The database that queries about the server are asked in; every server has it.
pub(super) const MAINTENANCE: &str = "postgres";

impl Postgres {
    /// `program`, connected to `database`. What libpq takes from its environment need not be
    /// quoted.
    pub(super) fn tool(
        &self,
        program: impl Into<std::path::PathBuf>,
        database: &str,
    ) -> ToolCommand {
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
        set(
            "PGCONNECT_TIMEOUT",
            self.access.timeout.as_secs().max(1).to_string(),
        );
        if let Some(password) = &self.access.password {
            tool.env.push(("PGPASSFILE".into(), SECRET_PATH.into()));
            tool.secret_file = Some(passfile(password));
        }
        tool.secret_env.clone_from(&self.access.env);
        tool
    }

    pub(super) async fn ask(&self, database: &str, query: &str) -> Result<String, ToolError> {
        let args = [
            "-XAtq",
            "--no-password",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            query,
        ];
        self.tool(first_in_path(&["psql"]), database)
            .args(args)
            .query(self.access.timeout)
            .await
    }

    pub(super) async fn administer(&self, statements: &[&str]) -> Result<(), ToolError> {
        let args = [
            "-Xq",
            "--no-password",
            "-v",
            "ON_ERROR_STOP=1",
            "-o",
            "/dev/null",
        ];
        let args = args
            .into_iter()
            .chain(statements.iter().flat_map(|statement| ["-c", statement]));
        self.tool(first_in_path(&["psql"]), MAINTENANCE)
            .args(args)
            .query(ADMIN_TIMEOUT)
            .await
            .map(drop)
    }
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
    fn a_passwords_colons_and_backslashes_are_escaped() {
        assert_eq!(
            passfile(&r"a:b\c".to_owned().into()).expose_secret(),
            "*:*:*:*:a\\:b\\\\c\n"
        );
    }
}
