//! MariaDB and MySQL: `mariadb-dump` or `mysqldump`, whichever is there.
//!
//! The connection, password included, is an option file that is a memfd
//! (<https://mariadb.com/kb/en/configuring-mariadb-with-option-files/>).

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::postgres::unhex;
use super::{
    ADMIN_TIMEOUT, Access, Contents, EndMarker, Engine, Load, StagedDump, Unit, file_stem, number,
};
use crate::config::{Database, EngineKind, Selection};
use crate::dump::{SECRET_PATH, ToolCommand, ToolError, first_in_path};

/// Where a dump is cut into files: at its tables, and where what concerns no single table begins.
const CUTS: &[&str] = &[
    "-- Table structure for table `",
    "-- Dumping events for database",
    "-- Dumping routines for database",
    "-- Final view structure for view",
];

pub(super) struct Mysql {
    pub(super) database: Database,
    pub(super) access: Access,
}

impl Mysql {
    fn name(&self) -> Result<&str, ToolError> {
        match &self.database.database {
            // The tools take no `--` before a name.
            Selection::One(name) if name.starts_with('-') => Err(ToolError(format!(
                "a database called {name:?} cannot be named to the dump tool: rename it"
            ))),
            Selection::One(name) => Ok(name),
            _ => Err(ToolError("this entry stands for many databases".into())),
        }
    }

    fn tool(&self, program: std::path::PathBuf) -> ToolCommand {
        let mut tool =
            ToolCommand::new(program).args([format!("--defaults-extra-file={SECRET_PATH}")]);
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
        let order = if self.database.engine == EngineKind::Mysql {
            [mysql, mariadb]
        } else {
            [mariadb, mysql]
        };
        first_in_path(&order)
    }

    fn program(&self) -> std::path::PathBuf {
        self.database
            .dump_tool
            .clone()
            .unwrap_or_else(|| self.prefer("mariadb-dump", "mysqldump"))
    }

    fn client(&self) -> ToolCommand {
        self.tool(self.prefer("mariadb", "mysql"))
            .args(["--batch", "--default-character-set=utf8mb4"])
    }

    async fn ask(&self, query: &str) -> Result<String, ToolError> {
        self.client()
            .args(["--skip-column-names", "-e", query])
            .query(self.access.timeout)
            .await
    }

    async fn administer(&self, statements: &str) -> Result<(), ToolError> {
        self.client()
            .args(["-e", statements])
            .query(ADMIN_TIMEOUT)
            .await
            .map(drop)
    }

    /// The name as an identifier.
    fn identifier(&self) -> Result<String, ToolError> {
        Ok(format!("`{}`", self.name()?.replace('`', "``")))
    }

    /// The name as a string.
    fn literal(&self) -> Result<String, ToolError> {
        Ok(format!(
            "convert(x'{}' using utf8mb4)",
            crate::archive::hex(self.name()?.as_bytes())
        ))
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

#[async_trait]
impl Engine for Mysql {
    fn dump_command(&self) -> Result<ToolCommand, ToolError> {
        let name = self.name()?.to_owned();
        let several = |option: &&String| {
            ["--databases", "-B", "--all-databases", "-A"].contains(&option.as_str())
                || option.starts_with("--all-d")
        };
        if let Some(option) = self.database.options.iter().find(several) {
            let why =
                "would name the database in the dump, which could then be restored nowhere else";
            return Err(ToolError(format!(
                "{}: the option {option} {why}; remove it",
                self.database.place
            )));
        }
        let ours = [
            "--single-transaction",
            "--quick",
            "--routines",
            "--events",
            "--triggers",
            "--hex-blob",
        ];
        Ok(self
            .tool(self.program())
            .args(ours)
            .args(["--default-character-set=utf8mb4"])
            .args(self.database.options.iter().cloned())
            .args([name]))
    }

    fn staged_dump(&self, _: usize) -> Result<(StagedDump, &'static str), ToolError> {
        // One run of the tool, so that all tables are of one snapshot.
        Ok((
            StagedDump::Tables {
                command: self.dump_command()?,
                cuts: CUTS,
            },
            self.dump_format(),
        ))
    }

    fn file_name(&self) -> String {
        format!(
            "{}.sql",
            file_stem(self.name().unwrap_or(&self.database.name))
        )
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
        (!self.database.options.iter().any(silences)).then_some(EndMarker {
            text: "-- Dump completed",
            within: 1024,
        })
    }

    async fn version(&self) -> Result<String, ToolError> {
        let answer = ToolCommand::new(self.program())
            .args(["--version"])
            .query(self.access.timeout)
            .await?;
        Ok(answer.trim().to_owned())
    }

    async fn check_login(&self) -> Result<(), ToolError> {
        match &self.database.database {
            Selection::One(_) => self
                .ask(&format!("use {}", self.identifier()?))
                .await
                .map(drop),
            _ => self.ask("select 1").await.map(drop),
        }
    }

    async fn discover(&self) -> Result<Option<Vec<String>>, ToolError> {
        let query = "select hex(convert(schema_name using utf8mb4)) from information_schema.schemata where schema_name \
                     not in ('information_schema', 'performance_schema', 'mysql', 'sys') order by schema_name";
        let answer = self.ask(query).await?;
        answer
            .lines()
            .map(unhex)
            .collect::<Option<_>>()
            .map(Some)
            .ok_or_else(|| ToolError("no list of names".into()))
    }

    async fn estimate(&self) -> Result<Option<u64>, ToolError> {
        let name = self.literal()?;
        let query = format!(
            "select coalesce(sum(data_length), 0) from information_schema.tables where table_schema = {name}"
        );
        Ok(number(&self.ask(&query).await?))
    }

    fn load(&self, _: &str, _: bool) -> Result<Load, ToolError> {
        // In batch mode the client ends at the first error. DDL commits by itself here: one
        // transaction cannot be had. A dump that was made with --databases would go where its own
        // USE says.
        Ok(Load::Client {
            command: self.client().args(["--one-database", self.name()?]),
            unit: Unit::None,
        })
    }

    async fn contents(&self) -> Result<Contents, ToolError> {
        let name = self.literal()?;
        let query =
            format!("select count(*) from information_schema.schemata where schema_name = {name}");
        if number(&self.ask(&query).await?) == Some(0) {
            return Ok(Contents::Absent);
        }
        let query = format!(
            "select (select count(*) from information_schema.tables where table_schema = {name})
                  + (select count(*) from information_schema.routines where routine_schema = {name})
                  + (select count(*) from information_schema.events where event_schema = {name})"
        );
        match number(&self.ask(&query).await?) {
            Some(0) => Ok(Contents::Empty),
            Some(count) => Ok(Contents::Holds(format!(
                "{count} tables, views, routines and events"
            ))),
            None => Err(ToolError("no count of tables".into())),
        }
    }

    async fn create(&self) -> Result<(), ToolError> {
        self.administer(&format!("create database {}", self.identifier()?))
            .await
    }

    async fn clear(&self) -> Result<(), ToolError> {
        let (identifier, name) = (self.identifier()?, self.literal()?);
        let query = format!(
            "select default_character_set_name, default_collation_name from information_schema.schemata \
             where schema_name = {name}"
        );
        let answer = self.ask(&query).await?;
        let (charset, collation) = answer
            .trim()
            .split_once('\t')
            .ok_or_else(|| ToolError("no character set of the database".into()))?;
        let made =
            format!("create database {identifier} character set {charset} collate {collation}");
        self.administer(&format!("drop database {identifier}; {made}"))
            .await
    }

    async fn count_tables(&self) -> Result<Option<u64>, ToolError> {
        let name = self.literal()?;
        let query = format!(
            "select count(*) from information_schema.tables where table_type = 'BASE TABLE' and table_schema = {name}"
        );
        Ok(number(&self.ask(&query).await?))
    }

    async fn remove(&self) -> Result<(), ToolError> {
        self.administer(&format!("drop database if exists {}", self.identifier()?))
            .await
    }
}
