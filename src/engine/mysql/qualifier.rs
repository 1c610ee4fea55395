//! The name of a dump's own database where its server has put it before other names: what the server
//! writes from its own notes is qualified where it could not look it up, such as the columns of a
//! view whose definer is gone, and the sequence of a column's default. Under another name that would
//! be the original's, or nobody's.

use std::ops::Range;

use super::super::script::{Dialect, Kind, Token, tokens};
use super::script::plain;

/// The database that a dump says it is of, above its first statement.
pub(super) fn named_above(head: &[u8]) -> Option<String> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.starts_with(b"-- Host: "))?;
    let label = b"    Database: ";
    let at = memchr::memmem::find(line, label)? + label.len();
    let name = String::from_utf8_lossy(&line[at..]).into_owned();
    (!name.is_empty()).then_some(name)
}

/// Whether a statement makes a table or a view: what else is made keeps the words of who made it.
pub(super) fn is_of_server(words: &[Token]) -> bool {
    let kinds = [
        "table",
        "view",
        "trigger",
        "procedure",
        "function",
        "event",
        "package",
        "sequence",
    ];
    let is_kind = |word: &&Token| kinds.iter().any(|kind| word.is(kind));
    words.first().is_some_and(|word| word.is("create"))
        && words
            .iter()
            .find(is_kind)
            .is_some_and(|word| word.is("table") || word.is("view"))
}

/// Where a table or a view names its own database `of`.
pub(super) fn qualifiers(head: &[u8], of: &str) -> Vec<Range<usize>> {
    if memchr::memmem::find(head, b"`.`").is_none() {
        return Vec::new();
    }
    let words = tokens(Dialect::Mysql, head, usize::MAX);
    let is_sign = |at: usize, sign: &str| words.get(at).is_some_and(|word| word.is(sign));
    let is_name = |at: usize| words.get(at).is_some_and(|word| word.kind == Kind::Name);
    let is_pair = |at: usize| is_name(at) && is_sign(at + 1, ".") && is_name(at + 2);
    let any = |word: &Token, of: &[&str]| of.iter().any(|text| word.is(text));
    let is_database = |at: usize| {
        if !is_pair(at) || (at > 0 && is_sign(at - 1, ".")) || plain(words[at].text) != of {
            return false;
        }
        // Of two names the first is a table's, unless they name a table, a function or a sequence.
        let mut before = words[..at].iter().rev();
        let of_column = is_sign(at + 3, ".") && is_name(at + 4);
        let of_sequence = at > 1
            && is_sign(at - 1, "(")
            && any(&words[at - 2], &["nextval", "lastval", "setval"]);
        let of_table = before
            .find(|word| !word.is("("))
            .is_some_and(|word| any(word, &["from", "join", "straight_join"]));
        of_column || of_sequence || of_table || is_sign(at + 3, "(")
    };
    (0..words.len())
        .filter(|at| is_database(*at))
        .map(|at| words[at].at.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dumps_own_database_is_found_before_tables_columns_functions_and_sequences() {
        let of = |text: &str| qualifiers(text.as_bytes(), "s`p").len();
        for (text, count) in [
            ("CREATE TABLE `t` (`id` int DEFAULT nextval(`s``p`.`q`))", 1),
            (
                "CREATE TABLE `t` (`id` int DEFAULT nextval(`other`.`q`))",
                0,
            ),
            ("VIEW `v` AS select `s``p`.`t`.`a` AS `a` from `t`", 1),
            ("VIEW `v` AS select `s``p`.`a` AS `a` from `t` `s``p`", 0),
            ("VIEW `v` AS select '`s``p`.`t`.`a`' AS `a` from `t`", 0),
            ("VIEW `v` AS select `s``p`.`f`(1) AS `a`", 1),
            (
                "VIEW `v` AS select 1 from ((`s``p`.`t` join `s``p`.`u`) join `o`.`t`)",
                2,
            ),
        ] {
            assert_eq!(of(text), count, "{text}");
        }
        let head = b"-- MariaDB dump 10.19\n--\n-- Host: localhost    Database: s`p\n-- --\nSET x;";
        assert_eq!(named_above(head).as_deref(), Some("s`p"));
        assert_eq!(named_above(b"INSERT INTO x"), None);
        let made = |text: &str| is_of_server(&tokens(Dialect::Mysql, text.as_bytes(), 50));
        assert!(made(
            "/*!50001 CREATE ALGORITHM=MERGE */ /*!50001 VIEW `v` AS select 1 */"
        ));
        assert!(!made(
            "CREATE DEFINER=`view`@`%` PROCEDURE `table`() create table x (a int)"
        ));
    }
}
