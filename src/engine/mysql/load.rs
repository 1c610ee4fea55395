//! How a dump gets into a database, and what is in one.

use async_trait::async_trait;

use super::super::{Contents, Load, Loader, Unit, number};
use super::Mysql;
use crate::dump::ToolError;

#[async_trait]
impl Loader for Mysql {
    fn load(&self, _: &str, _: bool) -> Result<Load, ToolError> {
        // In batch mode the client ends at the first error. DDL commits by itself here: one
        // transaction cannot be had. A dump that was made with --databases would go where its own
        // USE says.
        Ok(Load::Client {
            command: self.client().args(["--one-database", self.name()?]),
            unit: Unit::None,
        })
    }

    async fn contents(&self) -> Result<Contents, ToolError> {
        let name = self.literal()?;
        let query =
            format!("select count(*) from information_schema.schemata where schema_name = {name}");
        if number(&self.ask(&query).await?) == Some(0) {
            return Ok(Contents::Absent);
        }
        let query = format!(
            "select (select count(*) from information_schema.tables where table_schema = {name})
                  + (select count(*) from information_schema.routines where routine_schema = {name})
                  + (select count(*) from information_schema.events where event_schema = {name})"
        );
        match number(&self.ask(&query).await?) {
            Some(0) => Ok(Contents::Empty),
            Some(count) => Ok(Contents::Holds(format!(
                "{count} tables, views, routines and events"
            ))),
            None => Err(ToolError::Cannot("no count of tables".into())),
        }
    }

    async fn create(&self) -> Result<(), ToolError> {
        self.administer(&format!("create database {}", self.identifier()?))
            .await
    }

    async fn clear(&self) -> Result<(), ToolError> {
        let (identifier, name) = (self.identifier()?, self.literal()?);
        let query = format!(
            "select default_character_set_name, default_collation_name from information_schema.schemata \
             where schema_name = {name}"
        );
        let answer = self.ask(&query).await?;
        let (charset, collation) = answer
            .trim()
            .split_once('\t')
            .ok_or_else(|| ToolError::Cannot("no character set of the database".into()))?;
        let made =
            format!("create database {identifier} character set {charset} collate {collation}");
        self.administer(&format!("drop database {identifier}; {made}"))
            .await
    }

    async fn count_tables(&self) -> Result<Option<u64>, ToolError> {
        let name = self.literal()?;
        let query = format!(
            "select count(*) from information_schema.tables where table_type = 'BASE TABLE' and table_schema = {name}"
        );
        Ok(number(&self.ask(&query).await?))
    }

    async fn remove(&self) -> Result<(), ToolError> {
        self.administer(&format!("drop database if exists {}", self.identifier()?))
            .await
    }
}
