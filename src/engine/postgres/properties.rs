//! What is said about a database itself: read for the manifest, and said again of one that is made.

use super::super::load::LoadOptions;
use super::Postgres;
use super::load::{literal, quoted};
use crate::catalog::{PostgresProperties, Properties};
use crate::dump::ToolError;

/// Columns that only some versions have are asked for as JSON: locale providers came with 15, ICU
/// rules with 16, and the locale's column got another name in 17.
const READ: &str = "\
select jsonb_build_object(
  'encoding', pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype,
  'provider', case j->>'datlocprovider' when 'i' then 'icu' when 'b' then 'builtin'
    when 'c' then 'libc' end,
  'locale', coalesce(j->>'datlocale', j->>'daticulocale'), 'icu_rules', j->>'daticurules',
  'tablespace', (select spcname from pg_tablespace t where t.oid = dattablespace),
  'owner', pg_get_userbyid(datdba), 'comment', shobj_description(oid, 'pg_database'),
  'connection_limit', nullif(datconnlimit, -1), 'is_template', datistemplate,
  'grants', case when datacl is not null then (
    select coalesce(jsonb_agg(jsonb_build_object('privilege', privilege_type,
      'to', case grantee when 0 then null else pg_get_userbyid(grantee) end,
      'grantable', is_grantable)), '[]') from aclexplode(datacl)) end,
  'settings', (
    select coalesce(jsonb_agg(jsonb_build_object('name', split_part(pair, '=', 1),
      'role', case setrole when 0 then null else pg_get_userbyid(setrole) end,
      'value', substr(pair, strpos(pair, '=') + 1))), '[]')
    from pg_db_role_setting, unnest(setconfig) pair where setdatabase = d.oid))
from (select d.*, to_jsonb(d) as j from pg_database d) d where datname = ";

/// Settings that are lists of names, which the server keeps quoted; as `pg_dump`'s
/// `variable_is_guc_list_quote`.
const LISTS: &[&str] = &[
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// The query for what is said about the database of this name, an expression.
pub(super) fn query(name: &str) -> String {
    format!("{READ}{name}")
}

/// What was answered to it.
pub(super) fn parse(answer: &str) -> Result<PostgresProperties, ToolError> {
    let wrong = |error| ToolError::answer("psql", format!("no properties of a database: {error}"));
    serde_json::from_str(answer).map_err(wrong)
}

impl Postgres {
    pub(super) async fn said(&self) -> Result<Option<Properties>, ToolError> {
        if self.globals() {
            return Ok(None);
        }
        let answer = self.ask(self.name(), &query("current_database()")).await?;
        Ok(Some(parse(&answer)?.into()))
    }

    /// Says about a database that has been made what its backup says: what this server or role
    /// does not allow is named, with the statement that does it.
    pub(super) async fn say_again(
        &self,
        said: &PostgresProperties,
        made: &str,
        options: &LoadOptions,
    ) {
        for statement in said.statements(made, options) {
            if let Err(error) = self.administer(&[&statement]).await {
                let statement = statement.replace(&quoted(made), &quoted(self.name()));
                tracing::warn!(
                    "of the database itself this could not be restored: {statement}; (a role that \
                     is missing comes with the globals): {error}"
                );
            }
        }
        if !said.withheld.is_empty() {
            tracing::warn!(
                "settings of the database that look like secrets are in no backup, set them \
                 again: {}",
                said.withheld.join(", ")
            );
        }
    }
}

impl PostgresProperties {
    /// What cannot be changed afterwards, as `CREATE DATABASE` wants it.
    pub(super) fn made_as(&self) -> String {
        let mut clause = format!(
            " encoding {} lc_collate {} lc_ctype {}",
            text(&self.encoding),
            text(&self.collate),
            text(&self.ctype)
        );
        let locale = self.locale.as_deref().map(text).unwrap_or_default();
        clause += &match self.provider.as_deref() {
            Some(provider @ "icu") => format!(" locale_provider {provider} icu_locale {locale}"),
            Some(provider @ "builtin") => {
                format!(" locale_provider {provider} builtin_locale {locale}")
            }
            Some(_) => " locale_provider libc".to_owned(),
            None => String::new(),
        };
        if let Some(rules) = &self.icu_rules {
            clause += &format!(" icu_rules {}", text(rules));
        }
        clause
    }

    /// What differs from another database and cannot be changed, in words.
    pub(super) fn differs(&self, other: &Self) -> Option<String> {
        let words = |said: &Self| {
            let locale = said.locale.as_ref().unwrap_or(&said.collate);
            format!("{}, locale {locale:?}", said.encoding)
        };
        let (one, another) = (words(self), words(other));
        (one != another).then(|| format!("{one} instead of {another}"))
    }

    /// The statements that say about the database of this name whose it is, who may use it, and how
    /// its sessions are set.
    pub(super) fn statements(&self, name: &str, options: &LoadOptions) -> Vec<String> {
        let name = quoted(name);
        let mut all = Vec::new();
        let grants = self.grants.as_ref().filter(|_| !options.no_privileges);
        if let Some(grants) = grants {
            all.push(format!("revoke all on database {name} from public"));
            all.extend(grants.iter().map(|grant| {
                let to = grant.to.as_deref().map_or("public".into(), quoted);
                let option = if grant.grantable {
                    " with grant option"
                } else {
                    ""
                };
                // A word of the server's own, and still not to be taken for more than a word.
                let word = |c: &char| c.is_ascii_alphabetic() || *c == ' ';
                let privilege: String = grant.privilege.chars().filter(word).collect();
                format!("grant {privilege} on database {name} to {to}{option}")
            }));
        }
        all.extend(self.settings.iter().map(|setting| {
            let value = if LISTS.contains(&setting.name.as_str()) {
                list(&setting.value)
            } else {
                text(&setting.value)
            };
            let whose = match &setting.role {
                Some(role) => format!("role {} in database {name}", quoted(role)),
                None => format!("database {name}"),
            };
            format!("alter {whose} set {} to {value}", quoted(&setting.name))
        }));
        if !options.no_owner && !self.owner.is_empty() {
            all.push(format!(
                "alter database {name} owner to {}",
                quoted(&self.owner)
            ));
        }
        all
    }

    /// The statements that would keep a database from being replaced, or take its mark: last ones.
    pub(super) fn last_statements(&self, name: &str) -> Vec<String> {
        let name = quoted(name);
        let limit = self.connection_limit.unwrap_or(-1);
        let comment = self.comment.as_deref().map_or("null".into(), text);
        vec![
            format!("alter database {name} connection limit {limit}"),
            format!("alter database {name} is_template {}", self.is_template),
            format!("comment on database {name} is {comment}"),
        ]
    }
}

/// Text as a string, whatever is in it and however the server reads strings.
pub(super) fn text(value: &str) -> String {
    let doubled = value.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', r"\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// A list of names as strings: `"A b", public` is `'A b', 'public'`.
fn list(value: &str) -> String {
    let (mut names, mut name, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                name.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => names.push(std::mem::take(&mut name)),
            ' ' if !quoted => {}
            _ => name.push(character),
        }
    }
    names.push(name);
    let names: Vec<String> = names.iter().map(|name| text(name)).collect();
    names.join(", ")
}

/// What a person does who cannot have a database made as it was.
pub(super) fn refused(said: &PostgresProperties, name: &str, error: &ToolError) -> ToolError {
    let clause = said.made_as();
    ToolError::Cannot(format!(
        "the database cannot be made as it was ({}): {error}\nnothing was done; make it with what \
         this server has (CREATE DATABASE {} TEMPLATE template0 …) and restore again: a database \
         that is there keeps what is said about it",
        clause.trim(),
        quoted(name)
    ))
}

/// The database's own tablespace, where the server has it.
pub(super) fn tablespace(said: &PostgresProperties) -> String {
    let name = &said.tablespace;
    format!(
        "select count(*) from pg_tablespace where spcname = {}",
        literal(name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_the_server_reads_them() {
        assert_eq!(text(r"it's \ x"), r"E'it''s \\ x'");
        assert_eq!(text("it's"), "'it''s'");
        assert_eq!(
            list(r#""A b", public,"x""y", "$user""#),
            r#"'A b', 'public', 'x"y', '$user'"#
        );
        assert_eq!(list(r#""""#), "''");
    }

    #[test]
    fn nothing_in_a_manifest_becomes_a_statement_of_its_own() {
        let said: PostgresProperties = serde_json::from_str(
            r#"{"owner": "x\"; drop table t; --", "grants": [{"to": null, "privilege":
            "connect; drop table t", "grantable": false}], "comment": "'; drop table t"}"#,
        )
        .unwrap();
        let mut all = said.statements("d", &LoadOptions::default());
        all.extend(said.last_statements("d"));
        for statement in all {
            let words = super::super::super::script::tokens(
                super::super::super::script::Dialect::Postgres,
                statement.as_bytes(),
                50,
            );
            assert!(!words.iter().any(|word| word.is(";")), "{statement}");
        }
    }
}
