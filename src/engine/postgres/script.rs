//! What is changed in a PostgreSQL dump on its way into psql.

use std::collections::HashSet;

use super::super::script::{Dialect, Kind, Rules, Token, Verdict, tokens};
use super::wanted::{Wanted, plain};

/// As many tokens of a statement as rules look at.
const LOOK: usize = 64;

/// The changes; each is off by default.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Settings that the server has. A newer `pg_dump` sets some that it has not
    /// (`transaction_timeout` came with PostgreSQL 17), and psql would end there.
    pub(super) settings: HashSet<String>,
    /// Tablespaces that the server has, where that is known. What was in others goes where the
    /// database is.
    pub(super) tablespaces: Option<HashSet<String>>,
    /// The dump's own transactions, around large objects, would end the one that it is loaded in.
    pub(super) one_transaction: bool,
    pub(super) no_owner: bool,
    pub(super) no_privileges: bool,
    /// Settings of the session that are the person's to say.
    pub(super) given: HashSet<String>,
    /// Where not all is wanted.
    pub(super) wanted: Option<Wanted>,
}

impl Rules for Changes {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn decide(&mut self, head: &[u8], whole: bool) -> Result<Verdict, String> {
        let words = tokens(Dialect::Postgres, head, LOOK);
        let Some(first) = words.first() else {
            return Ok(Verdict::Keep);
        };
        let second = words.get(1);
        let second_is = |word: &str| second.is_some_and(|second| second.is(word));
        // A database of its own, or another one's, is nothing that a dump of one database holds.
        let connects = first.is("\\") && (second_is("c") || second_is("connect"));
        let elsewhere = ["create", "drop", "alter"]
            .iter()
            .any(|word| first.is(word))
            && second_is("database");
        if connects || elsewhere {
            let text = String::from_utf8_lossy(&head[first.at.start..]);
            let line = text.lines().next().unwrap_or_default();
            return Err(format!(
                "the dump names a database itself ({line}), as pg_dump --create does: it could \
                 reach another one; nothing of that is loaded. Give --stdout, and load it with psql"
            ));
        }
        if let Some(name) = self.missing_tablespace(&words) {
            tracing::warn!(
                "there is no tablespace {name:?} here: what was in it goes where the database is"
            );
            return Ok(Verdict::Replace(b"\nSET default_tablespace = '';".into()));
        }
        let drop = (whole && self.is_not_set(&words))
            || (self.one_transaction && is_transaction(&words))
            || (self.no_owner && sets_owner(&words))
            || (self.no_privileges && grants(&words));
        Ok(match &mut self.wanted {
            _ if drop => Verdict::Drop,
            Some(wanted) => wanted.decide(head, &words)?,
            None => Verdict::Keep,
        })
    }

    fn end(&mut self) -> Result<Vec<u8>, String> {
        self.wanted.as_mut().map_or(Ok(Vec::new()), Wanted::end)
    }

    fn another(&self) -> Option<Box<dyn Rules>> {
        // What is wanted is known from all that came before it.
        self.wanted.is_none().then(|| {
            Box::new(Self {
                settings: self.settings.clone(),
                given: self.given.clone(),
                tablespaces: self.tablespaces.clone(),
                wanted: None,
                ..*self
            }) as Box<dyn Rules>
        })
    }
}

impl Changes {
    /// The tablespace that is to be the default, where this server has none of that name.
    fn missing_tablespace(&self, words: &[Token]) -> Option<String> {
        let [set, setting, is, name, ..] = words else {
            return None;
        };
        let sets = set.is("set") && setting.is("default_tablespace") && is.is("=");
        if !sets || !name.names() {
            return None;
        }
        let name = plain(name.text);
        let there = self.tablespaces.as_ref()?;
        (!there.contains(&name)).then_some(name)
    }

    /// Whether it sets what this server does not know, or what the person has set.
    fn is_not_set(&self, words: &[Token]) -> bool {
        match words {
            [set, name, is, ..]
                if set.is("set") && name.kind == Kind::Word && (is.is("=") || is.is("to")) =>
            {
                // Sets of words (`SET SESSION AUTHORIZATION`) have no sign behind the second.
                let name = name.lossy().to_lowercase();
                let unknown = !self.settings.is_empty() && !self.settings.contains(&name);
                unknown || self.given.contains(&name)
            }
            [select, schema, dot, set_config, open, name, ..]
                if select.is("select")
                    && schema.is("pg_catalog")
                    && dot.is(".")
                    && set_config.is("set_config")
                    && open.is("(") =>
            {
                let name = name.lossy().to_lowercase();
                self.given.contains(name.trim_matches('\''))
            }
            _ => false,
        }
    }
}

fn is_transaction(words: &[Token]) -> bool {
    matches!(words, [word, end] if (word.is("begin") || word.is("commit")) && end.is(";"))
}

/// `ALTER … OWNER TO name;`: the three last words but for a name in two parts there are none.
fn sets_owner(words: &[Token]) -> bool {
    match words {
        [alter, .., owner, to, _, _end] => alter.is("alter") && owner.is("owner") && to.is("to"),
        [set, session, authorization, ..] => {
            set.is("set") && session.is("session") && authorization.is("authorization")
        }
        _ => false,
    }
}

fn grants(words: &[Token]) -> bool {
    match words {
        [alter, default, privileges, ..]
            if alter.is("alter") && default.is("default") && privileges.is("privileges") =>
        {
            true
        }
        [first, ..] => first.is("grant") || first.is("revoke"),
        [] => false,
    }
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

    #[test]
    fn only_what_is_asked_for_is_left_out() {
        let dump = "SET statement_timeout = 0;\nSET transaction_timeout = 0;\nBEGIN;\nCOMMIT;\n\
                    CREATE FUNCTION f() AS $$ BEGIN; COMMIT; GRANT x; $$ LANGUAGE sql;\n\
                    ALTER FUNCTION s.f(a integer, b text) OWNER TO \"who else\";\n\
                    ALTER TABLE ONLY t ADD CONSTRAINT c CHECK (owner);\nGRANT ALL ON t TO x;\n\
                    COPY t (owner) FROM stdin;\nBEGIN;\nSET a = 1;\n\\.\n";
        assert_eq!(edited(Changes::default(), dump).unwrap(), dump);
        let settings = HashSet::from(["statement_timeout".to_owned()]);
        let without = |lines: &[&str]| {
            lines
                .iter()
                .fold(dump.to_owned(), |text, line| text.replacen(line, "", 1))
        };
        let changes = Changes {
            settings,
            ..Changes::default()
        };
        assert_eq!(
            edited(changes, dump).unwrap(),
            without(&["\nSET transaction_timeout = 0;"])
        );
        let changes = Changes {
            one_transaction: true,
            no_owner: true,
            no_privileges: true,
            ..Changes::default()
        };
        let expected = without(&[
            "\nBEGIN;",
            "\nCOMMIT;",
            "\nALTER FUNCTION s.f(a integer, b text) OWNER TO \"who else\";",
            "\nGRANT ALL ON t TO x;",
        ]);
        assert_eq!(edited(changes, dump).unwrap(), expected);
    }

    #[test]
    fn a_dump_that_names_a_database_is_refused() {
        for text in [
            "SET a = 1;\n-- x\nCREATE DATABASE x;\n",
            "drop database x;",
            "ALTER DATABASE x SET a TO b;",
            "\\connect x\nDROP TABLE t;",
            "\\c postgres\n",
        ] {
            let error = edited(Changes::default(), text).unwrap_err();
            assert!(error.contains("names a database"), "{error}");
        }
        edited(
            Changes::default(),
            "\\restrict x\nCREATE TABLE database ();",
        )
        .unwrap();
    }
}
