//! MariaDB and MySQL: `mariadb-dump` or `mysqldump`, whichever is there.
//!
//! The connection, password included, is an option file that is a memfd
//! (<https://mariadb.com/kb/en/configuring-mariadb-with-option-files/>).

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::postgres::unhex;
use super::tool::{SECRET_PATH, ToolCommand, ToolError, first_in_path};
use super::{Access, EndMarker, Engine, file_stem, number};
use crate::config::{Database, EngineKind, Selection};

pub(super) struct Mysql {
    pub(super) database: Database,
    pub(super) access: Access,
}

impl Mysql {
    fn name(&self) -> Result<&str, ToolError> {
        match &self.database.database {
            // The tools take no `--` before a name.
            Selection::One(name) if name.starts_with('-') => {
                Err(ToolError(format!("a database called {name:?} cannot be named to the dump tool: rename it")))
            }
            Selection::One(name) => Ok(name),
            _ => Err(ToolError("this entry stands for many databases".into())),
        }
    }

    fn tool(&self, program: std::path::PathBuf) -> ToolCommand {
        let mut tool = ToolCommand::new(program).args([format!("--defaults-extra-file={SECRET_PATH}")]);
        tool.secret_file = Some(self.option_file());
        tool.secret_env.clone_from(&self.access.env);
        tool
    }

    fn option_file(&self) -> SecretString {
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

    fn prefer<'a>(&self, mariadb: &'a str, mysql: &'a str) -> std::path::PathBuf {
        let order = if self.database.engine == EngineKind::Mysql { [mysql, mariadb] } else { [mariadb, mysql] };
        first_in_path(&order)
    }

    fn program(&self) -> std::path::PathBuf {
        self.database.dump_tool.clone().unwrap_or_else(|| self.prefer("mariadb-dump", "mysqldump"))
    }

    async fn ask(&self, query: &str) -> Result<String, ToolError> {
        let args = ["--batch", "--skip-column-names", "--default-character-set=utf8mb4", "-e", query];
        self.tool(self.prefer("mariadb", "mysql")).args(args).query(self.access.timeout).await
    }
}

/// A value in an option file: quoted, with the escapes that option files know.
fn option_value(value: &str) -> String {
    let escaped = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n").replace('\t', r"\t");
    format!("\"{escaped}\"")
}

#[async_trait]
impl Engine for Mysql {
    fn dump_command(&self) -> Result<ToolCommand, ToolError> {
        let name = self.name()?.to_owned();
        let ours = ["--single-transaction", "--quick", "--routines", "--events", "--triggers", "--hex-blob"];
        Ok(self
            .tool(self.program())
            .args(ours)
            .args(["--default-character-set=utf8mb4"])
            .args(self.database.options.iter().cloned())
            .args([name]))
    }

    fn file_name(&self) -> String {
        format!("{}.sql", file_stem(self.name().unwrap_or(&self.database.name)))
    }

    fn dump_format(&self) -> &'static str {
        "plain"
    }

    fn end_marker(&self) -> Option<EndMarker> {
        let silences = |option: &String| {
            option.starts_with("--skip-comments")
                || option == "--compact"
                || option.starts_with("--comments=")
                || option.starts_with("--xml")
                || option == "-X"
        };
        (!self.database.options.iter().any(silences)).then_some(EndMarker { text: "-- Dump completed", within: 1024 })
    }

    async fn version(&self) -> Result<String, ToolError> {
        let answer = ToolCommand::new(self.program()).args(["--version"]).query(self.access.timeout).await?;
        Ok(answer.trim().to_owned())
    }

    async fn check_login(&self) -> Result<(), ToolError> {
        match &self.database.database {
            Selection::One(name) => self.ask(&format!("use `{}`", name.replace('`', "``"))).await.map(drop),
            _ => self.ask("select 1").await.map(drop),
        }
    }

    async fn discover(&self) -> Result<Option<Vec<String>>, ToolError> {
        let query = "select hex(convert(schema_name using utf8mb4)) from information_schema.schemata where schema_name \
                     not in ('information_schema', 'performance_schema', 'mysql', 'sys') order by schema_name";
        let answer = self.ask(query).await?;
        answer.lines().map(unhex).collect::<Option<_>>().map(Some).ok_or_else(|| ToolError("no list of names".into()))
    }

    async fn estimate(&self) -> Result<Option<u64>, ToolError> {
        let hex = crate::format::hex(self.name()?.as_bytes());
        let query = format!(
            "select coalesce(sum(data_length), 0) from information_schema.tables \
             where table_schema = convert(x'{hex}' using utf8mb4)"
        );
        Ok(number(&self.ask(&query).await?))
    }
}
