//! What dumps, and what there is to dump.

use async_trait::async_trait;

use super::super::load::BESIDE_PATTERN;
use super::super::{Engine, StagedDump, Survey, file_stem, number, server_identity, unhex};
use super::Mysql;
use super::connection::DEFAULT_PORT;
use super::flavor::Flavor;
use super::grants::ROUTINES;
use crate::catalog::{Properties, SourceIdentity};
use crate::config::{Database, Selection};
use crate::dump::{ChildError, DumpShape, EndMarker, ToolCommand, ToolError};

/// Where a dump is cut into files: at its tables, and where what concerns no single table begins.
const CUTS: &[&str] = &[
    "-- Table structure for table `",
    "-- Dumping events for database",
    "-- Dumping routines for database",
    "-- Final view structure for view",
];

/// How long a server should wait for its reader, in seconds: as long as uploads are tried again by
/// default.
const PATIENCE: u64 = 900;

impl Mysql {
    /// Whether the tool knows the options: it is started with them, and with a server that cannot
    /// be.
    async fn check_options(&self) -> Result<(), ToolError> {
        if self.database.options.is_empty() {
            return Ok(());
        }
        let nowhere = Database {
            host: None,
            socket: Some("/dev/null/nowhere".into()),
            database: Selection::One("nowhere".into()),
            ..self.database.clone()
        };
        let nowhere = Self::new(nowhere, self.access.clone());
        match nowhere.dump_command()?.query(self.access.timeout).await {
            Err(ToolError::Child(ChildError::Failed { last_words, .. }))
                if !last_words.contains("/dev/null/nowhere") =>
            {
                let place = &self.database.place;
                Err(ToolError::Cannot(format!("{place}.options: {last_words}")))
            }
            _ => Ok(()),
        }
    }

    /// Privileges without which a dump lacks something, in silence.
    async fn hidden(&self) -> Result<Option<String>, ToolError> {
        let held = self.grants().await?.held(self.name()?);
        let has = |any: &[&str]| any.iter().any(|one| held.contains(*one));
        let needed: [(&str, &[&str], &str); 5] = [
            ("SELECT", &["SELECT"], "tables"),
            ("SHOW VIEW", &["SHOW VIEW"], "views"),
            ("TRIGGER", &["TRIGGER"], "triggers"),
            ("EVENT", &["EVENT"], "events"),
            ("EXECUTE", ROUTINES, "routines"),
        ];
        let lacking = needed.iter().filter(|(_, any, _)| !has(any));
        let lacking = lacking.map(|(privilege, _, things)| (*privilege, *things));
        let (privileges, things): (Vec<&str>, Vec<&str>) = lacking.unzip();
        if privileges.is_empty() {
            return Ok(None);
        }
        let (privileges, things) = (privileges.join(", "), things.join(", "));
        Ok(Some(format!(
            "the user lacks {privileges} on the database: {things} that it may not see are missing \
             in a dump, without a word"
        )))
    }

    /// Views, routines, triggers and events whose definer is gone: they are in the dump, and fail
    /// when they are used. Who may not read the server's users cannot tell.
    async fn undefined(&self) -> Result<Option<String>, ToolError> {
        let name = self.literal()?;
        let query = format!(
            "select count(*), coalesce(min(concat(what, ' of ', definer)), '') from (
               select concat('view ', table_name) as what, definer
                 from information_schema.views where table_schema = {name}
               union all select concat(lower(routine_type), ' ', routine_name), definer
                 from information_schema.routines where routine_schema = {name}
               union all select concat('trigger ', trigger_name), definer
                 from information_schema.triggers where trigger_schema = {name}
               union all select concat('event ', event_name), definer
                 from information_schema.events where event_schema = {name}
             ) defined where definer not in (select concat(user, '@', host) from mysql.user)"
        );
        let Ok(answer) = self.ask(&query).await else {
            return Ok(None);
        };
        let (count, first) = answer.trim().split_once('\t').unwrap_or_default();
        Ok((!matches!(count, "" | "0")).then(|| {
            format!(
                "{count} views, routines, triggers or events are defined by users that are gone, \
                 such as {first}: restore them with --skip-definer"
            )
        }))
    }

    /// Users and roles with their grants.
    fn globals_command(&self) -> Result<ToolCommand, ToolError> {
        let program = self
            .database
            .dump_tool
            .clone()
            .unwrap_or_else(|| self.tool_of_mariadb());
        if Flavor::of(&program) == Flavor::Mysql {
            return Err(ToolError::Cannot(format!(
                "{}: Oracle's mysqldump cannot dump users and grants, and MariaDB's can: install \
                 mariadb-client, or set dump_tool to mariadb-dump",
                self.database.place
            )));
        }
        // Whoever is there already is no reason to fail.
        let args = ["--system=users", "--insert-ignore"];
        Ok(self
            .tool(program)
            .args(args)
            .args(self.database.options.iter().cloned()))
    }

    /// Finds out whether the history of system-versioned tables can be dumped; of what cannot, how
    /// much there is.
    async fn historyless(&self) -> Result<Option<String>, ToolError> {
        let name = self.literal()?;
        let query = format!(
            "select count(distinct t.table_name), coalesce(min(t.table_name), ''), count(c.column_name)
             from information_schema.tables t left join information_schema.columns c
               on c.table_schema = t.table_schema and c.table_name = t.table_name
               and c.generation_expression = 'ROW START' and c.data_type = 'bigint'
             where t.table_schema = {name} and t.table_type = 'SYSTEM VERSIONED'"
        );
        let answer = self.ask(&query).await?;
        let fields: Vec<&str> = answer.trim().split('\t').collect();
        let [count, first, by_transaction] = fields[..] else {
            return Ok(None);
        };
        if count == "0" {
            return Ok(None);
        }
        let help = ToolCommand::new(self.program()).args(["--help"]);
        let help = help.query(self.access.timeout).await?;
        let excludes = |option: &String| {
            let option = option.split('=').next().unwrap_or_default();
            ["--replace", "--as-of", "--xml", "-X"].contains(&option)
        };
        let why = if !help.contains("--dump-history") {
            "this mariadb-dump is older than 10.11"
        } else if by_transaction != "0" {
            "mariadb-dump cannot, where it is kept by transaction"
        } else if self.database.options.iter().any(excludes) {
            "an option excludes it"
        } else {
            let _ = self.history.set(true);
            return Ok(None);
        };
        Ok(Some(format!(
            "the history of {count} system-versioned tables, such as {first}, is not dumped: {why}"
        )))
    }

    /// Finds out whether there are events at which the tool never ends, whoever made it: it looks
    /// for semicolons in a row that are not in one's words, and tries the first two for ever.
    async fn find_endless(&self) -> Result<(), ToolError> {
        if self
            .database
            .options
            .iter()
            .any(|one| one == "--skip-events")
        {
            return Ok(());
        }
        let query = format!(
            "select count(*), coalesce(min(event_name), '') from information_schema.events
             where event_schema = {} and concat_ws(' ', definer, event_name, event_comment,
               interval_value, event_definition) like '%;;%'",
            self.literal()?
        );
        let answer = self.ask(&query).await?;
        if let Some((count, first)) = answer.trim().split_once('\t')
            && count != "0"
        {
            let _ = self.endless.set(format!(
                "{count} events, such as {first}, have two semicolons in a row, at which {} never \
                 ends: write them apart (ALTER EVENT), or leave events out by options = \
                 [\"--skip-events\"]",
                self.program().display()
            ));
        }
        Ok(())
    }

    /// Tables that are not in the snapshot.
    async fn unlocked(&self) -> Result<Option<String>, ToolError> {
        let name = self.literal()?;
        let query = format!(
            "select count(*), coalesce(min(table_name), '') from information_schema.tables t \
             join information_schema.engines e on e.engine = t.engine \
             where table_schema = {name} and table_type = 'BASE TABLE' and coalesce(transactions, '') <> 'YES'"
        );
        let answer = self.ask(&query).await?;
        let (count, first) = answer.trim().split_once('\t').unwrap_or_default();
        Ok((!matches!(count, "" | "0")).then(|| {
            format!("{count} tables, such as {first}, know no transactions: what is written to them during a dump makes it inconsistent; convert them to InnoDB, or add --lock-tables and --skip-single-transaction to options")
        }))
    }

    /// Views that a dump cannot read, and fails at: what they read is gone. A server says so in the
    /// comment of one that it has opened, for the count of its rows.
    async fn broken_views(&self) -> Result<(), ToolError> {
        let goes_on = |option: &String| {
            let beginnings = ["--ignore-table", "--force", "-f"];
            beginnings.iter().any(|begin| option.starts_with(begin))
        };
        if !matches!(self.database.database, Selection::One(_))
            || self.database.options.iter().any(goes_on)
        {
            return Ok(());
        }
        let query = format!(
            "select count(*), coalesce(min(table_name), '') from information_schema.tables
             where table_schema = {} and table_type = 'VIEW' and table_comment <> 'VIEW'
               and coalesce(table_rows, 0) >= 0",
            self.literal()?
        );
        let answer = self.ask(&query).await?;
        match answer.trim().split_once('\t') {
            Some((count, first)) if count != "0" => Err(ToolError::Cannot(format!(
                "{count} views, such as {first}, read what is gone or what their definer may not \
                 read, and a dump fails at them: drop or mend them, or leave each out by options = \
                 [\"--ignore-table=DATABASE.VIEW\"]"
            ))),
            _ => Ok(()),
        }
    }

    /// Oracle's tool raises this for its session; MariaDB's cannot be told to.
    async fn impatient(&self) -> Result<Option<String>, ToolError> {
        let answer = self.ask("select @@global.net_write_timeout").await?;
        let seconds = number(&answer).filter(|seconds| *seconds < PATIENCE);
        Ok(seconds.map(|seconds| {
            format!("the server's net_write_timeout is {seconds} s: a store that is away for longer ends the dump; set it to {PATIENCE} or more")
        }))
    }

    pub(super) fn program(&self) -> std::path::PathBuf {
        self.database
            .dump_tool
            .clone()
            .unwrap_or_else(|| self.prefer("mariadb-dump", "mysqldump"))
    }
}

#[async_trait]
impl Engine for Mysql {
    fn dump_command(&self) -> Result<ToolCommand, ToolError> {
        if self.globals() {
            return self.globals_command();
        }
        if let Some(why) = self.endless.get() {
            return Err(ToolError::Cannot(why.clone()));
        }
        let name = self.name()?.to_owned();
        let ours = [
            "--single-transaction",
            "--quick",
            "--routines",
            "--events",
            "--triggers",
            "--hex-blob",
            // A table whose default is of a sequence cannot be written to under such a lock.
            "--skip-add-locks",
        ];
        let flavor = Flavor::of(&self.program());
        let history: &[&str] = match flavor {
            Flavor::Mariadb if self.history.get() == Some(&true) => &["--dump-history"],
            _ => &[],
        };
        Ok(self
            .tool(self.program())
            .args(ours)
            .args(flavor.modest().iter().copied())
            .args(history.iter().copied())
            // A blob is twice as long in hex digits; what the server lets through is its own limit.
            .args(["--default-character-set=utf8mb4", "--max-allowed-packet=1G"])
            .args(self.database.options.iter().cloned())
            .args(["--".to_owned(), name]))
    }

    fn staged_dump(&self, _: usize) -> Result<(StagedDump, &'static str), ToolError> {
        if self.globals() {
            return Ok((StagedDump::Stdout(self.dump_command()?), self.dump_format()));
        }
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
        if self.globals() {
            return "globals.sql".into();
        }
        format!(
            "{}.sql",
            file_stem(self.name().unwrap_or(&self.database.name))
        )
    }

    fn dump_format(&self) -> &'static str {
        if self.globals() { "globals" } else { "plain" }
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

    async fn check_dump(&self) -> Result<Vec<String>, ToolError> {
        self.check_options().await?;
        self.broken_views().await?;
        let mut said = Vec::new();
        let server = self.ask("select version()").await?;
        let (client, server) = (Flavor::of(&self.program()), Flavor::named(&server));
        if client != server {
            let (client, server) = (client.maker(), server.maker());
            let why = "a dump may fail or lack what only the other knows; set tools or dump_tool";
            said.push(format!(
                "the dump tool is {client}'s and the server is {server}'s: {why}"
            ));
        }
        if client == Flavor::Mariadb {
            said.extend(self.impatient().await?);
        }
        Ok(said)
    }

    async fn properties(&self) -> Result<Option<Properties>, ToolError> {
        Ok(match self.database.database {
            Selection::One(_) => Some(self.said().await?.into()),
            _ => None,
        })
    }

    async fn lacks(&self) -> Result<Vec<String>, ToolError> {
        if self.globals() && Flavor::named(&self.ask("select version()").await?) == Flavor::Mysql {
            return Ok(vec![
                "MySQL does not take back what mariadb-dump writes of its users and grants: keep \
                 SHOW CREATE USER and SHOW GRANTS of each, by an entry with engine = \"command\""
                    .into(),
            ]);
        }
        if !matches!(self.database.database, Selection::One(_)) {
            return Ok(Vec::new());
        }
        let all = tokio::join!(
            self.hidden(),
            self.unlocked(),
            self.undefined(),
            self.historyless(),
            self.find_endless()
        );
        all.4?;
        let all = [all.0?, all.1?, all.2?, all.3?];
        Ok(all.into_iter().flatten().collect())
    }

    async fn survey(&self, size: Option<u64>) -> Survey {
        Survey::of(&self.in_one_session(), size).await
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
        let query = format!(
            "select hex(convert(schema_name using utf8mb4)) from information_schema.schemata \
             where schema_name not in ('information_schema', 'performance_schema', 'mysql', 'sys') \
             and schema_name not regexp '{BESIDE_PATTERN}' order by schema_name"
        );
        let answer = self.ask(&query).await?;
        answer
            .lines()
            .map(unhex)
            .collect::<Option<_>>()
            .map(Some)
            .ok_or_else(|| ToolError::Cannot("no list of names".into()))
    }

    async fn estimate(&self) -> Result<Option<u64>, ToolError> {
        if self.globals() {
            return Ok(None);
        }
        let name = self.literal()?;
        let query = format!(
            "select coalesce(sum(data_length), 0) from information_schema.tables where table_schema = {name}"
        );
        Ok(number(&self.ask(&query).await?))
    }
}
