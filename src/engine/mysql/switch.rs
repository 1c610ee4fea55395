//! The content of a new database takes the place of the target's.
//!
//! ```text
//! old triggers go ─▶ RENAME TABLE shop.a TO old.a, …, new.a TO shop.a, …   one statement
//!                 ─▶ old views, routines, events go; those of the new one are made
//! ```
//!
//! Tables move in one statement, and with them all rows. What has no table cannot move: its
//! definitions are taken from the new database, where they have already been made once. All of it is
//! one script, in one process of its own that has its whole input when it starts and that does not
//! end with this program: whatever ends this one, the target is soon the old database or the new
//! one.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Seek, Write};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

use super::super::script::Script;
use super::super::session::Session;
use super::super::unhex;
use super::beside::{MARK, Pair, lock};
use super::flavor::Flavor;
use super::script::Changes;
use super::{Mysql, text};
use crate::dump::{ToolCommand, ToolError};

/// How long a switch is under way before it is asked what it waits for, and how often then.
const LOOK: Duration = Duration::from_secs(5);
/// How long definitions may take to be read.
const DEFINITIONS: Duration = Duration::from_mins(10);

/// How many tables move in a time that nobody notices. Each takes the server some writes that it waits
/// for: 30 ms on a disk that others used, too (2,000 of MariaDB 10.11 in 60 s), and linear.
const UNNOTICED: usize = 500;

/// As many tables are named to a tool, so that a command line does not become too long.
const MANY: usize = 1000;

/// What a database holds, by name.
#[derive(Debug, Default)]
struct Inside {
    tables: Vec<String>,
    /// Those of the tables whose engine knows no transactions.
    without_transactions: HashSet<String>,
    views: Vec<String>,
    triggers: Vec<String>,
    /// The tables that have triggers.
    triggered: Vec<String>,
    routines: Vec<(String, String)>,
    events: Vec<String>,
}

/// Why the content of `target` cannot be switched.
pub(super) async fn hindrance(
    target: &Mysql,
    table: Option<&str>,
    session: &mut Session,
) -> Result<Option<String>, ToolError> {
    let name = target.literal()?;
    // Of one table every foreign key that leads to it is another's.
    let others = match table {
        Some(table) => format!(
            "referenced_table_name = {0} and not (constraint_schema = {name} and table_name = {0})",
            text(table)
        ),
        None => format!("constraint_schema <> {name}"),
    };
    let query = format!(
        "select distinct concat(constraint_schema, '.', table_name)
         from information_schema.referential_constraints
         where unique_constraint_schema = {name} and {others} limit 3"
    );
    let others = session.run(&query).await?;
    Ok((!others.is_empty()).then(|| {
        format!(
            "foreign keys of other {} refer to its tables ({})",
            if table.is_some() {
                "tables"
            } else {
                "databases"
            },
            others.join(", ")
        )
    }))
}

/// Everything below happens once the new database is loaded and checked.
pub(super) async fn switch(pair: &mut Pair) -> Result<(), ToolError> {
    let (target, new, old) = (&pair.target, &pair.new, &pair.old);
    let only = pair.table.as_deref();
    let exists = !matches!(
        super::super::Loader::contents(target).await?,
        super::super::Contents::Absent
    );
    let was = if exists {
        inside(target, only, &mut pair.session).await?
    } else {
        Inside::default()
    };
    let is = inside(new, only, &mut pair.session).await?;
    // What would be lost if the tables could not move after all.
    let triggers = definitions(target, target, &was, Part::Triggers).await?;
    let programs = definitions(new, target, &is, Part::Programs).await?;
    let views = definitions(new, target, &is, Part::Views).await?;

    let moving = was.tables.len() + is.tables.len();
    if moving > UNNOTICED {
        tracing::warn!(
            "the restore is loaded; {moving} tables move in one statement, which may take a slow disk \
             30 ms for each: whoever uses them waits until it is done"
        );
    }
    let defaults = sequence_defaults(target, new, &mut pair.session).await?;
    let grants = routine_grants(target, &is).await;

    let (here, there, away) = (target.identifier()?, new.identifier()?, old.identifier()?);
    let mut script = format!(
        "do get_lock({}, 60);\nset session lock_wait_timeout = {}, session \
         foreign_key_checks = 0;\n",
        lock(&new.literal()?, true),
        pair.lock_timeout.as_secs().clamp(1, 31_536_000)
    );
    let mut say = |statement: String| {
        script += &statement;
        script += ";\n";
    };
    say(format!("create database {away}{}", new.like().await?));
    say(format!(
        "create table {away}.`{MARK}` (what text) comment 'a restore has replaced this'"
    ));
    if !exists {
        say(format!("create database {here}{}", new.like().await?));
    }
    // Nobody is in the way now, and whoever comes waits. Where GTIDs are kept, as MySQL does since 9.7,
    // no statement locks tables with transactions and others.
    let is_other = |table: &&String| was.without_transactions.contains(*table);
    let (others, tables): (Vec<_>, Vec<_>) = was.tables.iter().partition(is_other);
    for tables in [tables, others] {
        let locks = tables
            .iter()
            .map(|table| format!("{here}.{} write", quoted(table)));
        let locks = locks.collect::<Vec<_>>().join(", ");
        if !locks.is_empty() {
            say(format!("lock tables {locks}"));
            say("unlock tables".into());
        }
    }
    for trigger in &was.triggers {
        say(format!("drop trigger {here}.{}", quoted(trigger)));
    }
    for trigger in &is.triggers {
        say(format!("drop trigger {there}.{}", quoted(trigger)));
    }
    let moves = |tables: &[String], from: &str, to: &str| {
        let names = tables.iter().map(|table| quoted(table));
        names
            .map(|name| format!("{from}.{name} to {to}.{name}"))
            .collect::<Vec<_>>()
    };
    let renames = [
        moves(&was.tables, &here, &away),
        moves(&is.tables, &there, &here),
    ]
    .concat();
    // From here on each of the two may be all that there is of something: without its mark the next
    // restore names it and does not remove it.
    say(format!("drop table {away}.`{MARK}`, {there}.`{MARK}`"));
    if !renames.is_empty() {
        say(format!("rename table {}", renames.join(", ")));
    }
    for view in &was.views {
        say(format!("drop view if exists {here}.{}", quoted(view)));
    }
    for (kind, routine) in &was.routines {
        let drop = format!("drop {kind} if exists {here}.{}", quoted(routine));
        if kind == "PACKAGE" {
            // Only this mode knows the word.
            say("set @mode = @@sql_mode, session sql_mode = 'ORACLE'".into());
            say(drop);
            say("set session sql_mode = @mode".into());
        } else {
            say(drop);
        }
    }
    for event in &was.events {
        say(format!("drop event if exists {here}.{}", quoted(event)));
    }
    say(format!("use {here}"));
    for statement in defaults {
        say(statement);
    }
    script += &programs;
    script += "\n";
    script += &views;
    script += "\n";
    script += &grants;
    script += &format!("\ndrop database {there};\ndrop database {away};\n");

    let Err(error) = watched(target, &script).await else {
        return Ok(());
    };
    let now = inside(target, only, &mut pair.session).await?;
    let away_now = inside(old, None, &mut pair.session).await?;
    if now.tables != was.tables || !away_now.tables.is_empty() {
        pair.moved = true;
        return Err(ToolError::Cannot(format!(
            "the tables are the restored ones, and what follows them failed: what was there before \
             is in {away}, the rest in {there}; both stay until somebody drops them: {error}"
        )));
    }
    // The tables have not moved. Their triggers come back, if any is gone.
    if now.triggers != was.triggers {
        let mut again = String::new();
        for trigger in &was.triggers {
            again += &format!("drop trigger if exists {here}.{};\n", quoted(trigger));
        }
        again += &format!("use {here};\n{triggers}");
        if let Err(second) = apart(target, &again).await {
            return Err(ToolError::Cannot(format!(
                "{error}\nthe tables are what they were, but their triggers are gone ({second}): \
                 make them again\n{triggers}"
            )));
        }
    }
    Err(error)
}

/// What is in a database, or what there is of one table.
async fn inside(
    database: &Mysql,
    table: Option<&str>,
    session: &mut Session,
) -> Result<Inside, ToolError> {
    let name = database.literal()?;
    let only = |column: &str| match table {
        Some(table) => format!("and {column} = {}", text(table)),
        None => String::new(),
    };
    let all = if table.is_some() { "and false" } else { "" };
    let hex = |column: &str| format!("hex(convert({column} using utf8mb4))");
    let query = format!(
        "select if(e.transactions = 'NO', 'OTHER TABLE', table_type), {}
           from information_schema.tables t left join information_schema.engines e
             on e.engine = t.engine
           where table_schema = {name} and table_name <> '{MARK}' {of_table}
         union all select 'TRIGGER', {} from information_schema.triggers
           where trigger_schema = {name} {of_trigger}
         union all select distinct 'TRIGGERED', {} from information_schema.triggers
           where trigger_schema = {name} {of_trigger}
         union all select routine_type, {} from information_schema.routines
           where routine_schema = {name} {all}
         union all select 'EVENT', {} from information_schema.events
           where event_schema = {name} {all}",
        hex("table_name"),
        hex("trigger_name"),
        hex("event_object_table"),
        hex("routine_name"),
        hex("event_name"),
        of_table = only("table_name"),
        of_trigger = only("event_object_table"),
    );
    let mut inside = Inside::default();
    for line in session.run(&query).await? {
        let Some((kind, name)) = line.split_once('\t') else {
            continue;
        };
        let name = unhex(name).ok_or_else(|| ToolError::Cannot("no names of tables".into()))?;
        match kind {
            "VIEW" | "SYSTEM VIEW" => inside.views.push(name),
            "TRIGGER" => inside.triggers.push(name),
            "TRIGGERED" => inside.triggered.push(name),
            "EVENT" => inside.events.push(name),
            "PROCEDURE" | "FUNCTION" | "PACKAGE" => inside.routines.push((kind.into(), name)),
            // Goes with its package.
            "PACKAGE BODY" => {}
            _ => {
                if kind == "OTHER TABLE" {
                    inside.without_transactions.insert(name.clone());
                }
                inside.tables.push(name);
            }
        }
    }
    inside.tables.sort();
    inside.triggers.sort();
    Ok(inside)
}

/// The statements that make columns' defaults those of the sequences that have moved with them: a
/// default keeps the name of the database that its sequence was in.
async fn sequence_defaults(
    target: &Mysql,
    new: &Mysql,
    session: &mut Session,
) -> Result<Vec<String>, ToolError> {
    let (here, there) = (target.identifier()?, new.identifier()?);
    let hex = |column: &str| format!("hex(convert({column} using utf8mb4))");
    // The name of the new database is nobody else's.
    let query = format!(
        "select {}, {}, {} from information_schema.columns
         where table_schema = {} and column_default like '%nextval(%' and instr(column_default, {})",
        hex("table_name"),
        hex("column_name"),
        hex("column_default"),
        new.literal()?,
        text(&there)
    );
    let mut statements = Vec::new();
    for line in session.run(&query).await? {
        let fields: Vec<_> = line.split('\t').map(unhex).collect();
        let [Some(table), Some(column), Some(default)] = &fields[..] else {
            continue;
        };
        // The history of a table has no part in its defaults.
        if statements.is_empty() {
            statements.push("set session system_versioning_alter_history = keep".into());
        }
        statements.push(format!(
            "alter table {here}.{} alter column {} set default ({})",
            quoted(table),
            quoted(column),
            default.replace(&there, &here)
        ));
    }
    Ok(statements)
}

/// The statements that grant again what is granted on the target's routines: that goes with them,
/// where what is granted on tables stays by their names.
async fn routine_grants(target: &Mysql, is: &Inside) -> String {
    if is.routines.is_empty() {
        return String::new();
    }
    let asked = async {
        let (name, here) = (target.literal()?, target.identifier()?);
        let hex = |column: &str| format!("hex(convert({column} using utf8mb4))");
        let query = format!(
            "select {}, routine_type, {}, {}, proc_priv from mysql.procs_priv where db = {name}",
            hex("routine_name"),
            hex("user"),
            hex("host")
        );
        let answer = target.ask(&query).await?;
        let mut grants = Vec::new();
        for line in answer.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [routine, kind, user, host, privileges] = fields[..] else {
                continue;
            };
            let named = (unhex(routine), unhex(user), unhex(host));
            let (Some(routine), Some(user), Some(host)) = named else {
                continue;
            };
            let stays = is.routines.iter().any(|(_, name)| *name == routine);
            let (privileges, option) = match privileges.strip_suffix("Grant") {
                Some(rest) => (rest.trim_end_matches(','), " with grant option"),
                None => (privileges, ""),
            };
            if !stays {
                continue;
            }
            let privileges = if privileges.is_empty() {
                "usage"
            } else {
                privileges
            };
            let host = if host.is_empty() {
                String::new()
            } else {
                format!("@{}", quoted(&host))
            };
            grants.push(format!(
                "grant {privileges} on {kind} {here}.{} to {}{host}{option};\n",
                quoted(&routine),
                quoted(&user)
            ));
        }
        Ok::<_, ToolError>(grants)
    };
    let asked = asked.await.unwrap_or_else(|error| {
        tracing::warn!(
            "grants on routines cannot be read, and go with the routines that are replaced: {error}"
        );
        Vec::new()
    });
    // One that the user may not give would end the switch half way; now it says what is there.
    let mut grants = String::new();
    for grant in asked {
        match target.administer(&grant).await {
            Ok(()) => grants += &grant,
            Err(error) => {
                tracing::warn!("the user may not grant again what goes with its routine: {error}");
            }
        }
    }
    grants
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Triggers,
    /// Triggers, routines, events.
    Programs,
    Views,
}

/// Definitions of what is in `from`, to be made in `to`.
async fn definitions(
    from: &Mysql,
    to: &Mysql,
    inside: &Inside,
    part: Part,
) -> Result<String, ToolError> {
    let none = match part {
        Part::Triggers => inside.triggers.is_empty(),
        Part::Programs => {
            inside.triggers.is_empty() && inside.routines.is_empty() && inside.events.is_empty()
        }
        Part::Views => inside.views.is_empty(),
    };
    if none {
        return Ok(String::new());
    }
    let mut command = from.tool(from.program()).args([
        "--no-data",
        "--skip-lock-tables",
        "--single-transaction",
        "--default-character-set=utf8mb4",
    ]);
    let options: &[&str] = match part {
        Part::Triggers => &["--no-create-info", "--triggers"],
        Part::Programs => &["--no-create-info", "--triggers", "--routines", "--events"],
        Part::Views => &["--skip-triggers"],
    };
    let modest = Flavor::of(&command.program).modest();
    command = command
        .args(modest.iter().copied())
        .args(options.iter().copied())
        .args(["--", from.name()?]);
    // The tool looks at each table that it is told of, and at all when it is told of none: minutes,
    // where there are thousands.
    command.args.extend(match part {
        Part::Views => inside.views.clone(),
        _ if inside.triggered.len() > MANY => Vec::new(),
        Part::Programs if inside.triggered.is_empty() => vec![MARK.to_owned()],
        Part::Programs | Part::Triggers => inside.triggered.clone(),
    });
    let text = command.query(DEFINITIONS).await?;
    let mut rules = Changes::new(to.identifier()?);
    rules.wake = Some(from.events.clone());
    let mut script = Script::new(Box::new(rules));
    let edited = [script.edit(text.as_bytes()), script.end()];
    let mut out = String::new();
    for piece in edited {
        let piece = piece.map_err(ToolError::Cannot)?;
        out += std::str::from_utf8(&piece)
            .map_err(|_| ToolError::Cannot("definitions that are not UTF-8".into()))?;
    }
    Ok(out)
}

/// Runs the switch, and names who keeps it waiting.
async fn watched(target: &Mysql, script: &str) -> Result<(), ToolError> {
    let waits = "select count(*) from information_schema.processlist
                 where info like 'lock tables %' and state like '%lock%'";
    let mut run = std::pin::pin!(apart(target, script));
    let mut holders = None;
    loop {
        tokio::select! {
            done = &mut run => return match (done, holders) {
                (Err(error), Some(holders)) => Err(ToolError::Cannot(format!(
                    "{error}\nit waited (--lock-timeout) for {holders}"
                ))),
                (done, _) => done,
            },
            () = tokio::time::sleep(LOOK) => {}
        }
        let waits = target.ask(waits).await.unwrap_or_default();
        if !matches!(waits.trim(), "" | "0") && holders.is_none() {
            let now = target.holders().await;
            tracing::warn!("the restore is loaded, and waits to take its place for {now}");
            holders = Some(now);
        }
    }
}

/// Runs a script in a client that does not end with this program.
async fn apart(server: &Mysql, script: &str) -> Result<(), ToolError> {
    let failed = |error: std::io::Error| ToolError::Cannot(format!("the switch: {error}"));
    let mut input = File::from(
        memfd_create("tapline-switch", MemfdFlags::CLOEXEC)
            .map_err(|error| failed(error.into()))?,
    );
    input.write_all(script.as_bytes()).map_err(failed)?;
    input.rewind().map_err(failed)?;
    let command: ToolCommand = server.client();
    let run = move || {
        let mut command = command.to_command()?;
        command
            .stdin(Stdio::from(input))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?
            .wait_with_output()
    };
    let output = tokio::task::spawn_blocking(run).await;
    let output = output.map_err(|error| ToolError::Cannot(error.to_string()))?;
    let output = output.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(ToolError::Cannot(format!(
        "the switch: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
