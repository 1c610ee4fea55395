//! How a dump gets into a database, and what is in one.

use std::collections::HashSet;

use async_trait::async_trait;

use super::super::load::{
    Activity, ClientLoad, Contents, Destination, Load, LoadOptions, Loader, Part, Purpose,
    Replacement, Unit,
};
use super::super::{number, unhex};
use super::connection::MAINTENANCE;
use super::script::Changes;
use super::wanted::{TableName, Wanted};
use super::{Postgres, properties};
use crate::catalog::{PostgresProperties, Properties};
use crate::dump::{ToolCommand, ToolError};

/// How many things in a database somebody has made, not the system and not an extension, and the
/// database's size.
const COUNT_OBJECTS: &str = "\
with mine as (
  select oid from pg_namespace
  where nspname !~ '^pg_' and nspname <> 'information_schema'
), made as (
  select 'pg_class'::regclass as kind, oid from pg_class
  where relnamespace in (select oid from mine) and relkind in ('r', 'p', 'v', 'm', 'S', 'f')
  union all select 'pg_proc'::regclass, oid from pg_proc
  where pronamespace in (select oid from mine)
  union all select 'pg_type'::regclass, oid from pg_type
  where typnamespace in (select oid from mine) and typtype in ('d', 'e', 'r')
  union all select 'pg_namespace'::regclass, oid from pg_namespace
  where oid in (select oid from mine) and nspname <> 'public'
  union all select 'pg_largeobject'::regclass, oid from pg_largeobject_metadata
)
select count(*), pg_size_pretty(pg_database_size(current_database())) from made
where not exists (
  select from pg_depend d where d.classid = made.kind and d.objid = made.oid and d.deptype = 'e'
)";

/// What is run before a dump means the server's own catalogs, whatever a database says.
/// No timeout of the server's, the role's or the database's ends a load that waits for the store, and
/// one that only reads by default writes.
/// And no load outlives its client: a server (since 14) that waits for a lock does not see by itself
/// that the client is gone, and would keep its place in the queue, with everybody else behind it.
pub(super) const PATIENCE: &str = "\
set search_path = '';
set statement_timeout = 0;
select set_config(name, case name when 'client_connection_check_interval' then '1s' else '0' end, false)
from pg_settings where name in ('statement_timeout', 'lock_timeout',
  'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout',
  'default_transaction_read_only')
  or name = 'client_connection_check_interval' and version() !~ 'Visual C|mingw'";

/// Empties a database to what `pg_dump` takes for granted. Runs in the transaction that loads the
/// dump, so that a load that fails leaves the database as it was.
const CLEAR: &str = "\
do $tapline$
declare one record;
begin
  perform set_config('client_min_messages', 'warning', true);
  for one in select evtname from pg_event_trigger loop
    execute format('drop event trigger if exists %I cascade', one.evtname);
  end loop;
  for one in select pubname from pg_publication loop
    execute format('drop publication %I cascade', one.pubname);
  end loop;
  -- Before the schemas: one that an extension has made goes with it alone.
  for one in select extname from pg_extension where extname <> 'plpgsql' loop
    execute format('drop extension if exists %I cascade', one.extname);
  end loop;
  for one in select nspname from pg_namespace
    where nspname !~ '^pg_' and nspname <> 'information_schema' loop
    execute format('drop schema if exists %I cascade', one.nspname);
  end loop;
  for one in select castsource::regtype as a, casttarget::regtype as b from pg_cast
    where oid >= 16384 loop
    execute format('drop cast if exists (%s as %s) cascade', one.a, one.b);
  end loop;
  for one in select amname from pg_am where oid >= 16384 loop
    execute format('drop access method if exists %I cascade', one.amname);
  end loop;
  for one in select lanname from pg_language where oid >= 16384 loop
    execute format('drop language if exists %I cascade', one.lanname);
  end loop;
  for one in select fdwname from pg_foreign_data_wrapper loop
    execute format('drop foreign data wrapper if exists %I cascade', one.fdwname);
  end loop;
  -- What future tables of a role are granted, in the database as a whole: back to what it is where
  -- nobody has said anything.
  for one in select defaclrole, defaclobjtype, acl.grantee
    from pg_default_acl, aclexplode(defaclacl) acl where defaclnamespace = 0 group by 1, 2, 3 loop
    execute format('alter default privileges for role %s revoke all on %s from %s',
      one.defaclrole::regrole,
      case one.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences'
        when 'f' then 'functions' when 'T' then 'types' else 'schemas' end,
      case one.grantee when 0 then 'public' else one.grantee::regrole::text end);
  end loop;
  for one in select defaclrole, defaclobjtype from pg_default_acl where defaclnamespace = 0 loop
    execute format('alter default privileges for role %s grant all on %s to %s',
      one.defaclrole::regrole,
      case one.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences'
        when 'f' then 'functions' when 'T' then 'types' else 'schemas' end,
      one.defaclrole::regrole);
    if one.defaclobjtype in ('f', 'T') then
      execute format('alter default privileges for role %s grant %s to public',
        one.defaclrole::regrole,
        case one.defaclobjtype when 'f' then 'execute on functions' else 'usage on types' end);
    end if;
  end loop;
  perform lo_unlink(oid) from pg_largeobject_metadata;
  create schema public;
  comment on schema public is 'standard public schema';
  if current_setting('server_version_num')::int >= 150000 then
    alter schema public owner to pg_database_owner;
    grant usage on schema public to public;
  else
    grant all on schema public to public;
  end if;
end $tapline$;";

/// Whether a line of psql's stderr is an error that matters in a restore of globals. Messages below
/// errors are not sent, and errors come with their SQLSTATE, whatever the server's language is;
/// that something is there already is none: every server has its first role.
fn matters(line: &str) -> bool {
    const DUPLICATE_OBJECT: &str = ":  42710: ";
    line.starts_with("psql:") && !line.contains(DUPLICATE_OBJECT)
}

#[async_trait]
impl Loader for Postgres {
    async fn load(
        &self,
        dump_format: &str,
        into: Destination,
        options: &LoadOptions,
    ) -> Result<Load, ToolError> {
        // Input from stdin: psql says where in it an error is. Verbose: with its SQLSTATE.
        let psql = |on_error_stop: &str| {
            self.tool(self.program("psql"), self.name()).args([
                "-Xq",
                "--no-password",
                "-v",
                "VERBOSITY=verbose",
                "-v",
                on_error_stop,
                "-f",
                "-",
            ])
        };
        if dump_format == "globals" {
            options.only(&[])?;
            return Ok(Load::Client(ClientLoad {
                client: psql("ON_ERROR_STOP=0"),
                converter: None,
                prelude: format!("{PATIENCE};\nset client_min_messages = error;\n"),
                rules: None,
                unit: Unit::Lenient(matters),
            }));
        }
        options.only(&[
            "--no-owner",
            "--no-privileges",
            "--role",
            "--table",
            "--schema-only",
            "--data-only",
            "--set",
        ])?;
        let mut prelude = format!("{PATIENCE};\n");
        for (name, value) in &options.set {
            // Unlike SET, it takes a list of schemas as one text.
            let (name, value) = (properties::text(name), properties::text(value));
            prelude += &format!("select pg_catalog.set_config({name}, {value}, false);\n");
        }
        let table = options.table.as_deref().map(TableName::parse);
        if options.part == Part::Rows {
            self.warn_of_triggers(options).await?;
        }
        if let Some(role) = &options.role {
            prelude += &format!("set role {};\n", quoted(role));
        }
        let one_transaction = match into {
            Destination::Scratch => false,
            Destination::Place { replace } => {
                prelude += "begin;\n";
                match &table {
                    Some(table) if replace => {
                        prelude += &format!("drop table {};\n", table.quoted());
                    }
                    None if replace => {
                        prelude += CLEAR;
                        prelude += "\n";
                    }
                    _ => {}
                }
                true
            }
        };
        // A database that is there may be one in which nobody may make schemas.
        if let Some(TableName { schema, .. }) = &table
            && into == Destination::Scratch
        {
            prelude += &format!("create schema if not exists {};\n", quoted(schema));
        }
        let is_all = table.is_none() && options.part == Part::All;
        let attach = into != Destination::Scratch;
        let wanted = (!is_all).then(|| Wanted::new(table, options.part, attach));
        let (converter, text) = match dump_format {
            "plain" => (None, true),
            "custom" | "directory" => {
                let mut args = vec!["--file=-", "--no-password"];
                args.extend(options.no_owner.then_some("--no-owner"));
                args.extend(options.no_privileges.then_some("--no-privileges"));
                let pg_restore = ToolCommand::new(self.newest("pg_restore"));
                (Some(pg_restore.args(args)), false)
            }
            other => {
                return Err(ToolError::Cannot(format!(
                    "a dump of format {other:?} cannot be loaded"
                )));
            }
        };
        let rules = Changes {
            settings: self.settings().await?,
            tablespaces: Some(self.tablespaces().await?),
            one_transaction,
            no_owner: text && options.no_owner,
            no_privileges: text && options.no_privileges,
            given: options
                .set
                .iter()
                .map(|(name, _)| name.to_lowercase())
                .collect(),
            wanted,
        };
        let load = ClientLoad {
            client: psql("ON_ERROR_STOP=1"),
            converter,
            prelude,
            rules: Some(Box::new(rules)),
            unit: if one_transaction {
                Unit::Transaction("commit;\n")
            } else {
                Unit::None
            },
        };
        Ok(if dump_format == "directory" {
            Load::Folder(load)
        } else {
            Load::Client(load)
        })
    }

    async fn contents(&self) -> Result<Contents, ToolError> {
        if self.globals() {
            return Ok(Contents::Unknown);
        }
        match self.ask(self.name(), COUNT_OBJECTS).await {
            Ok(answer) => {
                let (count, size) = answer.trim().split_once('|').unwrap_or((&answer, ""));
                match number(count) {
                    Some(0) => Ok(Contents::Empty),
                    Some(count) => Ok(Contents::Holds(format!(
                        "{count} tables, views, functions and the like, {size}"
                    ))),
                    None => Err(ToolError::answer("psql", "no count of objects")),
                }
            }
            Err(error) => {
                let query = format!(
                    "select count(*) from pg_database where datname = {}",
                    literal(self.name())
                );
                match self.ask(MAINTENANCE, &query).await {
                    Ok(answer) if number(&answer) == Some(0) => Ok(Contents::Absent),
                    _ => Err(error),
                }
            }
        }
    }

    async fn holds_table(&self, table: &str) -> Result<Contents, ToolError> {
        let name = literal(&TableName::parse(table).quoted());
        let query = format!(
            "select case relkind when 'p' then 'partitioned'
               else pg_size_pretty(pg_total_relation_size(oid)) end
             from pg_class where oid = to_regclass({name})"
        );
        let answer = self.ask(self.name(), &query).await?;
        Ok(match answer.trim() {
            "" => Contents::Empty,
            // Its partitions would go with it.
            "partitioned" => {
                return Err(ToolError::Cannot(format!(
                    "the table {table} is partitioned: nothing was done; restore its partitions by \
                     their names, or all into another database with --to"
                )));
            }
            size => Contents::Holds(format!("the table {table}, {size}")),
        })
    }

    async fn beside(
        &self,
        purpose: Purpose,
        said: Option<&Properties>,
        options: &LoadOptions,
    ) -> Result<Replacement, ToolError> {
        // A table is replaced in a transaction of its own database.
        let is_of_table = options.table.is_some() && purpose == Purpose::Restore;
        if self.globals() || (is_of_table && self.contents().await? != Contents::Absent) {
            return Ok(Replacement::Other);
        }
        super::beside::make(self, purpose, said, options).await
    }

    async fn create(&self, said: Option<&Properties>) -> Result<(), ToolError> {
        let said = said.and_then(|said| said.postgres.as_ref());
        let clause = said.map(PostgresProperties::made_as).unwrap_or_default();
        // What is in template1 would be in the dump's way.
        let made = format!(
            "create database {} template template0{clause}",
            self.identifier()
        );
        let made = self.administer(&[&made]).await;
        let Some(said) = said else { return made };
        made.map_err(|error| properties::refused(said, self.name(), &error))?;
        self.say_again(said, self.name(), &LoadOptions::default())
            .await;
        let last = said.last_statements(self.name());
        let last: Vec<&str> = last.iter().map(String::as_str).collect();
        self.administer(&last).await
    }

    async fn activity(&self) -> Activity {
        let query = format!(
            "select w.state = 'active' and w.wait_event_type is distinct from 'Lock'
                 and w.wait_event_type is distinct from 'Client',
               (select string_agg(coalesce(format('process %s (%s%s, %s since %s): %s', h.pid,
                   h.usename, ', ' || nullif(h.application_name, ''), h.state,
                   date_trunc('second', h.state_change), left(h.query, 80)),
                   'a prepared transaction'), '; ')
                 from unnest(pg_blocking_pids(w.pid)) b(pid)
                 left join pg_stat_activity h on h.pid = b.pid)
             from pg_stat_activity w where w.application_name = 'tapline' and w.datname = {}",
            literal(self.name())
        );
        let Ok(answer) = self.ask(MAINTENANCE, &query).await else {
            return Activity::Unknown;
        };
        let mut lines = answer.lines().filter_map(|line| line.split_once('|'));
        let (mut working, mut holder) = (false, None);
        for (works, who) in &mut lines {
            working |= works == "t";
            holder = holder.or((!who.is_empty()).then(|| who.to_owned()));
        }
        match holder {
            Some(holder) => Activity::Locked(holder),
            None if working => Activity::Working,
            None => Activity::Unknown,
        }
    }

    async fn examine(&self) -> Result<Option<u64>, ToolError> {
        let query = "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                     where relkind in ('r', 'p') and nspname !~ '^pg_' \
                     and nspname <> 'information_schema'";
        Ok(number(&self.ask(self.name(), query).await?))
    }

    async fn remove(&self) -> Result<(), ToolError> {
        self.drop_database(self.name()).await
    }
}

impl Postgres {
    /// Rows that are added to tables meet their triggers, unless the session is a replica's.
    async fn warn_of_triggers(&self, options: &LoadOptions) -> Result<(), ToolError> {
        let is_replica = options
            .set
            .iter()
            .any(|(name, value)| name == "session_replication_role" && value == "replica");
        let query = "select count(*) from pg_trigger where not tgisinternal and tgenabled <> 'D'";
        if let (false, Some(count @ 1..)) =
            (is_replica, number(&self.ask(self.name(), query).await?))
        {
            tracing::warn!(
                "{count} triggers of the target run for the rows that are loaded, and may change \
                 them: --set session_replication_role=replica keeps them from it"
            );
        }
        Ok(())
    }

    /// The names of all settings that the server has.
    async fn settings(&self) -> Result<HashSet<String>, ToolError> {
        let query = "select lower(name) from pg_settings";
        let answer = self.ask(MAINTENANCE, query).await?;
        Ok(answer.lines().map(str::to_owned).collect())
    }

    /// The names of all tablespaces that the server has.
    async fn tablespaces(&self) -> Result<HashSet<String>, ToolError> {
        let query = "select encode(convert_to(spcname, 'UTF8'), 'hex') from pg_tablespace";
        let answer = self.ask(MAINTENANCE, query).await?;
        Ok(answer.lines().filter_map(unhex).collect())
    }

    /// Removes a database and whoever is in it: a client that was ended may have left its server
    /// process at work.
    pub(super) async fn drop_database(&self, name: &str) -> Result<(), ToolError> {
        let (text, identifier) = (literal(name), quoted(name));
        let query = format!(
            "select count(*) from pg_database d join pg_subscription s on s.subdbid = d.oid
             where d.datname = {text}"
        );
        if number(&self.ask(MAINTENANCE, &query).await?) > Some(0) {
            // Restored subscriptions are not connected to anything, but would keep it from going.
            let drop = "do $$ declare one record; begin
                for one in select subname from pg_subscription
                  where subdbid = (select oid from pg_database where datname = current_database()) loop
                  execute format('alter subscription %I disable', one.subname);
                  execute format('alter subscription %I set (slot_name = none)', one.subname);
                  execute format('drop subscription %I', one.subname);
                end loop; end $$";
            self.ask(name, drop).await?;
        }
        self.administer(&[
            &format!(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = {text}"
            ),
            &format!("drop database if exists {identifier}"),
        ])
        .await
    }
}

/// A name as an identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name as a string, whatever is in it.
pub(super) fn literal(name: &str) -> String {
    let digits = crate::archive::hex(name.as_bytes());
    format!("convert_from(decode('{digits}', 'hex'), 'UTF8')")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_globals_are_judged_by_their_sqlstate_in_any_language() {
        for harmless in [
            "psql:<stdin>:12: ERROR:  42710: role \"a\" already exists",
            "psql:<stdin>:12: FEHLER:  42710: Rolle »a« existiert bereits",
            "LOCATION:  CreateRole, user.c:308",
            "",
        ] {
            assert!(!matters(harmless), "{harmless}");
        }
        for error in [
            "psql:<stdin>:12: ERROR:  42501: permission denied, or already exists",
            "psql:<stdin>:13: FEHLER:  42601: Syntaxfehler",
            "psql:<stdin>:13: error: invalid command \\x",
        ] {
            assert!(matters(error), "{error}");
        }
    }
}
