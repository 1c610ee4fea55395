//! What dumps, and what there is to dump.

use async_trait::async_trait;

use super::super::{Engine, StagedDump, file_stem, number, server_identity, unhex};
use super::Postgres;
use super::connection::MAINTENANCE;
use crate::catalog::SourceIdentity;
use crate::config::{DumpFormat, Selection};
use crate::dump::{DumpShape, EndMarker, ToolCommand, ToolError, first_in_path};

impl Postgres {
    fn program(&self) -> std::path::PathBuf {
        let usual = if self.globals() {
            "pg_dumpall"
        } else {
            "pg_dump"
        };
        self.database
            .dump_tool
            .clone()
            .unwrap_or_else(|| first_in_path(&[usual]))
    }
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
        let tool = if self.globals() {
            // It finds a database to connect to by itself.
            self.connected(self.program())
        } else {
            self.tool(self.program(), self.name())
        };
        Ok(tool.args(args))
    }

    fn staged_dump(&self, parallel: usize) -> Result<(StagedDump, &'static str), ToolError> {
        if self.globals() {
            return Ok((StagedDump::Stdout(self.dump_command()?), self.dump_format()));
        }
        let parallel = format!("--jobs={parallel}");
        let args = [
            "--no-password",
            "--format=directory",
            "--compress=0",
            &parallel,
        ];
        let command = self
            .tool(self.program(), self.name())
            .args(args)
            .args(self.database.options.iter().cloned());
        Ok((
            StagedDump::Folder {
                command,
                option: "--file=",
            },
            "directory",
        ))
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
            _ if self.globals() => "globals",
            DumpFormat::Custom => "custom",
            DumpFormat::Plain => "plain",
        }
    }

    fn dump_shape(&self) -> DumpShape {
        // Newer versions write a line `\unrestrict KEY` after it.
        let marker = |text| Some(EndMarker { text, within: 1024 });
        let (beginning, end_marker) = match self.database.dump_format {
            _ if self.globals() => (None, marker("-- PostgreSQL database cluster dump complete")),
            DumpFormat::Plain => (None, marker("-- PostgreSQL database dump complete")),
            DumpFormat::Custom => (Some("PGDMP"), None),
        };
        DumpShape {
            beginning,
            end_marker,
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
        let query = "select system_identifier from pg_control_system()";
        let answer = self.ask(self.name(), query).await.ok();
        let database = match &self.database.database {
            Selection::One(name) => Some(name.as_str()),
            _ => None,
        };
        server_identity(
            &self.database,
            5432,
            database,
            answer.as_deref().map(str::trim),
        )
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
            .ok_or_else(|| ToolError::answer("psql", "no list of names"))
    }

    async fn estimate(&self) -> Result<Option<u64>, ToolError> {
        if self.globals() {
            return Ok(None);
        }
        Ok(number(
            &self
                .ask(self.name(), "select pg_database_size(current_database())")
                .await?,
        ))
    }
}
