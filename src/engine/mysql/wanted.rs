//! What of a dump is wanted: one table, definitions alone, rows alone.

use super::super::load::Part;
use super::super::script::Token;
use super::script::plain;

/// What is wanted, and whether it was there.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Only this table.
    pub(super) table: Option<String>,
    /// Definitions, rows, or both.
    pub(super) part: Part,
    found: bool,
}

impl Wanted {
    pub(super) fn new(table: Option<String>, part: Part) -> Self {
        Self {
            table,
            part,
            found: false,
        }
    }

    /// Whether a statement is a part of that.
    pub(super) fn wants(&mut self, words: &[Token]) -> bool {
        let Some(first) = words.first() else {
            return true;
        };
        let is = |any: &[&str]| any.iter().any(|word| first.is(word));
        if is(&["set", "delimiter"]) {
            return true;
        }
        let rows = is(&["insert", "replace"]);
        // The value of a sequence.
        let value = is(&["do", "select"]);
        // Where sessions do not commit by themselves; rows alone are one transaction.
        if is(&["commit", "start"]) {
            return self.part.has_definitions();
        }
        let part = if rows || value {
            self.part.has_rows()
        } else {
            self.part.has_definitions()
        };
        let Some(table) = &self.table else {
            return part;
        };
        let of = if rows {
            behind(words, &["insert", "into", "ignore", "replace"])
        } else {
            defined(words)
        };
        let is_of_it = of.is_some_and(|of| of == *table);
        self.found |= is_of_it && (rows || is(&["create"]));
        part && is_of_it
    }

    /// What is wrong when all has gone by.
    pub(super) fn missing(&self) -> Result<(), String> {
        match &self.table {
            Some(table) if !self.found => Err(format!(
                "the dump holds no table `{table}`: nothing was done"
            )),
            _ => Ok(()),
        }
    }
}

/// The name behind these words, the last of its parts.
fn behind(words: &[Token], skip: &[&str]) -> Option<String> {
    let at = words
        .iter()
        .position(|word| !skip.iter().any(|skip| word.is(skip)))?;
    let mut name = words.get(at).filter(|word| word.names())?;
    if let [_, dot, second, ..] = &words[at..]
        && dot.is(".")
        && second.names()
    {
        name = second;
    }
    Some(plain(name.text))
}

/// The table that a statement defines, or defines something of.
fn defined(words: &[Token]) -> Option<String> {
    let front = words.iter().take(12);
    let what = front
        .clone()
        .position(|word| word.is("table") || word.is("trigger"))?;
    if words[what].is("table") {
        return behind(&words[what + 1..], &["if", "not", "exists"]);
    }
    let on = words.iter().position(|word| word.is("on"))?;
    behind(&words[on + 1..], &[])
}

#[cfg(test)]
mod tests {
    use super::super::super::script::{Dialect, tokens};
    use super::*;

    #[test]
    fn one_table_is_its_definition_its_rows_and_its_triggers() {
        let mut one = Wanted::new(Some("t`x".into()), Part::All);
        let mut wants = |text: &str| one.wants(&tokens(Dialect::Mysql, text.as_bytes(), 64));
        for text in [
            "DROP TABLE IF EXISTS `t``x`;",
            "CREATE TABLE `t``x` (`a` int);",
            "/*!40000 ALTER TABLE `t``x` DISABLE KEYS */;",
            "INSERT INTO `t``x` VALUES (1);",
            "COMMIT;",
            "/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ /*!50003 TRIGGER `q` BEFORE INSERT ON `t``x` FOR EACH ROW set @a = 1 */;",
            "/*!40101 SET NAMES utf8mb4 */;",
        ] {
            assert!(wants(text), "{text}");
        }
        for text in [
            "DROP TABLE IF EXISTS `t`;",
            "INSERT INTO `t` VALUES ('`t``x`');",
            "CREATE PROCEDURE p() insert into `t``x` values (1);",
            "/*!50001 CREATE VIEW `v` AS SELECT 1 AS `table` */;",
            "/*!50003 CREATE TRIGGER `q` BEFORE INSERT ON `t` FOR EACH ROW insert into `t``x` values (1) */;",
        ] {
            assert!(!wants(text), "{text}");
        }
        assert!(one.missing().is_ok());
        let mut rows = Wanted::new(None, Part::Rows);
        let mut wants = |text: &str| rows.wants(&tokens(Dialect::Mysql, text.as_bytes(), 64));
        assert!(wants("INSERT INTO `t` VALUES (1);") && !wants("COMMIT;"));
        assert!(!wants("CREATE TABLE t (a int);"));
        assert!(Wanted::new(Some("u".into()), Part::All).missing().is_err());
    }
}
