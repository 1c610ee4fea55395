//! A dump by several sessions from one snapshot.
//!
//! ```text
//! keeper   begin ─▶ lock every table ─▶ export the snapshot ──────────────── held to the last byte ─▶ end
//! copiers            begin, set snapshot ─▶ lock … nowait ─▶ copy a range, copy a range, …
//! pg_dump                     --snapshot --section=pre-data │ data │ post-data: locks as it begins
//! ```
//!
//! The tables are locked before the snapshot is taken: what the snapshot shows is what is locked.
//! Every session takes all its locks before the first byte is given away. A session that waits to
//! change a table (`ALTER TABLE`) stands in the queue behind the keeper, and whoever of ours comes
//! later stands behind it: nothing would ever end that, and the server does not see it. So the
//! copiers do not wait, the dump tools are watched, and where one stands so all is let go, which
//! costs nothing yet, and begun again. Later nothing of ours waits for a lock: what a copy takes
//! besides (its plan locks indexes) goes when the copy is over.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use ring::rand::{SecureRandom, SystemRandom};

use super::super::Engine;
use super::super::load::beside_id;
use super::super::parallel::{Keeper, Streams};
use super::Postgres;
use super::load::quoted;
use super::split::{Candidate, bytes_of, candidates, locks, split};
use crate::archive::hex;
use crate::dump::{Copier, DumpError, Source, ToolCommand, ToolError};
use crate::meter::Meter;

/// How often it is begun again when somebody stands between two sessions.
const TRIES: u32 = 8;
/// How often it is looked for such a one while the dump tools begin.
const LOOK: Duration = Duration::from_millis(500);
/// SQLSTATEs of what another try may not meet: a lock that is not to be had at once, a table or a
/// schema that has gone since it was listed.
const PASSING: [&str; 3] = [" 55P03: ", " 42P01: ", " 3F000: "];

/// See the questions of a single session.
const UNSWAYED: &[u8] = b"set search_path = '';\n";
/// How many tables a statement locks: it fails when one of them has gone, and the others are tried
/// again in smaller numbers.
const LOCKED_AT_ONCE: [usize; 6] = [500, 50, 5, 1, 1, 1];
/// Around statements of which one that fails is as if it had not been told.
const TOLERANT: &str = "\\set ON_ERROR_STOP 0\n";
const BEFORE_EACH: &str = "savepoint one;\n";
const AFTER_EACH: &str =
    "\\if :ERROR\nrollback to savepoint one;\n\\endif\nrelease savepoint one;\n";
const STRICT: &str = "\\set ON_ERROR_STOP 1\n";

/// A session's settings, as `pg_dump` sets its own
/// (`setup_connection` in `src/bin/pg_dump/pg_dump.c`); and plans that read a range as a range.
const SETTINGS: &str = "\
select pg_catalog.set_config(wanted.name, value, true) from (values
  ('datestyle', 'ISO'), ('intervalstyle', 'postgres'), ('extra_float_digits', '3'),
  ('synchronize_seqscans', 'off'), ('statement_timeout', '0'), ('lock_timeout', '0'),
  ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'),
  ('row_security', 'off'), ('search_path', ''), ('enable_seqscan', 'off'),
  ('max_parallel_workers_per_gather', '0')) wanted(name, value)
join pg_catalog.pg_settings known on lower(known.name) = wanted.name;\n";

/// Why a try came to nothing.
enum Failed {
    /// Another may come to something.
    Passing(String),
    For(DumpError),
}

impl From<DumpError> for Failed {
    fn from(error: DumpError) -> Self {
        let text = error.to_string();
        if PASSING.iter().any(|state| text.contains(state)) {
            Self::Passing(text)
        } else {
            Self::For(error)
        }
    }
}

impl From<ToolError> for Failed {
    fn from(error: ToolError) -> Self {
        Self::For(error.into())
    }
}

/// What of the entry's options means something to the sessions.
#[derive(Default)]
struct Options {
    role: Option<String>,
    lock_timeout: Option<String>,
    /// Those for the dump tool.
    rest: Vec<String>,
}

impl Options {
    fn of(options: &[String]) -> Self {
        let mut all = Self::default();
        let mut words = options.iter();
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            match name {
                "--role" => all.role = value.or_else(|| words.next().cloned()),
                "--lock-wait-timeout" => {
                    all.lock_timeout = value.or_else(|| words.next().cloned());
                    continue;
                }
                _ => {}
            }
            all.rest.push(word.clone());
            if name == "--role" && !word.contains('=') {
                all.rest.extend(all.role.clone());
            }
        }
        all
    }
}

impl Postgres {
    /// Begins it.
    pub(super) async fn begin_parallel(
        &self,
        sessions: usize,
        segment: usize,
        exit_timeout: Duration,
        meter: &Meter,
    ) -> Result<Streams, DumpError> {
        let mut last = String::new();
        for tried in 0..TRIES {
            // Whoever was in the way goes on now.
            tokio::time::sleep(Duration::from_secs(tried.into())).await;
            let begin = Beginning::new(self, exit_timeout);
            match begin.run(sessions, segment, meter).await {
                Ok(streams) => return Ok(streams),
                Err(Failed::For(error)) => return Err(error),
                Err(Failed::Passing(why)) => {
                    tracing::info!(
                        database = self.database.name,
                        "the parallel dump is begun again: {why}"
                    );
                    last = why;
                }
            }
        }
        Err(ToolError::Cannot(format!(
            "the parallel dump could not be begun in {TRIES} tries, because tables are being \
             changed: {last}"
        ))
        .into())
    }
}

/// One try.
struct Beginning<'a> {
    postgres: &'a Postgres,
    options: Options,
    exit_timeout: Duration,
    /// What the sessions are called, to be found among the server's.
    name: String,
}

impl<'a> Beginning<'a> {
    fn new(postgres: &'a Postgres, exit_timeout: Duration) -> Self {
        Self {
            postgres,
            options: Options::of(&postgres.database.options),
            exit_timeout,
            name: format!("tapline {}", beside_id()),
        }
    }

    /// Whatever has been started is ended when this fails: children that are dropped are.
    async fn run(&self, sessions: usize, segment: usize, meter: &Meter) -> Result<Streams, Failed> {
        let mut keeper = self.session()?;
        let mut copiers = (0..sessions)
            .map(|_| self.session())
            .collect::<Result<Vec<_>, _>>()?;
        let server = keeper.ask(b"show server_version_num;\n").await?;
        self.postgres.server.learn(&server);
        let server = self.postgres.server.major().unwrap_or_default();
        self.refuse_pooler(&mut keeper, &mut copiers[0]).await?;
        for session in copiers.iter_mut().chain([&mut keeper]) {
            session.ask(UNSWAYED).await?;
        }

        let snapshot = self.lock_all(&mut keeper, &mut copiers[0], server).await?;
        let answer = keeper
            .ask(format!("{};\n", candidates()).as_bytes())
            .await?;
        let split_tables = answer
            .lines()
            .map(Candidate::read)
            .collect::<Option<Vec<_>>>();
        let mut tables =
            split_tables.ok_or_else(|| ToolError::answer("psql", "no list of tables"))?;
        // Where the names of a table's columns would fill a segment, its rows would have no room.
        tables.retain(|table| table.copy_len() < segment / 8);
        let (split_tables, work) = split(&tables, sessions, server);
        copiers.truncate(work.len());
        let locks: Vec<u8> = tables.iter().flat_map(Candidate::lock).collect();
        let ready = copiers
            .iter_mut()
            .map(|copier| self.join(copier, &snapshot, &locks));
        try_join_all(ready).await?;

        let key = self.restrict_key().await?;
        let (prologue, epilogue) = self.frame(&mut keeper, key.as_deref()).await?;
        let mut keeper = Keeper::new(keeper, self.circle());
        let exclusions = tables.iter().map(Candidate::exclusion).collect();
        let section = |name: &str, more: Vec<String>| {
            let command = self.pg_dump(&snapshot, name, key.as_deref(), more);
            Source::spawn(&command, self.postgres.dump_shape(), self.exit_timeout)
        };
        let mut tools = [
            section("pre-data", Vec::new())?,
            section("data", exclusions)?,
            section("post-data", Vec::new())?,
        ];
        self.all_begun(&mut tools, &mut keeper, meter).await?;
        let [pre_data, rest, post_data] = tools;
        Ok(Streams {
            pre_data,
            rest,
            post_data,
            copiers,
            work,
            tables: split_tables,
            prologue,
            epilogue,
            keeper,
        })
    }

    /// A client that is told what to do; names go in the encoding in which the dump tool writes them.
    fn session(&self) -> Result<Copier, DumpError> {
        let postgres = self.postgres;
        let mut psql = postgres
            .tool(postgres.program("psql"), postgres.name())
            .args(["-XAtq", "--no-password", "-v", "ON_ERROR_STOP=1"])
            .args(["-v", "VERBOSITY=verbose", "-f", "-"]);
        psql.env.push(("PGAPPNAME".into(), self.name.clone()));
        Copier::start(&psql)
    }

    /// Behind a pooler that gives a server's session to one client after the other (pgbouncer's
    /// transaction mode) what is set for a session is set for somebody else's: `pg_dump` does that,
    /// too.
    async fn refuse_pooler(&self, keeper: &mut Copier, other: &mut Copier) -> Result<(), Failed> {
        let ask = b"select coalesce(pg_catalog.current_setting('tapline.session', true), '');\n";
        let mark = format!("set tapline.session = '{}';\n", self.name);
        keeper.ask(mark.as_bytes()).await?;
        // It holds the session that it got until it is told otherwise.
        other.ask(b"begin;\n").await?;
        let mine = keeper.ask(ask).await?;
        let others = other.ask(ask).await?;
        other.ask(b"rollback;\n").await?;
        if mine.trim() == self.name && others.trim().is_empty() {
            return Ok(());
        }
        Err(ToolError::Cannot(
            "between this program and the server there is a pooler that hands sessions about \
             (pgbouncer's transaction mode): a dump through it cannot be relied on; connect to the \
             server itself, or to a pool in session mode"
                .into(),
        )
        .into())
    }

    /// Locks all tables, then takes the snapshot, and returns its name.
    async fn lock_all(
        &self,
        keeper: &mut Copier,
        other: &mut Copier,
        server: u32,
    ) -> Result<String, Failed> {
        let pid = keeper
            .ask(b"select pg_backend_pid();\n")
            .await?
            .trim()
            .to_owned();
        let mut begin = "begin isolation level repeatable read read only;\n\
            set local statement_timeout = 0;\nset local idle_in_transaction_session_timeout = 0;\n"
            .to_owned();
        if server >= 17 {
            begin += "set local transaction_timeout = 0;\n";
        }
        begin += &match &self.options.lock_timeout {
            Some(timeout) => format!(
                "set local lock_timeout = '{}';\n",
                timeout.replace('\'', "''")
            ),
            None => "set local lock_timeout = 0;\n".into(),
        };
        begin += &self.role();
        keeper.ask(begin.as_bytes()).await?;
        // Listed by another session: the first question would be the snapshot.
        for each in LOCKED_AT_ONCE {
            let listed = other.ask(locks(&pid, each).as_bytes()).await?;
            if listed.is_empty() {
                break;
            }
            let statements = statements(&listed, (BEFORE_EACH, AFTER_EACH))?;
            let tolerant = [TOLERANT.as_bytes(), &statements, STRICT.as_bytes()];
            keeper.ask(&tolerant.concat()).await?;
        }
        let snapshot = keeper
            .ask(b"select pg_catalog.pg_export_snapshot();\n")
            .await?;
        // Tables that were made in between, or may not be read.
        let listed = keeper.ask(locks(&pid, 1).as_bytes()).await?;
        keeper.ask(&statements(&listed, ("", ""))?).await?;
        keeper.ask(SETTINGS.as_bytes()).await?;
        let snapshot = snapshot.trim();
        if snapshot.is_empty()
            || !snapshot
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(ToolError::answer("psql", "no snapshot").into());
        }
        Ok(snapshot.to_owned())
    }

    /// Makes a session see the snapshot, with locks of its own.
    async fn join(
        &self,
        copier: &mut Copier,
        snapshot: &str,
        locks: &[u8],
    ) -> Result<(), DumpError> {
        let begin = format!(
            "begin isolation level repeatable read read only;\n\
             set transaction snapshot '{snapshot}';\n{}{SETTINGS}",
            self.role()
        );
        let text = [begin.as_bytes(), locks, b"savepoint copies;\n"].concat();
        copier.ask(&text).await.map(drop)
    }

    fn role(&self) -> String {
        let role = self.options.role.as_ref();
        role.map_or(String::new(), |role| {
            format!("set local role {};\n", quoted(role))
        })
    }

    /// `pg_dump`, from the snapshot.
    fn pg_dump(
        &self,
        snapshot: &str,
        section: &str,
        key: Option<&str>,
        more: Vec<String>,
    ) -> ToolCommand {
        let postgres = self.postgres;
        let mut tool = postgres
            .tool(postgres.dump_program(), postgres.name())
            .args(["--no-password".to_owned()])
            .args([
                format!("--snapshot={snapshot}"),
                format!("--section={section}"),
            ])
            .args(key.map(|key| format!("--restrict-key={key}")))
            .args(self.options.rest.iter().cloned())
            .args(more);
        tool.env.push(("PGAPPNAME".into(), self.name.clone()));
        tool
    }

    /// What newer dump tools write into a script, so that no row can end with a command for psql; it
    /// is not known to the server. `None` with older ones.
    async fn restrict_key(&self) -> Result<Option<String>, ToolError> {
        let help = ToolCommand::new(self.postgres.dump_program()).args(["--help"]);
        let help = help.query(self.postgres.access.timeout).await?;
        if !help.contains("--restrict-key") {
            return Ok(None);
        }
        let mut key = [0; 16];
        let random = SystemRandom::new().fill(&mut key);
        random.map_err(|_| ToolError::Cannot("the system gives no random numbers".into()))?;
        Ok(Some(hex(&key)))
    }

    /// What a script of rows begins and ends with: what the dump tool writes before any.
    async fn frame(
        &self,
        keeper: &mut Copier,
        key: Option<&str>,
    ) -> Result<(Vec<u8>, Vec<u8>), DumpError> {
        let (restrict, unrestrict) = match key {
            Some(key) => (
                format!("\\restrict {key}\n"),
                format!("\n\\unrestrict {key}\n"),
            ),
            None => (String::new(), String::new()),
        };
        let ask = b"show client_encoding;\nshow standard_conforming_strings;\n";
        let answer = keeper.ask(ask).await?;
        let (encoding, conforming) = answer.trim().split_once('\n').unwrap_or(("UTF8", "on"));
        let prologue = format!(
            "{restrict}SET statement_timeout = 0;\nSET lock_timeout = 0;\n\
             SET idle_in_transaction_session_timeout = 0;\nSET client_encoding = '{encoding}';\n\
             SET standard_conforming_strings = {conforming};\n\
             SELECT pg_catalog.set_config('search_path', '', false);\n\
             SET check_function_bodies = false;\nSET xmloption = content;\n\
             SET client_min_messages = warning;\nSET row_security = off;\n\n"
        );
        Ok((prologue.into_bytes(), unrestrict.into_bytes()))
    }

    /// The question after a session that stands between two of ours.
    fn circle(&self) -> String {
        let name = &self.name;
        format!(
            "do $$ begin perform pg_catalog.pg_stat_clear_snapshot(); end $$;\n\
             with ours as materialized (
               select array_agg(pid) as pids from pg_stat_activity where application_name = '{name}'
             )
             select encode(convert_to(format('process %s (%s) with %s', h.pid, h.usename,
                 left(h.query, 80)), 'UTF8'), 'hex')
             from ours, unnest(pids) one, unnest(pg_blocking_pids(one)) b(pid)
             join pg_stat_activity h on h.pid = b.pid
             where not h.pid = any(pids) and pg_blocking_pids(h.pid) && pids limit 1;\n"
        )
    }

    /// Waits until every tool has begun, so that it has its locks.
    async fn all_begun(
        &self,
        tools: &mut [Source; 3],
        keeper: &mut Keeper,
        meter: &Meter,
    ) -> Result<(), Failed> {
        let begun = join_all(tools.iter_mut().map(|tool| tool.begun(meter)));
        let watch = async {
            loop {
                tokio::time::sleep(LOOK).await;
                if let Some(who) = keeper.in_between().await? {
                    return Err::<(), _>(Failed::Passing(who));
                }
            }
        };
        tokio::select! {
            biased;
            all = begun => all.into_iter().collect::<Result<(), _>>().map_err(Failed::from),
            between = watch => between,
        }
    }
}

/// The statements that were listed, with this around each.
fn statements(listed: &str, (before, after): (&str, &str)) -> Result<Vec<u8>, ToolError> {
    let mut all = Vec::new();
    for line in listed.lines() {
        let statement = bytes_of(line);
        all.extend_from_slice(before.as_bytes());
        all.extend(statement.ok_or_else(|| ToolError::answer("psql", "no list of tables"))?);
        all.extend_from_slice(b";\n");
        all.extend_from_slice(after.as_bytes());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_and_a_patience_with_locks_hold_for_the_sessions_too() {
        let options = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            let Options {
                role,
                lock_timeout,
                rest,
            } = Options::of(&words);
            (
                role.unwrap_or_default(),
                lock_timeout.unwrap_or_default(),
                rest.join(" "),
            )
        };
        let expected = |rest: &str| ("r".to_owned(), "5s".to_owned(), rest.to_owned());
        assert_eq!(
            options(&["-x", "--role=r", "--lock-wait-timeout=5s"]),
            expected("-x --role=r")
        );
        assert_eq!(
            options(&["--lock-wait-timeout", "5s", "--role", "r", "-O"]),
            expected("--role r -O")
        );
    }
}
