//! What dumps, and what there is to dump.

use async_trait::async_trait;

use super::super::{EndMarker, Engine, StagedDump, file_stem, number, unhex};
use super::Postgres;
use super::connection::MAINTENANCE;
use crate::config::{DumpFormat, Selection};
use crate::dump::{ToolCommand, ToolError, first_in_path};

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
        Ok(self.tool(self.program(), self.name()).args(args))
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
        let answer = ToolCommand::new(self.program())
            .args(["--version"])
            .query(self.access.timeout)
            .await?;
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
        Ok(number(
            &self
                .ask(self.name(), "select pg_database_size(current_database())")
                .await?,
        ))
    }
}
