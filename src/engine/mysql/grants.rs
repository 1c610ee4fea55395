//! What the user may do, by roles, too: what it may not see, no query finds.

use std::collections::HashSet;

use super::Mysql;
use super::flavor::Flavor;
use crate::dump::ToolError;

/// With any of these a user sees a database's routines; the server then refuses to show one that
/// may not be read, and the dump tool fails.
pub(super) const ROUTINES: &[&str] = &[
    "EXECUTE",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "SHOW_ROUTINE",
    "SHOW CREATE ROUTINE",
    "SELECT ON *.*",
];

/// All that there is: `GRANT ALL`.
const ALL: &[&str] = &["SELECT", "SHOW VIEW", "TRIGGER", "EVENT", "EXECUTE"];

/// A user's grants, in the server's words.
pub(super) struct Grants(Vec<String>);

impl Mysql {
    /// The grants of the user and of its roles.
    pub(super) async fn grants(&self) -> Result<Grants, ToolError> {
        let mut answer = self.ask("show grants").await?;
        // MariaDB shows those of the current role, too.
        if Flavor::of(&self.program()) == Flavor::Mysql
            && let Ok(role) = self.ask("select current_role()").await
            && !matches!(role.trim(), "NONE" | "NULL" | "")
        {
            let role = role.trim();
            let using = format!("show grants for current_user() using {role}");
            answer = self.ask(&using).await?;
        }
        Ok(Grants(answer.lines().map(str::to_owned).collect()))
    }
}

impl Grants {
    /// The privileges on all of this database.
    pub(super) fn held(&self, database: &str) -> HashSet<String> {
        let mut held = HashSet::new();
        for line in &self.0 {
            let Some((privileges, scope)) = line
                .strip_prefix("GRANT ")
                .and_then(|line| line.split_once(" ON "))
            else {
                continue;
            };
            let is_global = scope.starts_with("*.* ");
            let is_of_it = scope.strip_prefix('`').is_some_and(|scope| {
                let pattern = scope.split_once("`.* TO ").map(|(pattern, _)| pattern);
                pattern.is_some_and(|pattern| like(&pattern.replace("``", "`"), database))
            });
            if !is_global && !is_of_it {
                continue;
            }
            for privilege in privileges.split(", ") {
                if privilege == "ALL PRIVILEGES" {
                    held.extend(ALL.iter().map(|&one| one.to_owned()));
                } else if privilege == "SELECT" && is_global {
                    held.insert("SELECT ON *.*".into());
                }
                held.insert(privilege.to_owned());
            }
        }
        held
    }
}

/// Whether a name fits a pattern of `LIKE`, as databases are named in grants.
fn like(pattern: &str, name: &str) -> bool {
    let mut pattern_rest = pattern.chars();
    match pattern_rest.next() {
        None => name.is_empty(),
        Some('%') => {
            let rest = pattern_rest.as_str();
            let mut tails = name.char_indices().map(|(at, _)| &name[at..]).chain([""]);
            tails.any(|tail| like(rest, tail))
        }
        Some(first) => {
            let mut name_rest = name.chars();
            let Some(character) = name_rest.next() else {
                return false;
            };
            let fits = match first {
                '_' => true,
                '\\' => pattern_rest.next() == Some(character),
                _ => first == character,
            };
            fits && like(pattern_rest.as_str(), name_rest.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_on_all_of_a_database_count_and_no_others() {
        let grants = Grants(
            [
                "GRANT USAGE ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*D8'",
                "GRANT SELECT, SHOW VIEW ON `sh\\_p%`.* TO `u`@`%` WITH GRANT OPTION",
                "GRANT TRIGGER ON `shop`.`t` TO `u`@`%`",
                "GRANT EVENT ON `other`.* TO `u`@`%`",
                "GRANT `r` TO `u`@`%`",
            ]
            .map(str::to_owned)
            .into(),
        );
        let held = grants.held("sh_p1");
        let expected = ["USAGE", "SELECT", "SHOW VIEW"].map(str::to_owned);
        assert_eq!(held, HashSet::from(expected));
        assert!(!grants.held("shop").contains("SELECT"), "_ is escaped");
        let all = Grants(vec!["GRANT ALL PRIVILEGES ON *.* TO `root`@`%`".into()]);
        assert!(ALL.iter().all(|one| all.held("x").contains(*one)));
        assert!(like("a%c_", "abccd") && !like("a%c_", "abcc0x") && like("%", ""));
    }
}
