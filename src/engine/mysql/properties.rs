//! What is said about a database itself: read for the manifest, and said again of one that is made.

use super::super::unhex;
use super::Mysql;
use crate::catalog::{MysqlProperties, Properties};
use crate::dump::ToolError;

impl Mysql {
    /// What is said about this database.
    pub(super) async fn said(&self) -> Result<MysqlProperties, ToolError> {
        let name = self.literal()?;
        // Comments came with MariaDB 10.5; MySQL has none.
        let has_comment = "select count(*) from information_schema.columns
            where table_schema = 'information_schema' and table_name = 'SCHEMATA'
              and column_name = 'SCHEMA_COMMENT'";
        let comment = match self.ask(has_comment).await?.trim() {
            "0" => "''",
            _ => "hex(schema_comment)",
        };
        let query = format!(
            "select default_character_set_name, default_collation_name, {comment}
             from information_schema.schemata where schema_name = {name}"
        );
        let answer = self.ask(&query).await?;
        let mut fields = answer.trim_end_matches('\n').split('\t');
        let (Some(character_set), Some(collation)) = (fields.next(), fields.next()) else {
            return Err(ToolError::Cannot("no character set of the database".into()));
        };
        Ok(MysqlProperties {
            character_set: character_set.into(),
            collation: collation.into(),
            comment: fields
                .next()
                .and_then(unhex)
                .filter(|text| !text.is_empty()),
        })
    }

    /// How a database is made as this one was.
    pub(super) async fn like(&self) -> Result<String, ToolError> {
        Ok(self.said().await?.made_as())
    }
}

impl MysqlProperties {
    /// As `CREATE DATABASE` wants it.
    pub(super) fn made_as(&self) -> String {
        // Names of the server's own; whatever else stands there in a manifest is none.
        let word = |name: &str| -> String {
            let of_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
            name.chars().filter(of_name).collect()
        };
        let (character_set, collation) = (word(&self.character_set), word(&self.collation));
        let comment = self.comment.as_ref().map(|comment| {
            let comment = comment.replace('\\', r"\\").replace('\'', r"\'");
            // Only servers that have comments have given one.
            format!(" /*M!100500 comment '{}' */", comment.replace("*/", "* /"))
        });
        format!(
            " character set {character_set} collate {collation}{}",
            comment.unwrap_or_default()
        )
    }
}

/// How a database is made of which a backup says this.
pub(super) fn made_as(said: Option<&Properties>) -> String {
    let said = said.and_then(|said| said.mysql.as_ref());
    said.map(MysqlProperties::made_as).unwrap_or_default()
}

/// What a person does who cannot have a database made as it was.
pub(super) fn refused(clause: &str, error: ToolError) -> ToolError {
    // Unknown character set, unknown collation.
    let unknown = ["ERROR 1115 ", "ERROR 1273 ", "ERROR 1253 "];
    if !unknown.iter().any(|code| error.to_string().contains(code)) {
        return error;
    }
    ToolError::Cannot(format!(
        "the database cannot be made as it was ({}): {error}\nnothing was done; make it with what \
         this server has, and restore again: a database that is there keeps what is said about it",
        clause.trim()
    ))
}
