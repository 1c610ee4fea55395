//! What is changed in a dump of MySQL or MariaDB on its way into the client.
//!
//! A dump is of one database and is loaded into the session's own, whatever that is called. So
//! nothing of it may name a database or change the server.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::super::script::{Dialect, Kind, Rules, Token, Verdict, tokens};
use super::qualifier::{is_of_server, named_above, qualifiers};
use super::wanted::Wanted;

/// As many tokens of a statement as rules look at.
const LOOK: usize = 200;

/// The mode in which a dump is to be loaded, as it says itself.
const DUMPS_MODE: &[u8] = b"'NO_AUTO_VALUE_ON_ZERO'";
/// The mode in which it is: every date that a server may have is one.
const LOADING_MODE: &str = "'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'";

/// Names of events, in their quotes.
pub(super) type Events = Arc<Mutex<HashSet<Vec<u8>>>>;

/// The changes.
#[derive(Debug)]
pub(super) struct Changes {
    /// The database that it is loaded into, as an identifier.
    pub(super) database: String,
    /// Events are made and do not run; which would have is noted here.
    pub(super) put_to_sleep: Option<Events>,
    /// These are to run again.
    pub(super) wake: Option<Events>,
    pub(super) skip_definer: bool,
    /// Where not all is wanted.
    pub(super) wanted: Option<Wanted>,
    /// Where the one table that is wanted goes in the end, as an identifier: that is where the
    /// tables are that its foreign keys lead to.
    pub(super) home: Option<String>,
    /// The database that the dump says it is of, when it does.
    named: Option<String>,
    /// The database that the comment above its first statement says it is of.
    of: Option<String>,
}

impl Changes {
    pub(super) fn new(database: String) -> Self {
        Self {
            database,
            put_to_sleep: None,
            wake: None,
            skip_definer: false,
            wanted: None,
            home: None,
            named: None,
            of: None,
        }
    }

    /// A dump that was made with `--databases` names its database, and one with
    /// `--all-databases` many: those cannot all be the target.
    fn is_of(&mut self, name: Option<&Token>) -> Result<Verdict, String> {
        let name = name.map(|name| plain(name.text)).unwrap_or_default();
        match &self.named {
            Some(first) if *first != name => Err(format!(
                "the dump holds several databases ({first}, {name}), and can only be loaded as a \
                 whole: give --stdout, and load it with the client"
            )),
            _ => {
                self.named = Some(name);
                Ok(Verdict::Drop)
            }
        }
    }
}

impl Rules for Changes {
    fn dialect(&self) -> Dialect {
        Dialect::Mysql
    }

    fn decide(&mut self, head: &[u8], _: bool) -> Result<Verdict, String> {
        let words = tokens(Dialect::Mysql, head, LOOK);
        let word = |at: usize, is: &[&str]| {
            let word = words.get(at);
            word.is_some_and(|word| is.iter().any(|text| word.is(text)))
        };
        let database = word(1, &["database", "schema"]);
        if self.of.is_none() && (words.is_empty() || word(0, &["set"])) {
            self.of = named_above(head);
        }
        // A database that is being loaded has no other users; and a table whose default is of a
        // sequence could not be written to, which is not among those that are locked.
        if word(0, &["lock", "unlock"]) && word(1, &["tables"]) {
            return Ok(Verdict::Drop);
        }
        if let Some(wanted) = &mut self.wanted
            && !wanted.wants(&words)
        {
            return Ok(Verdict::Drop);
        }
        if word(0, &["use"]) {
            return self.is_of(words.get(1));
        }
        if word(0, &["create", "drop"]) && database {
            let name = words.iter().skip(2).find(|word| {
                let condition = ["if", "not", "exists"].iter().any(|text| word.is(text));
                word.names() && !condition
            });
            return self.is_of(name);
        }
        if word(0, &["alter"]) && database {
            // Around routines that are older than their database's character set stands a change of
            // it, by the name that the database had.
            let name = words.get(2).filter(|word| {
                let options = ["character", "charset", "collate", "default", "upgrade"];
                word.names() && !options.iter().any(|option| word.is(option))
            });
            return Ok(match name {
                Some(name) => replaced(head, vec![(name.at.clone(), self.database.clone())]),
                None => Verdict::Keep,
            });
        }
        if word(0, &["set"]) {
            let server = words.iter().take(8).any(|word| {
                [
                    "global",
                    "@@global",
                    "persist",
                    "@@persist",
                    "sql_log_bin",
                    "@@sql_log_bin",
                ]
                .iter()
                .any(|text| word.is(text))
            });
            if server {
                return Ok(Verdict::Drop);
            }
            // Dates that the source took (2024-02-31) would become 0000-00-00 without a word.
            let mode = words
                .iter()
                .find(|word| head[word.at.clone()] == *DUMPS_MODE);
            return Ok(match mode {
                Some(mode) => replaced(head, vec![(mode.at.clone(), LOADING_MODE.to_owned())]),
                None => Verdict::Keep,
            });
        }
        // Where the dump was taken, in a log that is not this server's.
        let replication = word(0, &["change", "reset", "purge"])
            || (word(0, &["start", "stop"])
                && word(1, &["slave", "replica", "all", "group_replication"]));
        if replication {
            return Ok(Verdict::Drop);
        }
        let mut changes = Vec::new();
        if let Some(qualifiers) = trigger_qualifiers(&words) {
            changes.extend(qualifiers.into_iter().map(|range| (range, String::new())));
        } else if let Some(other) = names_a_database(&words) {
            return Err(format!(
                "the dump names another database ({other}): nothing of that is loaded"
            ));
        }
        if !word(0, &["create"]) {
            return Ok(Verdict::Keep);
        }
        if let Some(of) = self.of.as_ref().filter(|_| is_of_server(&words)) {
            // One table's sequences are not loaded with it.
            let one = self.wanted.as_ref().is_some_and(|w| w.table.is_some());
            let home = self.home.as_ref().filter(|_| one);
            let here = home.unwrap_or(&self.database);
            let found = qualifiers(head, of).into_iter();
            changes.extend(found.map(|range| (range, here.clone())));
        }
        if let (Some(wanted), Some(home)) = (&self.wanted, &self.home)
            && let Some(table) = &wanted.table
            && word(1, &["table"])
        {
            changes.extend(foreign_keys(head, table, home));
        }
        if self.skip_definer
            && let Some(definer) = definer(&words)
        {
            changes.push((definer, String::new()));
        }
        if let Some((name, state)) = event(&words) {
            let enabled = state.is("enable");
            let lock = "no holder panics";
            if let Some(events) = self.put_to_sleep.as_ref().filter(|_| enabled) {
                events.lock().expect(lock).insert(name.text.to_vec());
                changes.push((state.at.clone(), "DISABLE".into()));
            } else if let Some(events) = &self.wake
                && state.is("disable")
                && events.lock().expect(lock).contains(name.text)
            {
                changes.push((state.at.clone(), "ENABLE".into()));
            }
        }
        changes.sort_by_key(|(range, _): &(Range<usize>, String)| range.start);
        Ok(if changes.is_empty() {
            Verdict::Keep
        } else {
            replaced(head, changes)
        })
    }

    fn end(&mut self) -> Result<Vec<u8>, String> {
        self.wanted.as_ref().map_or(Ok(()), Wanted::missing)?;
        Ok(Vec::new())
    }
}

/// A name without its quotes.
pub(super) fn plain(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    match text
        .strip_prefix('`')
        .and_then(|text| text.strip_suffix('`'))
    {
        Some(inner) => inner.replace("``", "`"),
        None => text.into_owned(),
    }
}

/// Where the foreign keys of a table that is made lead to, but for itself, and what they say then: a
/// table that moves to another database leaves its foreign keys behind.
fn foreign_keys(head: &[u8], table: &str, home: &str) -> Vec<(Range<usize>, String)> {
    let words = tokens(Dialect::Mysql, head, usize::MAX);
    let mut changes = Vec::new();
    for three in words.windows(3) {
        let [references, name, next] = three else {
            continue;
        };
        let leads_away = name.kind == Kind::Name && plain(name.text) != table && !next.is(".");
        if references.is("references") && leads_away {
            let at = name.at.start;
            changes.push((at..at, format!("{home}.")));
        }
    }
    if !changes.is_empty() {
        tracing::warn!(
            "foreign keys of `{table}` lead to other tables, which are not restored with it: \
             whether its rows fit to what those hold now is not checked"
        );
    }
    changes
}

fn replaced(head: &[u8], changes: Vec<(Range<usize>, String)>) -> Verdict {
    let (mut new, mut at) = (Vec::with_capacity(head.len() + 64), 0);
    for (range, text) in changes {
        new.extend_from_slice(&head[at..range.start]);
        new.extend_from_slice(text.as_bytes());
        at = range.end;
    }
    new.extend_from_slice(&head[at..]);
    Verdict::Replace(new)
}

/// `database.table`, where a statement says what it is about.
fn names_a_database(words: &[Token]) -> Option<String> {
    let about = [
        "insert", "replace", "create", "drop", "alter", "lock", "truncate", "delete", "update",
        "load", "rename",
    ];
    let ends = [
        "(",
        "as",
        "values",
        "value",
        "select",
        "set",
        "begin",
        "do",
        "references",
    ];
    let first = words.first()?;
    if !about.iter().any(|word| first.is(word)) {
        return None;
    }
    let subject = words
        .iter()
        .take_while(|word| !ends.iter().any(|end| word.is(end)))
        .collect::<Vec<_>>();
    let qualified = subject.windows(3).find(|three| {
        three[0].names() && three[1].is(".") && three[1].kind == Kind::Sign && three[2].names()
    });
    qualified.map(|three| three[0].lossy())
}

/// Where a trigger is created, the database before its name and before its table's. A trigger keeps
/// the words that it was made with, and so the name that its database had.
fn trigger_qualifiers(words: &[Token]) -> Option<Vec<Range<usize>>> {
    if !words.first()?.is("create") {
        return None;
    }
    let trigger = words.iter().take(12).position(|word| word.is("trigger"))?;
    let on = trigger + words[trigger..].iter().position(|word| word.is("on"))?;
    let mut name = trigger + 1;
    while ["if", "not", "exists"]
        .iter()
        .any(|word| words.get(name).is_some_and(|w| w.is(word)))
    {
        name += 1;
    }
    let qualifier = |at: usize| match words.get(at..at + 3) {
        Some([database, dot, _]) if dot.is(".") => Some(database.at.start..dot.at.end),
        _ => None,
    };
    Some([name, on + 1].into_iter().filter_map(qualifier).collect())
}

/// `DEFINER=user@host`.
fn definer(words: &[Token]) -> Option<Range<usize>> {
    let at = words.iter().position(|word| word.is("definer"))?;
    let (first, is, who) = (words.get(at)?, words.get(at + 1)?, words.get(at + 2)?);
    if !is.is("=") {
        return None;
    }
    let end = match (words.get(at + 3), words.get(at + 4)) {
        (Some(sign), Some(host)) if sign.text == b"@" => host.at.end,
        (Some(host), _) if host.text.starts_with(b"@") => host.at.end,
        _ => who.at.end,
    };
    Some(first.at.start..end)
}

/// An event's name, and the word that says whether it runs, as `SHOW CREATE EVENT` writes it: behind
/// how long it lives, and before what it does.
fn event<'a>(words: &'a [Token<'a>]) -> Option<(&'a Token<'a>, &'a Token<'a>)> {
    let at = words.iter().take(8).position(|word| word.is("event"))?;
    let preserve = words.iter().position(|word| word.is("preserve"))?;
    Some((words.get(at + 1)?, words.get(preserve + 1)?))
}

#[cfg(test)]
mod tests {
    use super::super::super::script::Script;
    use super::*;

    fn edited(changes: Changes, text: &str) -> Result<String, String> {
        let mut script = Script::new(Box::new(changes));
        let mut out = script.edit(text.as_bytes())?.to_vec();
        out.extend_from_slice(&script.end()?);
        Ok(String::from_utf8(out).unwrap())
    }

    fn changes() -> Changes {
        Changes::new("`ta``rget`".into())
    }

    #[test]
    fn a_date_that_the_source_took_is_taken() {
        let set =
            |mode: &str| format!("/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='{mode}' */;\n");
        assert_eq!(
            edited(changes(), &set("NO_AUTO_VALUE_ON_ZERO")).unwrap(),
            set("NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES")
        );
        assert_eq!(edited(changes(), &set("ANSI")).unwrap(), set("ANSI"));
    }

    #[test]
    fn no_statement_reaches_another_database_or_the_server() {
        let dump = "/*!40101 SET NAMES utf8mb4 */;\n\
                    SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ 'x:1-5';\n\
                    SET @@SESSION.SQL_LOG_BIN= 0;\n\
                    CHANGE MASTER TO MASTER_LOG_POS=4;\n\
                    CREATE TABLE `t` (`a` int REFERENCES `o`.`x` (`y`));\n\
                    INSERT INTO `t` VALUES ('ALTER DATABASE `shop` x'),(1.5);\n\
                    ALTER DATABASE `shop` CHARACTER SET latin1 COLLATE latin1_swedish_ci ;\n\
                    DELIMITER ;;\nCREATE PROCEDURE `p`() BEGIN DROP TABLE other.t; END ;;\nDELIMITER ;\n\
                    ALTER DATABASE CHARACTER SET utf8mb4;\n";
        assert_eq!(
            edited(changes(), dump).unwrap(),
            "/*!40101 SET NAMES utf8mb4 */;\n\
             CREATE TABLE `t` (`a` int REFERENCES `o`.`x` (`y`));\n\
             INSERT INTO `t` VALUES ('ALTER DATABASE `shop` x'),(1.5);\n\
             ALTER DATABASE `ta``rget` CHARACTER SET latin1 COLLATE latin1_swedish_ci ;\n\
             DELIMITER ;;\nCREATE PROCEDURE `p`() BEGIN DROP TABLE other.t; END ;;\nDELIMITER ;\n\
             ALTER DATABASE CHARACTER SET utf8mb4;\n"
        );
        for text in [
            "INSERT INTO `o`.`t` VALUES (1);",
            "drop table if exists o.t;",
            "CREATE ALGORITHM=UNDEFINED VIEW `o`.`t` AS select 1;",
        ] {
            let error = edited(changes(), text).unwrap_err();
            assert!(error.contains("another database"), "{text}: {error}");
        }
    }

    #[test]
    fn a_trigger_is_made_where_its_table_is() {
        let trigger = |name: &str, table: &str| {
            format!(
                "/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ /*!50003 trigger {name} before insert \
                 on {table} for each row insert into o.t values (1) */;"
            )
        };
        for (name, table) in [("tr", "x"), ("shop.tr", "`shop`.x"), ("`s`.`tr`", "x")] {
            let expected = trigger(
                name.rsplit('.').next().unwrap(),
                table.rsplit('.').next().unwrap(),
            );
            assert_eq!(edited(changes(), &trigger(name, table)).unwrap(), expected);
        }
    }

    #[test]
    fn a_dump_with_the_name_of_its_one_database_goes_into_the_target() {
        let dump = "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `shop` /*!40100 DEFAULT x */;\n\
                    USE `shop`;\nCREATE TABLE t (a int);";
        assert_eq!(
            edited(changes(), dump).unwrap(),
            "\nCREATE TABLE t (a int);"
        );
        let two = format!("{dump}\nUSE `other`;");
        assert!(
            edited(changes(), &two)
                .unwrap_err()
                .contains("several databases")
        );
    }

    #[test]
    fn events_sleep_and_definers_go_when_told_to() {
        let dump = "DELIMITER ;;\n\
                    /*!50106 CREATE*/ /*!50117 DEFINER=`no``body`@`%`*/ /*!50106 EVENT `ENABLE` ON \
                    SCHEDULE EVERY 1 DAY ON COMPLETION NOT PRESERVE ENABLE DO select 'ENABLE' */ ;;\n\
                    DELIMITER ;\n/*!50001 CREATE ALGORITHM=UNDEFINED */\n\
                    /*!50013 DEFINER='a'@localhost SQL SECURITY DEFINER */\n\
                    /*!50001 VIEW v AS select `DEFINER` */;\n\
                    CREATE DEFINER=root@localhost PROCEDURE p() select 1;";
        assert_eq!(edited(changes(), dump).unwrap(), dump);
        let mut sleepy = changes();
        let events = Events::default();
        sleepy.put_to_sleep = Some(events.clone());
        sleepy.skip_definer = true;
        let out = edited(sleepy, dump).unwrap();
        assert!(out.contains("PRESERVE DISABLE DO select 'ENABLE'"), "{out}");
        assert!(
            !out.contains("no``body") && !out.contains("'a'@localhost"),
            "{out}"
        );
        assert!(out.contains("select `DEFINER`"), "{out}");
        let mut awake = changes();
        awake.wake = Some(events);
        assert!(
            edited(awake, &out)
                .unwrap()
                .contains("PRESERVE ENABLE DO select 'ENABLE'")
        );
        let mut others = changes();
        others.wake = Some(Events::default());
        assert_eq!(
            edited(others, &out).unwrap(),
            out,
            "it was not awake before"
        );
    }
}
