//! A dump that is SQL text, edited statement by statement on its way to its client.
//!
//! ```text
//! bytes ─▶ lexer: where does a statement end? ─▶ rules: keep, drop, replace ─▶ bytes
//! ```
//!
//! Restores need that for what no client option does: a setting that the server does not know, a
//! statement that would reach another database, a definer that is not there. The lexer knows
//! quotes, comments and COPY's rows as the clients do, so that nothing that is content is ever
//! taken for a statement. Memory is bounded: rules see a statement's first [`HEAD`] bytes, and what
//! is longer than that goes by.

mod cut;
mod lexer;
mod token;

use std::ops::Range;

use bytes::Bytes;

pub use cut::{Cut, Cutter};
use lexer::Lexer;
pub use token::{Kind, Token, tokens};

/// How much of a statement rules see, in bytes. What they look for stands at its front; the longest
/// that must be seen whole is an event's schedule.
pub const HEAD: usize = 64 << 10;

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As psql reads it.
    Postgres,
    /// As `mysql` and `mariadb` read it.
    Mysql,
}

/// What becomes of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it is.
    Keep,
    /// It goes, to its end.
    Drop,
    /// Its head becomes this; what follows the head stays.
    Replace(Vec<u8>),
}

/// What is to be changed in a dump.
pub trait Rules: Send {
    /// Whose SQL it is.
    fn dialect(&self) -> Dialect;

    /// Decides about a statement by its head, which is all of it when `whole`.
    ///
    /// # Errors
    /// In words, when the dump must not be loaded.
    fn decide(&mut self, head: &[u8], whole: bool) -> Result<Verdict, String>;

    /// The dump has ended: what comes after it.
    ///
    /// # Errors
    /// In words, when something that must be in it was not.
    fn end(&mut self) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }

    /// The same for another session, where a dump may be loaded by several.
    fn another(&self) -> Option<Box<dyn Rules>> {
        None
    }
}

/// Where the statements of a whole script are, each with what stands before it.
pub fn statements(dialect: Dialect, script: &[u8]) -> Vec<Range<usize>> {
    let mut lexer = Lexer::new(dialect);
    let (mut found, mut start, mut at) = (Vec::new(), 0, 0);
    while at < script.len() {
        let (length, ends) = lexer.next(&script[at..]);
        at += length;
        if ends {
            lexer.after(&script[start..at]);
            found.push(start..at);
            start = at;
        }
    }
    if start < at {
        found.push(start..at);
    }
    found
}

/// A dump's statements on their way, and the rules for them.
pub struct Script {
    rules: Box<dyn Rules>,
    lexer: Lexer,
    held: Vec<u8>,
    /// What becomes of the rest of a statement whose head has been decided about.
    rest: Option<bool>,
    /// Whether the last statement was kept: a COPY's rows go where it goes.
    kept: bool,
}

impl Script {
    /// A dump that is to be changed by `rules`.
    pub fn new(rules: Box<dyn Rules>) -> Self {
        Self {
            lexer: Lexer::new(rules.dialect()),
            rules,
            held: Vec::new(),
            rest: None,
            kept: true,
        }
    }

    /// What goes to the client instead of the dump's next bytes.
    ///
    /// # Errors
    /// See [`Rules::decide`].
    pub fn edit(&mut self, bytes: &[u8]) -> Result<Bytes, String> {
        let mut out = Vec::with_capacity(bytes.len() + HEAD);
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.held.is_empty() && self.lexer.in_rows() {
                self.rest = Some(self.kept);
            }
            let (length, ends) = self.lexer.next(rest);
            let piece;
            (piece, rest) = rest.split_at(length);
            match self.rest {
                Some(true) => out.extend_from_slice(piece),
                Some(false) => {}
                None => self.held.extend_from_slice(piece),
            }
            if self.rest.is_none() && (ends || self.held.len() >= HEAD) {
                self.settle(ends, &mut out)?;
            }
            if ends {
                self.rest = None;
            }
        }
        Ok(out.into())
    }

    /// What is left when the dump has ended.
    ///
    /// # Errors
    /// See [`Rules::decide`].
    pub fn end(&mut self) -> Result<Bytes, String> {
        let mut out = Vec::new();
        if !self.held.is_empty() {
            self.settle(true, &mut out)?;
        }
        out.extend_from_slice(&self.rules.end()?);
        Ok(out.into())
    }

    fn settle(&mut self, whole: bool, out: &mut Vec<u8>) -> Result<(), String> {
        let head = std::mem::take(&mut self.held);
        let verdict = self.rules.decide(&head, whole)?;
        self.lexer.after(&head);
        self.kept = verdict != Verdict::Drop;
        self.rest = Some(self.kept);
        match verdict {
            Verdict::Keep => out.extend_from_slice(&head),
            Verdict::Drop => {}
            Verdict::Replace(head) => out.extend_from_slice(&head),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Drops what begins with DROP, and says what each statement was.
    struct Listing(Dialect, std::sync::Arc<std::sync::Mutex<Vec<String>>>);

    impl Rules for Listing {
        fn dialect(&self) -> Dialect {
            self.0
        }

        fn decide(&mut self, head: &[u8], whole: bool) -> Result<Verdict, String> {
            let words = tokens(self.0, head, 3);
            let Some(first) = words.first() else {
                return Ok(Verdict::Keep);
            };
            let mut seen = self.1.lock().unwrap();
            seen.push(words.iter().map(Token::lossy).collect::<Vec<_>>().join(" "));
            if first.is("refuse") {
                return Err("refused".into());
            }
            assert!(whole || head.len() >= HEAD);
            Ok(if first.is("drop") {
                Verdict::Drop
            } else {
                Verdict::Keep
            })
        }
    }

    /// What comes out of a script that is fed in pieces of this length, and its statements.
    fn edited(dialect: Dialect, text: &[u8], piece: usize) -> (Vec<u8>, Vec<String>) {
        let seen = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
        let mut script = Script::new(Box::new(Listing(dialect, seen.clone())));
        let mut out = Vec::new();
        for piece in text.chunks(piece) {
            out.extend_from_slice(&script.edit(piece).unwrap());
        }
        out.extend_from_slice(&script.end().unwrap());
        let seen = seen.lock().unwrap().clone();
        (out, seen)
    }

    const POSTGRES: &str = r#"
\restrict abc
-- a comment; with 'a quote
SET x = 1;
/* nested /* ; */ ; */ DROP a;
COPY public.t (a, b) FROM stdin;
DROP not; a statement
\N	'
\.


CREATE FUNCTION f() AS $_$ begin; drop b; $x$ ; end $_$ LANGUAGE sql;
SELECT 'it''s; \', E'it\'s; \\', "odd;""name", $$;$$, a$b;
DROP c;
SELECT 1-1, 2/1;
"#;

    const MYSQL: &str = r#"/*M!999999\- enable the sandbox mode */
-- MariaDB dump 'x
/*!40101 SET NAMES utf8mb4 */;
INSERT INTO `t;` VALUES ('it\'s; \\','it''s;'),("a\";"); # drop x;
DROP TABLE a;
DELIMITER ;;
/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ /*!50003 TRIGGER t BEFORE INSERT ON x FOR EACH ROW begin drop x; end */;;
DELIMITER ;
SET sql_mode = 'NO_BACKSLASH_ESCAPES';
SELECT 'ends here \'; DROP z;
SET sql_mode = '';
SELECT 1--1, 2;
"#;

    #[test]
    fn statements_end_where_the_clients_see_an_end_wherever_the_input_is_cut() {
        let postgres = [
            "\\ restrict abc",
            "SET x =",
            "DROP a ;",
            "COPY public .",
            "CREATE FUNCTION f",
            "SELECT 'it''s; \\' ,",
            "DROP c ;",
            "SELECT 1 -",
        ];
        let mysql = [
            "SET NAMES utf8mb4",
            "INSERT INTO `t;`",
            "DROP TABLE a",
            "DELIMITER ; ;",
            "CREATE DEFINER =",
            "DELIMITER ;",
            "SET sql_mode =",
            "SELECT 'ends here \\'; DROP z;\nSET sql_mode = '",
            "DROP z ;",
            "SET sql_mode =",
            "SELECT 1 -",
        ];
        for length in (1..40).chain([1000]) {
            let (out, seen) = edited(Dialect::Postgres, POSTGRES.as_bytes(), length);
            assert_eq!(seen, postgres, "in pieces of {length}");
            let out = String::from_utf8(out).unwrap();
            assert!(out.contains("DROP not; a statement") && out.contains("drop b"));
            assert!(!out.contains("DROP a") && !out.contains("DROP c"));
            let (out, seen) = edited(Dialect::Mysql, MYSQL.as_bytes(), length);
            let plain = |seen: &[String]| {
                seen.iter()
                    .map(|text| text.split('\'').next().unwrap().to_owned())
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                plain(&seen),
                plain(&mysql.map(String::from)),
                "in pieces of {length}"
            );
            let out = String::from_utf8(out).unwrap();
            assert!(out.contains("drop x") && !out.contains("DROP z") && !out.contains("DROP T"));
        }
    }

    #[test]
    fn the_rows_of_a_copy_go_where_it_goes() {
        struct NoRows;
        impl Rules for NoRows {
            fn dialect(&self) -> Dialect {
                Dialect::Postgres
            }
            fn decide(&mut self, head: &[u8], _: bool) -> Result<Verdict, String> {
                let words = tokens(Dialect::Postgres, head, 2);
                let goes = words.get(1).is_some_and(|word| word.is("a"));
                Ok(if goes { Verdict::Drop } else { Verdict::Keep })
            }
        }
        let text = "COPY a FROM stdin;\n1\n\\.\nCOPY b FROM stdin;\n2\n\\.\nSELECT 3;";
        for length in [1, 7, 100] {
            let mut script = Script::new(Box::new(NoRows));
            let pieces = text.as_bytes().chunks(length);
            let mut out: Vec<u8> = pieces
                .flat_map(|piece| script.edit(piece).unwrap())
                .collect();
            out.extend_from_slice(&script.end().unwrap());
            let out = String::from_utf8(out).unwrap();
            assert_eq!(out.trim(), "COPY b FROM stdin;\n2\n\\.\nSELECT 3;");
        }
    }

    #[test]
    fn a_statement_that_is_longer_than_its_head_goes_by_or_goes_whole() {
        let long = "x".repeat(3 * HEAD);
        let text = format!("DROP '{long};'; SELECT '{long}';");
        let (out, seen) = edited(Dialect::Mysql, text.as_bytes(), 10_000);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!(" SELECT '{long}';")
        );
        assert_eq!(seen.len(), 2);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_not_changed_by_a_byte(
            text in "[a-z;$'\"`/*!\\\\.\\-# \n]{0,300}", piece in 1usize..50
        ) {
            let text = text.replace("drop", "").replace("refuse", "");
            for dialect in [Dialect::Postgres, Dialect::Mysql] {
                let (out, seen) = edited(dialect, text.as_bytes(), piece);
                prop_assert_eq!(&out, text.as_bytes());
                let (_, again) = edited(dialect, text.as_bytes(), 1000);
                prop_assert_eq!(seen, again);
            }
        }
    }
}
