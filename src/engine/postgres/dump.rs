//! What dumps, and what there is to dump.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::super::load::BESIDE_PATTERN;
use super::super::{
    Access, Engine, StagedDump, Streams, Survey, file_stem, number, server_identity, unhex,
};
use super::connection::MAINTENANCE;
use super::{Postgres, programs};
use crate::catalog::{Properties, SourceIdentity};
use crate::config::{Database, DumpFormat, Selection};
use crate::dump::{ChildError, DumpError, DumpShape, EndMarker, ToolCommand, ToolError};
use crate::meter::Meter;

/// Ordinary tables that this role may not read, and what it may read only row by row.
const UNREADABLE: &str = "\
select count(*) filter (where not readable), min(name) filter (where not readable),
       count(*) filter (where readable and secured), min(name) filter (where readable and secured)
from (
  select c.oid::regclass::text as name,
         has_table_privilege(c.oid, 'select') and has_schema_privilege(n.oid, 'usage') as readable,
         row_security_active(c.oid) as secured
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'S') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
) tables";

/// Mappings of other users to a foreign server, whose options are shown to a superuser alone.
const HIDDEN_MAPPINGS: &str = "\
select count(*) from pg_user_mappings m join pg_foreign_server s on s.oid = m.srvid
join pg_roles r on r.rolname = current_user
where not r.rolsuper and m.umuser <> r.oid
  and not (m.umuser = 0 and pg_has_role(s.srvowner, 'usage'))";

/// Indexes that a `CREATE INDEX CONCURRENTLY` has left half made.
const INVALID_INDEXES: &str = "\
select count(*), min(indexrelid::regclass::text)
from pg_index join pg_class on pg_class.oid = indrelid
where not indisvalid and relkind <> 'p'";

impl Postgres {
    pub(super) fn dump_program(&self) -> PathBuf {
        let usual = if self.globals() {
            "pg_dumpall"
        } else {
            "pg_dump"
        };
        self.database
            .dump_tool
            .clone()
            .unwrap_or_else(|| self.program(usual))
    }

    /// Whether the tool knows the options: it is started with them, and with a server that cannot
    /// be.
    async fn check_options(&self) -> Result<(), ToolError> {
        if self.database.options.is_empty() {
            return Ok(());
        }
        let nowhere = Self::new(
            Database {
                host: Some("/dev/null/nowhere".into()),
                socket: None,
                service: None,
                ..self.database.clone()
            },
            Access {
                env: Vec::new(),
                ..self.access.clone()
            },
        );
        let mut command = nowhere.dump_command()?;
        command.program = self.dump_program();
        command.env.push(("LC_ALL".into(), "C".into()));
        match command.query(self.access.timeout).await {
            Err(ToolError::Child(ChildError::Failed { last_words, .. }))
                if !last_words.contains("/dev/null/nowhere") =>
            {
                let place = &self.database.place;
                Err(ToolError::Cannot(format!("{place}.options: {last_words}")))
            }
            _ => Ok(()),
        }
    }

    /// What the role may not see, and the tool leaves out without a word.
    async fn hidden(&self) -> Result<Vec<String>, ToolError> {
        if !matches!(self.database.database, Selection::One(_)) {
            return Ok(Vec::new());
        }
        let mut said = Vec::new();
        let answer = self.ask(self.name(), HIDDEN_MAPPINGS).await?;
        if let Some(count @ 1..) = number(&answer) {
            said.push(format!(
                "{count} user mappings of foreign servers are others': they are dumped without \
                 their options, in which passwords are; a superuser's dump has them"
            ));
        }
        let answer = self.ask(self.name(), INVALID_INDEXES).await?;
        if let Some((count, first)) = answer.trim().split_once('|')
            && count != "0"
        {
            said.push(format!(
                "{count} indexes are invalid, such as {first}, and no dump has them: REINDEX or drop \
                 them"
            ));
        }
        // Without the option pg_dump refuses.
        let options = &self.database.options;
        if options
            .iter()
            .any(|option| option == "--enable-row-security")
        {
            let answer = self.ask(self.name(), UNREADABLE).await?;
            let mut fields = answer.trim().split('|').skip(2);
            if let (Some(count), Some(first)) = (fields.next(), fields.next())
                && count != "0"
            {
                said.push(format!(
                    "row security hides rows of {count} tables, such as {first}, from this user: \
                     they are missing in a dump with --enable-row-security"
                ));
            }
        }
        Ok(said)
    }

    /// What the role may not read, in words.
    async fn check_reading(&self) -> Result<Option<String>, ToolError> {
        let answer = self.ask(self.name(), UNREADABLE).await?;
        let mut fields = answer.trim().split('|');
        let mut field = || fields.next().unwrap_or_default();
        let (hidden, first, secured, first_secured) = (field(), field(), field(), field());
        if hidden != "0" {
            return Err(ToolError::Cannot(format!(
                "the user may not read {hidden} tables and sequences, such as {first}: pg_dump would fail; grant pg_read_all_data"
            )));
        }
        Ok((secured != "0").then(|| {
            format!("row security hides rows of {secured} tables, such as {first_secured}, from this user: pg_dump will fail; use a role with BYPASSRLS")
        }))
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
            self.connected(self.dump_program())
        } else {
            self.tool(self.dump_program(), self.name())
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
            .tool(self.dump_program(), self.name())
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

    async fn parallel_dump(
        &self,
        streams: usize,
        segment: usize,
        exit_timeout: Duration,
        meter: &Meter,
    ) -> Result<Streams, DumpError> {
        self.begin_parallel(streams, segment, exit_timeout, meter)
            .await
    }

    async fn version(&self) -> Result<String, ToolError> {
        if self.server.major().is_none() {
            // Which program it is depends on the server; one that is away fails the dump, later.
            let _ = self.ask(self.name(), "select 1").await;
        }
        let answer = ToolCommand::new(self.dump_program())
            .args(["--version"])
            .query(self.access.timeout)
            .await?;
        Ok(answer.trim().to_owned())
    }

    async fn check_dump(&self) -> Result<Vec<String>, ToolError> {
        self.check_options().await?;
        let version = self.version().await?;
        if let (Some(client), Some(server)) = (programs::major(&version), self.server.major())
            && client < server
        {
            return Err(ToolError::Cannot(format!(
                "{version} cannot dump a server of version {server}: install postgresql-client-{server}, or set tools to a folder that has it"
            )));
        }
        if !matches!(self.database.database, Selection::One(_)) {
            return Ok(Vec::new());
        }
        Ok(self.check_reading().await?.into_iter().collect())
    }

    async fn properties(&self) -> Result<Option<Properties>, ToolError> {
        self.said().await
    }

    async fn lacks(&self) -> Result<Vec<String>, ToolError> {
        self.hidden().await
    }

    async fn survey(&self, size: Option<u64>) -> Survey {
        Survey::of(&self.in_one_session(), size).await
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
        let query = format!(
            "select has_database_privilege(oid, 'connect'), \
               encode(convert_to(datname, 'UTF8'), 'hex') from pg_database \
             where datallowconn and not datistemplate and datname !~ '{BESIDE_PATTERN}' \
             order by datname"
        );
        let answer = self.ask(MAINTENANCE, &query).await?;
        let found = answer.lines().map(|line| {
            let (may_connect, name) = line.split_once('|')?;
            Some((may_connect == "t", unhex(name)?))
        });
        let found: Option<Vec<_>> = found.collect();
        let found = found.ok_or_else(|| ToolError::answer("psql", "no list of names"))?;
        let (open, closed): (Vec<_>, Vec<_>) = found.into_iter().partition(|(may, _)| *may);
        let names = |all: Vec<(bool, String)>| all.into_iter().map(|(_, name)| name);
        // A managed server has some that are nobody's but its own.
        if !closed.is_empty() {
            let closed = names(closed).collect::<Vec<_>>().join(", ");
            tracing::warn!(
                "the server has databases that the user may not connect to, and that are left out: \
                 {closed}; GRANT CONNECT ON DATABASE lets it"
            );
        }
        Ok(Some(names(open).collect()))
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
