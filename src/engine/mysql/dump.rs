//! What dumps, and what there is to dump.

use async_trait::async_trait;

use super::super::{Engine, StagedDump, file_stem, number, server_identity, unhex};
use super::Mysql;
use super::connection::DEFAULT_PORT;
use crate::catalog::SourceIdentity;
use crate::config::Selection;
use crate::dump::{DumpShape, EndMarker, ToolCommand, ToolError};

/// Where a dump is cut into files: at its tables, and where what concerns no single table begins.
const CUTS: &[&str] = &[
    "-- Table structure for table `",
    "-- Dumping events for database",
    "-- Dumping routines for database",
    "-- Final view structure for view",
];

impl Mysql {
    fn program(&self) -> std::path::PathBuf {
        self.database
            .dump_tool
            .clone()
            .unwrap_or_else(|| self.prefer("mariadb-dump", "mysqldump"))
    }
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
            return Err(ToolError::Cannot(format!(
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

    fn dump_shape(&self) -> DumpShape {
        let silences = |option: &String| {
            option.starts_with("--skip-comments")
                || option == "--compact"
                || option.starts_with("--comments=")
                || option.starts_with("--xml")
                || option == "-X"
        };
        let says_when_it_is_done = !self.database.options.iter().any(silences);
        DumpShape {
            beginning: None,
            end_marker: says_when_it_is_done.then_some(EndMarker {
                text: "-- Dump completed",
                within: 1024,
            }),
            may_be_empty: self.database.allow_empty,
        }
    }

    async fn version(&self) -> Result<String, ToolError> {
        let answer = ToolCommand::new(self.program())
            .args(["--version"])
            .query(self.access.timeout)
            .await?;
        Ok(answer.trim().to_owned())
    }

    async fn identity(&self) -> SourceIdentity {
        let query = "show global variables where variable_name in \
                     ('server_uuid', 'server_uid', 'hostname', 'port')";
        let answer = self.ask(query).await.unwrap_or_default();
        let value = |name: &str| {
            let mut pairs = answer.lines().filter_map(|line| line.split_once('\t'));
            let (_, value) = pairs.find(|(found, _)| *found == name)?;
            Some(value.to_owned()).filter(|value| !value.is_empty())
        };
        let host_and_port = || Some(format!("{}:{}", value("hostname")?, value("port")?));
        let server = value("server_uuid")
            .or_else(|| value("server_uid"))
            .or_else(host_and_port);
        server_identity(
            &self.database,
            DEFAULT_PORT,
            self.name().ok(),
            server.as_deref(),
        )
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
            .ok_or_else(|| ToolError::Cannot("no list of names".into()))
    }

    async fn estimate(&self) -> Result<Option<u64>, ToolError> {
        let name = self.literal()?;
        let query = format!(
            "select coalesce(sum(data_length), 0) from information_schema.tables where table_schema = {name}"
        );
        Ok(number(&self.ask(&query).await?))
    }
}
