//! How a dump gets into a database, and what is in one.

use async_trait::async_trait;

use super::super::{Contents, Load, Loader, Unit, number};
use super::Postgres;
use super::connection::MAINTENANCE;
use crate::dump::ToolError;

/// How many things in a database somebody has made: not the system's, and not an extension's.
const COUNT_OBJECTS: &str = "\
with mine as (
  select oid from pg_namespace
  where nspname !~ '^pg_' and nspname <> 'information_schema'
), made as (
  select 'pg_class'::regclass as kind, oid from pg_class
  where relnamespace in (select oid from mine) and relkind in ('r', 'p', 'v', 'm', 'S', 'f')
  union all select 'pg_proc'::regclass, oid from pg_proc where pronamespace in (select oid from mine)
  union all select 'pg_type'::regclass, oid from pg_type
  where typnamespace in (select oid from mine) and typtype in ('d', 'e', 'r')
  union all select 'pg_namespace'::regclass, oid from pg_namespace
  where oid in (select oid from mine) and nspname <> 'public'
  union all select 'pg_largeobject'::regclass, oid from pg_largeobject_metadata
)
select count(*) from made
where not exists (select from pg_depend d where d.classid = made.kind and d.objid = made.oid and d.deptype = 'e')";

/// Empties a database to what `pg_dump` takes for granted. Runs in the transaction that loads the
/// dump, so that a load that fails leaves the database as it was.
const CLEAR: &str = "\
do $tapline$
declare one record;
begin
  perform set_config('client_min_messages', 'warning', true);
  for one in select evtname from pg_event_trigger loop execute format('drop event trigger %I cascade', one.evtname); end loop;
  for one in select pubname from pg_publication loop execute format('drop publication %I cascade', one.pubname); end loop;
  for one in select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema' loop
    execute format('drop schema %I cascade', one.nspname);
  end loop;
  for one in select extname from pg_extension where extname <> 'plpgsql' loop
    execute format('drop extension if exists %I cascade', one.extname);
  end loop;
  for one in select fdwname from pg_foreign_data_wrapper loop
    execute format('drop foreign data wrapper %I cascade', one.fdwname);
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

#[async_trait]
impl Loader for Postgres {
    fn load(&self, dump_format: &str, replace: bool) -> Result<Load, ToolError> {
        let psql = || {
            self.tool(self.program("psql"), self.name())
                .args(["-Xq", "--no-password"])
        };
        let command = match dump_format {
            // Some roles are there in every server; psql goes on after that.
            "globals" => {
                let mut command = psql().args(["-f", "-"]);
                command.env.push(("LC_MESSAGES".into(), "C".into()));
                command
                    .env
                    .push(("PGOPTIONS".into(), "-c lc_messages=C".into()));
                return Ok(Load::Client {
                    command,
                    unit: Unit::Lenient,
                });
            }
            "plain" => {
                // Not --single-transaction: psql would commit whatever it has when its input ends.
                let command = psql().args(["-v", "ON_ERROR_STOP=1", "-f", "-"]);
                let before = format!("begin;\n{}\n", if replace { CLEAR } else { "" });
                return Ok(Load::Client {
                    command,
                    unit: Unit::Between(before, "commit;\n"),
                });
            }
            "custom" | "directory" => {
                let clear: &[&str] = if replace {
                    &["--clean", "--if-exists"]
                } else {
                    &[]
                };
                self.tool(self.program("pg_restore"), self.name())
                    .args(["--no-password", "--exit-on-error", "--single-transaction"])
                    .args(clear.iter().copied())
            }
            other => {
                return Err(ToolError::Cannot(format!(
                    "a dump of format {other:?} cannot be loaded"
                )));
            }
        };
        if dump_format == "directory" {
            return Ok(Load::Folder(command));
        }
        Ok(Load::Client {
            command,
            unit: Unit::Own,
        })
    }

    async fn contents(&self) -> Result<Contents, ToolError> {
        if self.globals() {
            return Ok(Contents::Unknown);
        }
        match self
            .ask(self.name(), COUNT_OBJECTS)
            .await
            .map(|answer| number(&answer))
        {
            Ok(Some(0)) => Ok(Contents::Empty),
            Ok(Some(count)) => Ok(Contents::Holds(format!(
                "{count} tables, views, functions and the like"
            ))),
            Ok(None) => Err(ToolError::answer("psql", "no count of objects")),
            Err(error) => {
                let name = crate::archive::hex(self.name().as_bytes());
                let query = format!(
                    "select count(*) from pg_database where datname = convert_from(decode('{name}', 'hex'), 'UTF8')"
                );
                match self
                    .ask(MAINTENANCE, &query)
                    .await
                    .map(|answer| number(&answer))
                {
                    Ok(Some(0)) => Ok(Contents::Absent),
                    _ => Err(error),
                }
            }
        }
    }

    async fn create(&self) -> Result<(), ToolError> {
        // What is in template1 would be in the dump's way.
        self.administer(&[&format!(
            "create database {} template template0",
            self.identifier()
        )])
        .await
    }

    async fn count_tables(&self) -> Result<Option<u64>, ToolError> {
        let query = "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                     where relkind in ('r', 'p') and nspname !~ '^pg_' and nspname <> 'information_schema'";
        Ok(number(&self.ask(self.name(), query).await?))
    }

    async fn remove(&self) -> Result<(), ToolError> {
        // A client that was ended may have left its server process at work.
        let name = crate::archive::hex(self.name().as_bytes());
        let others = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = convert_from(decode('{name}', 'hex'), 'UTF8')"
        );
        self.administer(&[
            &others,
            &format!("drop database if exists {}", self.identifier()),
        ])
        .await
    }
}
