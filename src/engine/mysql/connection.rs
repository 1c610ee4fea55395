//! The clients, connected to the inventory's server.

use secrecy::{ExposeSecret, SecretString};

use super::super::ADMIN_TIMEOUT;
use super::Mysql;
use crate::config::EngineKind;
use crate::dump::{SECRET_PATH, ToolCommand, ToolError, first_in_path};

impl Mysql {
    pub(super) fn tool(&self, program: std::path::PathBuf) -> ToolCommand {
        let mut tool =
            ToolCommand::new(program).args([format!("--defaults-extra-file={SECRET_PATH}")]);
        tool.secret_file = Some(self.option_file());
        tool.secret_env.clone_from(&self.access.env);
        tool
    }

    pub(super) fn option_file(&self) -> SecretString {
        let mut file = "[client]\n".to_owned();
        let mut set = |key: &str, value: &str| file += &format!("{key}={}\n", option_value(value));
        if let Some(host) = &self.database.host {
            set("host", host);
            set("protocol", "tcp");
        }
        if let Some(port) = self.database.port {
            set("port", &port.to_string());
        }
        if let Some(socket) = &self.database.socket {
            set("socket", &socket.display().to_string());
        }
        if let Some(user) = &self.database.user {
            set("user", user);
        }
        if let Some(password) = &self.access.password {
            set("password", password.expose_secret());
        }
        file.into()
    }

    pub(super) fn prefer<'a>(&self, mariadb: &'a str, mysql: &'a str) -> std::path::PathBuf {
        let order = if self.database.engine == EngineKind::Mysql {
            [mysql, mariadb]
        } else {
            [mariadb, mysql]
        };
        first_in_path(&order)
    }

    pub(super) fn client(&self) -> ToolCommand {
        self.tool(self.prefer("mariadb", "mysql"))
            .args(["--batch", "--default-character-set=utf8mb4"])
    }

    pub(super) async fn ask(&self, query: &str) -> Result<String, ToolError> {
        self.client()
            .args(["--skip-column-names", "-e", query])
            .query(self.access.timeout)
            .await
    }

    pub(super) async fn administer(&self, statements: &str) -> Result<(), ToolError> {
        self.client()
            .args(["-e", statements])
            .query(ADMIN_TIMEOUT)
            .await
            .map(drop)
    }
}

/// A value in an option file: quoted, with the escapes that option files know.
fn option_value(value: &str) -> String {
    let escaped = value
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n")
        .replace('\t', r"\t");
    format!("\"{escaped}\"")
}
