//! A database beside the target, which a dump is loaded into before the target is touched.
//!
//! There is no renaming of databases, so what is in it moves: see [`switch`]. What a
//! killed restore or drill leaves is found by the next: as long as one lives, a session of it holds
//! a lock on the name of its database, and a table in it says that it is ours. One that holds
//! anything else, and not the table, is only named.

use std::time::Duration;

use async_trait::async_trait;

use super::super::load::{
    BESIDE_PATTERN, Beside, LoadOptions, Purpose, Replacement, beside_id, name_beside,
};
use super::super::session::Session;
use super::super::{Engine, unhex};
use super::load::PATIENCE;
use super::properties::{made_as, refused};
use super::{Mysql, switch};
use crate::catalog::Properties;
use crate::config::Selection;
use crate::dump::ToolError;

/// The table that says that a database is ours.
pub(super) const MARK: &str = "tapline";
/// The longest name of a database, in characters.
const LONGEST_NAME: usize = 64;

pub(super) struct Pair {
    pub(super) target: Mysql,
    pub(super) new: Mysql,
    /// Where what the target holds goes meanwhile.
    pub(super) old: Mysql,
    /// Whether tables have moved in a switch that failed: then nothing is removed any more.
    pub(super) moved: bool,
    /// How long the switch waits for those who use the target's tables.
    pub(super) lock_timeout: Duration,
    /// The one table that is replaced, where it is not all.
    pub(super) table: Option<String>,
    /// Holds the locks.
    pub(super) session: Session,
}

impl Mysql {
    pub(super) fn named(&self, name: String) -> Self {
        let mut database = self.database.clone();
        database.database = Selection::One(name);
        Self::new(database, self.access.clone())
    }
}

/// The name of the lock on a database while it is loaded, and while its content moves; an
/// expression. Locks' names are short, and MySQL has no `md5` any more since 9.6.
pub(super) fn lock(name: &str, moving: bool) -> String {
    let what = if moving { "move" } else { "load" };
    format!("concat('tapline.{what}.', left(sha2({name}, 256), 32))")
}

/// Makes a database beside `target`, or says why the target can only be replaced in place.
pub(super) async fn make(
    target: &Mysql,
    purpose: Purpose,
    said: Option<&Properties>,
    options: &LoadOptions,
) -> Result<Replacement, ToolError> {
    let mut session = target.session()?;
    session.run(PATIENCE).await?;
    sweep(target, &mut session).await?;
    let name = target.literal()?;
    let exists =
        format!("select count(*) from information_schema.schemata where schema_name = {name}");
    let exists = session.run(&exists).await?.concat() != "0";
    if purpose == Purpose::Restore
        && exists
        && let Some(why) = switch::hindrance(target, options.table.as_deref(), &mut session).await?
    {
        return Ok(Replacement::InPlace(why));
    }
    let id = beside_id();
    let name_of = target.name()?;
    let what = match purpose {
        Purpose::Restore => "new",
        Purpose::Drill => "drill",
    };
    let named = |what| target.named(name_beside(name_of, what, &id, LONGEST_NAME));
    let (mut new, old) = (named(what), named("old"));
    new.home = Some(target.identifier()?);
    for database in [&new, &old] {
        let lock = lock(&database.literal()?, false);
        session.run(&format!("do get_lock({lock}, 60)")).await?;
    }
    // A drill is of the backup; what is there keeps what is said about it.
    let of_backup = made_as(said);
    let like = if exists && (purpose == Purpose::Restore || of_backup.is_empty()) {
        target.like().await?
    } else {
        of_backup
    };
    let identifier = new.identifier()?;
    let made = format!(
        "create database {identifier}{like};
         create table {identifier}.`{MARK}` (what text) comment 'a restore is loaded here'"
    );
    match target.administer(&made).await {
        Ok(()) => {}
        // Access denied.
        Err(error) if error.to_string().contains("ERROR 1044 ") => {
            return Ok(Replacement::InPlace(format!(
                "the user may not create {identifier}, and a grant on `%\\_tapline\\_%`.* would let \
                 it: {error}"
            )));
        }
        Err(error) => return Err(refused(&like, error)),
    }
    Ok(Replacement::Beside(Box::new(Pair {
        target: target.named(target.name()?.to_owned()),
        new,
        old,
        moved: false,
        lock_timeout: options.lock_timeout,
        table: options.table.clone().filter(|_| exists),
        session,
    })))
}

/// Removes what killed restores and drills have left on this server.
async fn sweep(server: &Mysql, session: &mut Session) -> Result<(), ToolError> {
    let query = format!(
        "select hex(convert(schema_name using utf8mb4)),
           exists (select 1 from information_schema.tables
             where table_schema = schema_name and table_name = '{MARK}')
           or not exists (select 1 from information_schema.tables where table_schema = schema_name
             union all select 1 from information_schema.routines
               where routine_schema = schema_name
             union all select 1 from information_schema.events where event_schema = schema_name)
         from information_schema.schemata where schema_name regexp '{BESIDE_PATTERN}'"
    );
    for line in session.run(&query).await? {
        let Some((name, ours)) = line.split_once('\t') else {
            continue;
        };
        let Some(left) = unhex(name).map(|name| server.named(name)) else {
            continue;
        };
        let (name, identifier) = (left.literal()?, left.identifier()?);
        let locks = [false, true].map(|moving| lock(&name, moving));
        let take = format!(
            "select get_lock({}, 0) and get_lock({}, 0)",
            locks[0], locks[1]
        );
        // Whoever gets the locks is alone with it.
        if session.run(&take).await?.concat() == "1" {
            if ours == "0" {
                tracing::warn!(
                    "the database {identifier} looks like what a killed restore has left, and does \
                     not say so: look at it, and DROP DATABASE {identifier}"
                );
            } else {
                match server
                    .administer(&format!("drop database if exists {identifier}"))
                    .await
                {
                    Ok(()) => tracing::warn!(
                        "removed the database {identifier}, which a killed restore had left"
                    ),
                    Err(error) => tracing::warn!(
                        "the database {identifier}, which a killed restore has left, cannot be \
                         removed: {error}"
                    ),
                }
            }
        }
        for lock in locks {
            session.run(&format!("do release_lock({lock})")).await?;
        }
    }
    Ok(())
}

#[async_trait]
impl Beside for Pair {
    fn engine(&self) -> &dyn Engine {
        &self.new
    }

    async fn switch(&mut self) -> Result<(), ToolError> {
        switch::switch(self).await
    }

    async fn discard(&mut self) -> Result<(), ToolError> {
        if self.moved {
            return Ok(());
        }
        let statements = [&self.new, &self.old].map(|database| {
            let identifier = database.identifier()?;
            Ok(format!("drop database if exists {identifier}"))
        });
        let statements: Result<Vec<_>, ToolError> = statements.into_iter().collect();
        // A client that was ended may have left its connection at work.
        let name = self.new.literal()?;
        let others = format!("select id from information_schema.processlist where db = {name}");
        for id in self.session.run(&others).await? {
            let _ = self.target.administer(&format!("kill {id}")).await;
        }
        self.target.administer(&statements?.join("; ")).await
    }
}
