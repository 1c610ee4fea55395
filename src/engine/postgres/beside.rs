//! A database beside the target, which takes its place by two renames in one transaction.
//!
//! ```text
//! create shop_tapline_new_X ─▶ load, check ─▶ begin; shop → shop_tapline_old_X;
//!                                             shop_tapline_new_X → shop; commit ─▶ drop the old one
//! ```
//!
//! Whatever ends this program, `shop` is the old database or the new one. What is left then is found
//! by the next restore: as long as a restore lives, a session of it holds an advisory lock on the
//! name of its database, and how many may be connected to it says whose it is, in the statement that
//! makes it. Without that mark it is only named.

use async_trait::async_trait;

use super::super::load::{
    BESIDE_PATTERN, Beside, LoadOptions, Purpose, Replacement, beside_id, name_beside,
};
use super::super::session::Session;
use super::super::{Engine, unhex};
use super::Postgres;
use super::connection::MAINTENANCE;
use super::load::{PATIENCE, literal, quoted};
use super::properties;
use crate::catalog::{PostgresProperties, Properties};
use crate::config::Selection;
use crate::dump::ToolError;

/// The longest name that a server keeps, in bytes (`NAMEDATALEN` − 1).
const LONGEST_NAME: usize = 63;
/// `tapl`, so that no other program's advisory locks are in the way.
const LOCK: u32 = 0x7461_706c;
/// How a comment begins that says to people that a database is ours.
const SAYS: &str = "tapline: ";
/// As many connections are allowed to a database that is ours: more than there can be, and a number
/// that nobody else would think of.
const MARK: u32 = LOCK;
/// How often a switch is tried while sessions come that are to be ended.
const TRIES: usize = 5;

struct Pair {
    target: Postgres,
    new: Postgres,
    /// What the target is called once it is out of the way; `None` when there is no target.
    old: Option<String>,
    /// What the backup says about the database that it is of.
    said: Option<PostgresProperties>,
    options: LoadOptions,
    /// Holds the locks.
    _session: Session,
}

impl Postgres {
    fn named(&self, name: String) -> Self {
        let mut database = self.database.clone();
        database.database = Selection::One(name);
        Self::new(database, self.access.clone())
    }
}

/// Makes a database beside `target`, or says why the target can only be replaced in place.
pub(super) async fn make(
    target: &Postgres,
    purpose: Purpose,
    said: Option<&Properties>,
    options: &LoadOptions,
) -> Result<Replacement, ToolError> {
    let mut session = target.session(MAINTENANCE)?;
    session.run(PATIENCE).await?;
    sweep(target, &mut session).await?;
    let name = literal(target.name());
    let may = "select rolsuper or rolcreatedb, rolname from pg_roles where rolname = current_user";
    let may = session.run(may).await?.concat();
    if let Some(role) = may.strip_prefix("f|") {
        return Ok(Replacement::InPlace(format!(
            "{role} may not create databases (ALTER ROLE {} CREATEDB)",
            quoted(role)
        )));
    }
    let exists = format!("select count(*) from pg_database where datname = {name}");
    let is_there = session.run(&exists).await?.concat() != "0";
    let exists = purpose == Purpose::Restore && is_there;
    if exists && let Some(why) = hindrance(&mut session, &name, options.force).await? {
        return Err(why);
    }
    let id = beside_id();
    let (what, says) = match purpose {
        Purpose::Restore => ("new", "a restore is loaded into this database"),
        Purpose::Drill => ("drill", "a drill is loaded into this database"),
    };
    let new = target.named(name_beside(target.name(), what, &id, LONGEST_NAME));
    let old = exists.then(|| name_beside(target.name(), "old", &id, LONGEST_NAME));
    let (text, identifier) = (literal(new.name()), quoted(new.name()));
    session
        .run(&format!(
            "select pg_advisory_lock({LOCK}, hashtext({text}))"
        ))
        .await?;
    let said = said.and_then(|said| said.postgres.clone());
    let there = if is_there {
        let answer = session.run(&properties::query(&name)).await?.concat();
        Some(properties::parse(&answer)?)
    } else {
        None
    };
    if let (true, Some(there), Some(said)) = (exists, &there, &said)
        && let Some(differs) = there.differs(said)
    {
        tracing::warn!(
            "the database stays what it is ({differs}, which the backup's was): drop it first to \
             have the backup's"
        );
    }
    // A drill is of the backup; what is there keeps what is said about it.
    let like = if exists {
        there
    } else {
        said.clone().or(there)
    };
    let clause = match &like {
        Some(like) => {
            let owner = owned_by(&mut session, like, options).await?;
            owner + &like.made_as() + &in_tablespace(&mut session, like).await?
        }
        None => String::new(),
    };
    let made = format!(
        "create database {identifier} template template0{clause} connection limit {MARK};
         comment on database {identifier} is '{SAYS}{says}'"
    );
    if let Err(error) = session.run(&made).await {
        return Err(match &like {
            Some(like) => properties::refused(like, target.name(), &error),
            None => error,
        });
    }
    Ok(Replacement::Beside(Box::new(Pair {
        target: target.named(target.name().to_owned()),
        new,
        old,
        said,
        options: options.clone(),
        _session: session,
    })))
}

/// Removes what killed restores and drills have left on this server.
async fn sweep(server: &Postgres, session: &mut Session) -> Result<(), ToolError> {
    // Whoever gets the lock is alone with it.
    let query = format!(
        "with left_behind as materialized (
           select datname, datconnlimit = {MARK} as ours from pg_database
           where datname ~ '{BESIDE_PATTERN}'
         )
         select ours, encode(convert_to(datname, 'UTF8'), 'hex')
         from left_behind where pg_try_advisory_lock({LOCK}, hashtext(datname))"
    );
    for line in session.run(&query).await? {
        let Some((ours, name)) = line.split_once('|') else {
            continue;
        };
        let Some(name) = unhex(name) else { continue };
        if ours != "t" {
            tracing::warn!(
                "the database {name:?} looks like what a killed restore has left, and does not say \
                 so: look at it, and DROP DATABASE {}",
                quoted(&name)
            );
        } else if let Err(error) = server.drop_database(&name).await {
            tracing::warn!(
                "the database {name:?}, which a killed restore has left, cannot be removed: {error}"
            );
        } else {
            tracing::warn!("removed the database {name:?}, which a killed restore had left");
        }
        let name = literal(&name);
        let unlock = format!("select pg_advisory_unlock({LOCK}, hashtext({name}))");
        session.run(&unlock).await?;
    }
    Ok(())
}

/// Its owner, where the user may give it to that role and keeps the rights of one. Nobody else may
/// make anything in `public` since PostgreSQL 15, and the dump gives its tables to whom they were.
async fn owned_by(
    session: &mut Session,
    said: &PostgresProperties,
    options: &LoadOptions,
) -> Result<String, ToolError> {
    let query = format!(
        "select count(*) from pg_roles where rolname = {} and pg_has_role(oid, 'usage')
           and case when current_setting('server_version_num')::int >= 160000
             then pg_has_role(oid, 'set') else true end",
        literal(&said.owner)
    );
    if options.no_owner || session.run(&query).await?.concat() != "1" {
        return Ok(String::new());
    }
    Ok(format!(" owner {}", quoted(&said.owner)))
}

/// Its tablespace, where this server has that.
async fn in_tablespace(
    session: &mut Session,
    said: &PostgresProperties,
) -> Result<String, ToolError> {
    let name = &said.tablespace;
    if name.is_empty() || name == "pg_default" {
        return Ok(String::new());
    }
    if session.run(&properties::tablespace(said)).await?.concat() == "0" {
        tracing::warn!("there is no tablespace {name:?} here: the database is made in the default");
        return Ok(String::new());
    }
    Ok(format!(" tablespace {}", quoted(name)))
}

/// What would keep the target from being switched.
async fn hindrance(
    session: &mut Session,
    name: &str,
    force: bool,
) -> Result<Option<ToolError>, ToolError> {
    let cannot = |why: String| Ok(Some(ToolError::Cannot(why)));
    let owner = format!(
        "select pg_get_userbyid(datdba) from pg_database where datname = {name}
           and not pg_has_role(current_user, datdba, 'usage')"
    );
    if let [owner] = session.run(&owner).await?.as_slice() {
        return cannot(format!(
            "the database belongs to {owner:?}, and only its owner may replace it: nothing was \
             done; --in-place replaces its content"
        ));
    }
    let subscriptions = format!(
        "select string_agg(quote_ident(subname), ', ') from pg_subscription s
         join pg_database d on d.oid = s.subdbid where d.datname = {name}"
    );
    let subscriptions = session.run(&subscriptions).await?.concat();
    if !subscriptions.is_empty() {
        return cannot(format!(
            "the database has subscriptions ({subscriptions}), and cannot be removed as long as it \
             has: nothing was done; drop them first"
        ));
    }
    let holders = session.run(&holders(name)).await?.concat();
    if !force && !holders.is_empty() {
        return cannot(in_use(&holders));
    }
    Ok(None)
}

/// The sessions in a database, in words.
fn holders(name: &str) -> String {
    format!(
        "select string_agg(format('process %s (%s%s%s)', pid, usename,
           ', ' || nullif(application_name, ''), ' from ' || host(client_addr)), '; ')
         from pg_stat_activity where datname = {name} and pid <> pg_backend_pid()
           and backend_type = 'client backend'"
    )
}

fn in_use(holders: &str) -> String {
    format!(
        "sessions hold the database, and keep it from being replaced: {holders}; nothing was done; \
         end them, or give --force"
    )
}

#[async_trait]
impl Beside for Pair {
    fn engine(&self) -> &dyn Engine {
        &self.new
    }

    async fn switch(&mut self) -> Result<(), ToolError> {
        let (target, new) = (quoted(self.target.name()), quoted(self.new.name()));
        let mut statements = vec!["begin".to_owned()];
        if let Some(old) = &self.old {
            let (name, text) = (quoted(old), literal(self.target.name()));
            let said = properties::query(&text);
            let said = properties::parse(&self.target.ask(MAINTENANCE, &said).await?)?;
            let all = LoadOptions::default();
            statements.extend(said.statements(self.new.name(), &all));
            statements.extend(said.last_statements(self.new.name()));
            if self.options.force {
                statements.push(format!(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = {text}"
                ));
            }
            statements.extend([
                format!("alter database {target} is_template false"),
                format!("alter database {target} rename to {name}"),
                format!("alter database {name} connection limit {MARK}"),
                format!(
                    "comment on database {name} is '{SAYS}a restore has replaced this database'"
                ),
            ]);
        } else {
            let said = self.said.clone().unwrap_or_default();
            self.target
                .say_again(&said, self.new.name(), &self.options)
                .await;
            statements.extend(said.last_statements(self.new.name()));
        }
        statements.extend([
            format!("alter database {new} rename to {target}"),
            "commit".to_owned(),
        ]);
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        let mut tries = if self.options.force { TRIES } else { 1 };
        // A rename waits some seconds for sessions that are about to end.
        while let Err(error) = self.target.administer(&statements).await {
            tries -= 1;
            if tries > 0 {
                continue;
            }
            let holders = holders(&literal(self.target.name()));
            let holders = self.target.ask(MAINTENANCE, &holders).await;
            return Err(match holders.as_deref().map(str::trim) {
                Ok("") | Err(_) => error,
                Ok(holders) => ToolError::Cannot(in_use(holders)),
            });
        }
        if let Some(old) = &self.old
            && let Err(error) = self.target.drop_database(old).await
        {
            tracing::warn!(
                "the restored database is in place; what it replaced is still there as {old:?}, \
                 and the next restore tries to remove it: {error}"
            );
        }
        Ok(())
    }

    async fn discard(&mut self) -> Result<(), ToolError> {
        self.new.drop_database(self.new.name()).await
    }
}
