//! How a dump gets into a database, and what is in one.

use async_trait::async_trait;

use super::super::load::{
    Activity, ClientLoad, Contents, Destination, Load, LoadOptions, Loader, Part, Purpose,
    Replacement, Unit,
};
use super::super::number;
use super::properties::{made_as, refused};
use super::script::Changes;
use super::wanted::Wanted;
use super::{Mysql, text};
use crate::catalog::Properties;
use crate::dump::ToolError;

/// What the server takes from a client at once, at most: its own limit can be anything below.
const PACKET: &str = "--max-allowed-packet=1G";

/// No timeout of the server's ends a load that waits for the store: a year is the most.
pub(super) const PATIENCE: &str = "\
set session wait_timeout = 31536000, session net_read_timeout = 31536000,
  session net_write_timeout = 31536000, session lock_wait_timeout = 31536000;
/*M!100100 set session max_statement_time = 0 */";

#[async_trait]
impl Loader for Mysql {
    async fn load(
        &self,
        dump_format: &str,
        into: Destination,
        options: &LoadOptions,
    ) -> Result<Load, ToolError> {
        if dump_format == "globals" {
            options.only(&[])?;
            return Ok(Load::Client(ClientLoad {
                client: self.client().args(["--force"]),
                converter: None,
                prelude: format!("{PATIENCE};\n"),
                rules: None,
                unit: Unit::Lenient(|line| line.starts_with("ERROR ")),
            }));
        }
        // A dump holds no owners and no grants.
        options.only(&[
            "--skip-definer",
            "--table",
            "--schema-only",
            "--data-only",
            "--set",
        ])?;
        let mut rules = Changes::new(self.identifier()?);
        if options.table.is_some() || options.part != Part::All {
            rules.wanted = Some(Wanted::new(options.table.clone(), options.part));
            rules.home.clone_from(&self.home);
        }
        rules.skip_definer = options.skip_definer;
        if into == Destination::Scratch {
            rules.put_to_sleep = Some(self.events.clone());
        }
        let mut prelude = format!("{PATIENCE};\n");
        for (name, value) in &options.set {
            let is_number = value.parse::<f64>().is_ok();
            let value = value.replace('\\', r"\\").replace('\'', r"\'");
            let value = if is_number {
                value
            } else {
                format!("'{value}'")
            };
            prelude += &format!("set session `{}` = {value};\n", name.replace('`', "``"));
        }
        // In batch mode the client ends at the first error. DDL commits by itself here: one
        // transaction can be had for rows alone.
        let unit = if options.part == Part::Rows {
            self.warn_of_triggers().await?;
            prelude += "start transaction;\n";
            Unit::Transaction("commit;\n")
        } else {
            Unit::None
        };
        Ok(Load::Client(ClientLoad {
            client: self.client().args([PACKET, "--", self.name()?]),
            converter: None,
            prelude,
            rules: Some(Box::new(rules)),
            unit,
        }))
    }

    async fn contents(&self) -> Result<Contents, ToolError> {
        if self.globals() {
            return Ok(Contents::Unknown);
        }
        let name = self.literal()?;
        if ["mysql", "sys", "information_schema", "performance_schema"].contains(&self.name()?) {
            return Err(ToolError::Cannot(format!(
                "{:?} is the server's own: nothing can be restored into it",
                self.name()?
            )));
        }
        let query =
            format!("select count(*) from information_schema.schemata where schema_name = {name}");
        if number(&self.ask(&query).await?) == Some(0) {
            return Ok(Contents::Absent);
        }
        let query = format!(
            "select (select count(*) from information_schema.tables where table_schema = {name})
                  + (select count(*) from information_schema.routines where routine_schema = {name})
                  + (select count(*) from information_schema.events where event_schema = {name}),
               (select coalesce(sum(data_length + index_length), 0)
                from information_schema.tables where table_schema = {name})"
        );
        let answer = self.ask(&query).await?;
        let (count, size) = answer.trim().split_once('\t').unwrap_or((&answer, "0"));
        match number(count) {
            Some(0) => Ok(Contents::Empty),
            Some(count) => Ok(Contents::Holds(format!(
                "{count} tables, views, routines and events, {}",
                crate::units::size(number(size).unwrap_or_default())
            ))),
            None => Err(ToolError::Cannot("no count of tables".into())),
        }
    }

    async fn holds_table(&self, table: &str) -> Result<Contents, ToolError> {
        let (name, table_name) = (self.literal()?, text(table));
        let query = format!(
            "select coalesce(data_length, 0) + coalesce(index_length, 0)
             from information_schema.tables
             where table_schema = {name} and table_name = {table_name}"
        );
        let answer = self.ask(&query).await?;
        Ok(match number(&answer) {
            None => Contents::Empty,
            Some(size) => {
                Contents::Holds(format!("the table {table}, {}", crate::units::size(size)))
            }
        })
    }

    async fn beside(
        &self,
        purpose: Purpose,
        said: Option<&Properties>,
        options: &LoadOptions,
    ) -> Result<Replacement, ToolError> {
        super::beside::make(self, purpose, said, options).await
    }

    async fn create(&self, said: Option<&Properties>) -> Result<(), ToolError> {
        let clause = made_as(said);
        let made = format!("create database {}{clause}", self.identifier()?);
        let made = self.administer(&made).await;
        made.map_err(|error| refused(&clause, error))
    }

    async fn clear(&self) -> Result<(), ToolError> {
        let (identifier, like) = (self.identifier()?, self.like().await?);
        self.administer(&format!(
            "drop database {identifier}; create database {identifier}{like}"
        ))
        .await
    }

    async fn activity(&self) -> Activity {
        let Ok(name) = self.literal() else {
            return Activity::Unknown;
        };
        let query = format!(
            "select coalesce(state, ''), command from information_schema.processlist
             where db = {name} and id <> connection_id()"
        );
        let Ok(answer) = self.ask(&query).await else {
            return Activity::Unknown;
        };
        let mut states = answer.lines().filter_map(|line| line.split_once('\t'));
        if states.clone().any(|(state, _)| state.contains("lock")) {
            return Activity::Locked(self.holders().await);
        }
        if states.any(|(_, command)| command == "Query") {
            Activity::Working
        } else {
            Activity::Unknown
        }
    }

    async fn examine(&self) -> Result<Option<u64>, ToolError> {
        let name = self.literal()?;
        let query = format!(
            "select count(*) from information_schema.tables
             where table_type in ('BASE TABLE', 'SYSTEM VERSIONED') and table_schema = {name}
               and table_name <> '{MARK}'",
            MARK = super::beside::MARK
        );
        Ok(number(&self.ask(&query).await?))
    }

    async fn remove(&self) -> Result<(), ToolError> {
        self.administer(&format!("drop database if exists {}", self.identifier()?))
            .await
    }
}

impl Mysql {
    /// Rows that are added to tables meet their triggers, which nothing can keep from running.
    async fn warn_of_triggers(&self) -> Result<(), ToolError> {
        let query = format!(
            "select count(*) from information_schema.triggers where trigger_schema = {}",
            self.literal()?
        );
        if let Some(count @ 1..) = number(&self.ask(&query).await?) {
            tracing::warn!(
                "{count} triggers of the target run for the rows that are loaded, and may change \
                 them: drop them meanwhile, or restore without --data-only"
            );
        }
        Ok(())
    }

    /// Who may hold a lock, in words: the transactions that are open longest.
    pub(super) async fn holders(&self) -> String {
        let query = "select concat('connection ', id, ' (', user, '@', host, ', in a transaction \
                     since ', trx_started, ')') from information_schema.innodb_trx
                     join information_schema.processlist on id = trx_mysql_thread_id
                     where id <> connection_id() order by trx_started limit 3";
        let answer = self.ask(query).await.unwrap_or_default();
        let holders: Vec<&str> = answer.lines().collect();
        if holders.is_empty() {
            return "a session that its server does not name".into();
        }
        holders.join("; ")
    }
}
