//! A database beside the target, which takes its place by two renames in one transaction.
//!
//! ```text
//! create shop_tapline_new_X ─▶ load, check ─▶ begin; shop → shop_tapline_old_X;
//!                                             shop_tapline_new_X → shop; commit ─▶ drop the old one
//! ```
//!
//! Whatever ends this program, `shop` is the old database or the new one. What is left then is found
//! by the next restore: as long as a restore lives, a session of it holds an advisory lock on the
//! name of its database, and its comment says whose it is. Without the comment it is only named.

use async_trait::async_trait;

use super::super::load::{
    BESIDE_PATTERN, Beside, LoadOptions, Purpose, Replacement, beside_id, name_beside,
};
use super::super::session::Session;
use super::super::{Engine, unhex};
use super::Postgres;
use super::connection::MAINTENANCE;
use super::load::{literal, quoted};
use crate::config::Selection;
use crate::dump::ToolError;

/// The longest name that a server keeps, in bytes (`NAMEDATALEN` − 1).
const LONGEST_NAME: usize = 63;
/// `tapl`, so that no other program's advisory locks are in the way.
const LOCK: u32 = 0x7461_706c;
/// How a comment begins that says that a database is ours.
const MARK: &str = "tapline: ";
/// How often a switch is tried while sessions come that are to be ended.
const TRIES: usize = 5;

struct Pair {
    target: Postgres,
    new: Postgres,
    /// What the target is called once it is out of the way; `None` when there is no target.
    old: Option<String>,
    force: bool,
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
    options: &LoadOptions,
) -> Result<Replacement, ToolError> {
    let command = target.psql(MAINTENANCE).args(["-At", "-f", "-"]);
    let mut session = Session::open(&command, "\\echo 'tapline: end of the answer'")?;
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
    let exists = purpose == Purpose::Restore && session.run(&exists).await?.concat() != "0";
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
    let like = like(&mut session, &name).await?;
    session
        .run(&format!(
            "create database {identifier} template template0{like};
             comment on database {identifier} is '{MARK}{says}'"
        ))
        .await?;
    Ok(Replacement::Beside(Box::new(Pair {
        target: target.named(target.name().to_owned()),
        new,
        old,
        force: options.force,
        _session: session,
    })))
}

/// Removes what killed restores and drills have left on this server.
async fn sweep(server: &Postgres, session: &mut Session) -> Result<(), ToolError> {
    // Whoever gets the lock is alone with it.
    let query = format!(
        "with left_behind as materialized (
           select datname, shobj_description(oid, 'pg_database') as says from pg_database
           where datname ~ '{BESIDE_PATTERN}'
         )
         select coalesce(says like '{MARK}%', false), encode(convert_to(datname, 'UTF8'), 'hex')
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

/// How a database is made as the one of this name was: what cannot be changed afterwards.
async fn like(session: &mut Session, name: &str) -> Result<String, ToolError> {
    // Columns that only some versions have are asked for as JSON: locale providers came with 15,
    // ICU rules with 16, and the locale's column got another name in 17.
    let query = format!(
        "select format(' encoding %L lc_collate %L lc_ctype %L', pg_encoding_to_char(encoding),
             datcollate, datctype)
           || case j->>'datlocprovider'
             when 'i' then format(' locale_provider icu icu_locale %L',
               coalesce(j->>'datlocale', j->>'daticulocale'))
               || coalesce(format(' icu_rules %L', j->>'daticurules'), '')
             when 'b' then format(' locale_provider builtin builtin_locale %L', j->>'datlocale')
             when 'c' then ' locale_provider libc' else '' end
           || format(' tablespace %I', spcname)
         from (select d.*, to_jsonb(d) as j from pg_database d) d
         join pg_tablespace t on t.oid = dattablespace where datname = {name}"
    );
    Ok(session.run(&query).await?.concat())
}

/// The statements that give `new` what is said about `old`: settings, privileges, comment, owner.
async fn properties(server: &Postgres, old: &str, new: &str) -> Result<Vec<String>, ToolError> {
    let (old, new) = (literal(old), literal(new));
    // Settings that are lists of names are stored quoted; as pg_dump's variable_is_guc_list_quote.
    let query = format!(
        "with d as (select *, {new} as new from pg_database where datname = {old}), said as (
           select 1 as step, format('comment on database %I is %L', new,
               shobj_description(oid, 'pg_database')) as statement from d
           union all select 2, format('alter database %I connection limit %s', new, datconnlimit)
           from d where datconnlimit <> -1
           union all select 3, format('alter database %I is_template true', new)
           from d where datistemplate
           union all select 4, format('revoke all on database %I from public', new)
           from d where datacl is not null
           union all select 5, format('grant %s on database %I to %s%s', privilege_type, new,
               case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end,
               case when is_grantable then ' with grant option' else '' end)
           from d, aclexplode(datacl)
           union all select 6, format('alter %s%I set %I to %s',
               case setrole when 0 then 'database '
                 else format('role %I in database ', pg_get_userbyid(setrole)) end, new, key,
               case when key in ('local_preload_libraries', 'search_path',
                   'session_preload_libraries', 'shared_preload_libraries', 'temp_tablespaces',
                   'unix_socket_directories')
                 then coalesce(nullif(replace(value, '\"\"', ''''''), ''), '''''')
                 else quote_literal(value) end)
           from d join pg_db_role_setting on setdatabase = oid, unnest(setconfig) pair,
             lateral (select split_part(pair, '=', 1) as key,
               substr(pair, strpos(pair, '=') + 1) as value) setting
           union all select 7, format('alter database %I owner to %I', new,
               pg_get_userbyid(datdba)) from d where pg_get_userbyid(datdba) <> current_user
         )
         select encode(convert_to(statement, 'UTF8'), 'hex') from said order by step"
    );
    let answer = server.ask(MAINTENANCE, &query).await?;
    let statements = answer.lines().map(unhex).collect::<Option<_>>();
    statements.ok_or_else(|| ToolError::answer("psql", "no properties of the database"))
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
            statements.extend(properties(&self.target, self.target.name(), self.new.name()).await?);
            if self.force {
                statements.push(format!(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = {text}"
                ));
            }
            statements.extend([
                format!("alter database {target} rename to {name}"),
                format!(
                    "comment on database {name} is '{MARK}a restore has replaced this database'"
                ),
            ]);
        } else {
            statements.push(format!("comment on database {new} is null"));
        }
        statements.extend([
            format!("alter database {new} rename to {target}"),
            "commit".to_owned(),
        ]);
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        let mut tries = if self.force { TRIES } else { 1 };
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
