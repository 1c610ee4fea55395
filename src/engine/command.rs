//! Any command that writes a dump to its stdout.

use async_trait::async_trait;

use super::load::{ClientLoad, Destination, Load, LoadOptions, Loader, Unit};
use super::{Access, Engine, Survey, file_stem, local_identity};
use crate::catalog::SourceIdentity;
use crate::config::Database;
use crate::dump::{DumpShape, ToolCommand, ToolError};

pub(super) struct Command {
    pub(super) database: Database,
    pub(super) access: Access,
}

impl Command {
    fn tool(&self, words: &[String]) -> Option<ToolCommand> {
        let (program, args) = words.split_first()?;
        let mut command = ToolCommand::new(program).args(args.iter().cloned());
        command.secret_env.clone_from(&self.access.env);
        Some(command)
    }
}

#[async_trait]
impl Engine for Command {
    fn dump_command(&self) -> Result<ToolCommand, ToolError> {
        self.tool(&self.database.command)
            .ok_or_else(|| ToolError::Cannot("an empty command".to_owned()))
    }

    fn file_name(&self) -> String {
        format!("{}.dump", file_stem(&self.database.name))
    }

    fn dump_shape(&self) -> DumpShape {
        DumpShape {
            may_be_empty: self.database.allow_empty,
            ..DumpShape::default()
        }
    }

    async fn version(&self) -> Result<String, ToolError> {
        Ok(self.database.command.first().cloned().unwrap_or_default())
    }

    async fn survey(&self, size: Option<u64>) -> Survey {
        Survey::of(self, size).await
    }

    async fn identity(&self) -> SourceIdentity {
        let program = self.database.command.first().map_or("", String::as_str);
        local_identity(&self.database, program)
    }

    async fn check_login(&self) -> Result<(), ToolError> {
        let program = self.database.command.first().map_or("", String::as_str);
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let there = if program.contains('/') {
            std::path::Path::new(program).is_file()
        } else {
            std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
        };
        if there {
            Ok(())
        } else {
            Err(ToolError::Cannot(format!(
                "{program:?} is neither a file nor in PATH"
            )))
        }
    }
}

#[async_trait]
impl Loader for Command {
    async fn load(
        &self,
        _: &str,
        _: Destination,
        options: &LoadOptions,
    ) -> Result<Load, ToolError> {
        options.only(&[])?;
        let client = self.tool(&self.database.restore).ok_or_else(|| {
            let place = &self.database.place;
            ToolError::Cannot(format!(
                "{place}: restore is missing; add restore = [\"program\", \"argument\"], or use \
                 --stdout or --output FILE"
            ))
        })?;
        Ok(Load::Client(ClientLoad {
            client,
            converter: None,
            prelude: String::new(),
            rules: None,
            unit: Unit::None,
        }))
    }
}
