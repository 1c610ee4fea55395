//! PostgreSQL: `pg_dump`, and `pg_dumpall --globals-only`.
//!
//! The password reaches libpq through a password file that is a memfd
//! (<https://www.postgresql.org/docs/current/libpq-pgpass.html>: a regular file, mode 0600).

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::{
    ADMIN_TIMEOUT, Access, Contents, EndMarker, Engine, Load, StagedDump, Unit, file_stem, number,
};
use crate::config::{Database, DumpFormat, Selection};
use crate::dump::{SECRET_PATH, ToolCommand, ToolError, first_in_path};

/// The database that queries about the server are asked in; every server has it.
const MAINTENANCE: &str = "postgres";

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

pub(super) struct Postgres {
    pub(super) database: Database,
    pub(super) access: Access,
}

impl Postgres {
    fn globals(&self) -> bool {
        self.database.database == Selection::Globals
    }

    fn name(&self) -> &str {
        match &self.database.database {
            Selection::One(name) => name,
            _ => MAINTENANCE,
        }
    }

    /// `program`, connected to `database`. What libpq takes from its environment need not be
    /// quoted.
    fn tool(&self, program: impl Into<std::path::PathBuf>, database: &str) -> ToolCommand {
        let mut tool = ToolCommand::new(program);
        let mut set = |name: &str, value: String| tool.env.push((name.into(), value));
        if let Some(host) = self.database.host.clone() {
            set("PGHOST", host);
        }
        if let Some(folder) = &self.database.socket {
            set("PGHOST", folder.display().to_string());
        }
        if let Some(port) = self.database.port {
            set("PGPORT", port.to_string());
        }
        if let Some(user) = self.database.user.clone() {
            set("PGUSER", user);
        }
        set("PGDATABASE", database.to_owned());
        set("PGAPPNAME", "tapline".into());
        set(
            "PGCONNECT_TIMEOUT",
            self.access.timeout.as_secs().max(1).to_string(),
        );
        if let Some(password) = &self.access.password {
            tool.env.push(("PGPASSFILE".into(), SECRET_PATH.into()));
            tool.secret_file = Some(passfile(password));
        }
        tool.secret_env.clone_from(&self.access.env);
        tool
    }

    async fn ask(&self, database: &str, query: &str) -> Result<String, ToolError> {
        let args = [
            "-XAtq",
            "--no-password",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            query,
        ];
        self.tool(first_in_path(&["psql"]), database)
            .args(args)
            .query(self.access.timeout)
            .await
    }

    async fn administer(&self, statements: &[&str]) -> Result<(), ToolError> {
        let args = [
            "-Xq",
            "--no-password",
            "-v",
            "ON_ERROR_STOP=1",
            "-o",
            "/dev/null",
        ];
        let args = args
            .into_iter()
            .chain(statements.iter().flat_map(|statement| ["-c", statement]));
        self.tool(first_in_path(&["psql"]), MAINTENANCE)
            .args(args)
            .query(ADMIN_TIMEOUT)
            .await
            .map(drop)
    }

    fn identifier(&self) -> String {
        format!("\"{}\"", self.name().replace('"', "\"\""))
    }

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

/// One line that fits every server: the connection is given elsewhere. A password cannot hold a
/// line break here.
fn passfile(password: &SecretString) -> SecretString {
    let escaped = password
        .expose_secret()
        .replace('\\', r"\\")
        .replace(':', r"\:");
    format!("*:*:*:*:{escaped}\n").into()
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

    fn load(&self, dump_format: &str, replace: bool) -> Result<Load, ToolError> {
        let psql = || {
            self.tool(first_in_path(&["psql"]), self.name())
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
                let name = self.name().replace('\\', r"\\").replace('\'', r"\'");
                self.tool(first_in_path(&["pg_restore"]), self.name())
                    .args(["--no-password", "--exit-on-error", "--single-transaction"])
                    .args(clear.iter().copied())
                    .args([format!("--dbname=dbname='{name}'")])
            }
            other => {
                return Err(ToolError(format!(
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
            Ok(None) => Err(ToolError("psql: no count of objects".into())),
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

/// Text from its UTF-8 bytes in hex digits, as both clients are asked to give names.
pub(super) fn unhex(digits: &str) -> Option<String> {
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    String::from_utf8(
        (0..digits.len())
            .step_by(2)
            .map(byte)
            .collect::<Option<_>>()?,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passwords_colons_and_backslashes_are_escaped() {
        assert_eq!(
            passfile(&r"a:b\c".to_owned().into()).expose_secret(),
            "*:*:*:*:a\\:b\\\\c\n"
        );
        assert_eq!(unhex("67c3b6"), Some("gö".into()));
        assert_eq!(unhex("6"), None);
    }
}
