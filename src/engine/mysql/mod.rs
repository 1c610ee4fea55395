//! MariaDB and MySQL: `mariadb-dump` or `mysqldump`, whichever is there.
//!
//! Whom to connect to is said in arguments; the password is in an option file that is a memfd
//! (<https://mariadb.com/kb/en/configuring-mariadb-with-option-files/>).
//!
//! | file | what it knows |
//! |---|---|
//! | `connection` | whom to connect to, and the password |
//! | `flavor` | whether the clients are Oracle's or MariaDB's |
//! | `dump` | what dumps, and what there is to dump |
//! | `grants` | what the user may not see, and so no dump has |
//! | `properties` | what is said about a database itself |
//! | `load` | how a dump gets into a database |
//! | `script`, `qualifier`, `wanted` | what of it is changed or left out |
//! | `beside`, `switch` | the database beside the target, and how its content takes the place |

mod beside;
mod connection;
mod dump;
mod flavor;
mod grants;
mod load;
mod properties;
mod qualifier;
mod script;
mod switch;
mod wanted;

use std::sync::{Arc, OnceLock};

use super::Access;
use super::session::Interview;
use crate::config::{Database, Selection};
use crate::dump::ToolError;

pub(super) struct Mysql {
    pub(super) database: Database,
    pub(super) access: Access,
    /// The events of a dump that has been loaded which are to run.
    pub(super) events: script::Events,
    /// Whether the history of tables is dumped, once that has been found out.
    history: Arc<OnceLock<bool>>,
    /// Why no dump would end, once that has been found out.
    endless: Arc<OnceLock<String>>,
    /// Where the server is asked, when that is in one session.
    interview: Option<Interview>,
    /// The database whose place this one takes, as an identifier.
    home: Option<String>,
}

impl Mysql {
    pub(super) fn new(database: Database, access: Access) -> Self {
        Self {
            database,
            access,
            events: script::Events::default(),
            history: Arc::default(),
            endless: Arc::default(),
            interview: None,
            home: None,
        }
    }

    /// The same, for many questions.
    fn in_one_session(&self) -> Self {
        Self {
            history: self.history.clone(),
            endless: self.endless.clone(),
            interview: Some(Interview::default()),
            ..Self::new(self.database.clone(), self.access.clone())
        }
    }

    fn globals(&self) -> bool {
        self.database.database == Selection::Globals
    }

    fn name(&self) -> Result<&str, ToolError> {
        match &self.database.database {
            Selection::One(name) => Ok(name),
            _ => Err(ToolError::Cannot(
                "this entry stands for many databases".into(),
            )),
        }
    }

    /// The name as an identifier.
    fn identifier(&self) -> Result<String, ToolError> {
        Ok(format!("`{}`", self.name()?.replace('`', "``")))
    }

    /// The name as a string.
    fn literal(&self) -> Result<String, ToolError> {
        Ok(text(self.name()?))
    }
}

/// Text as an expression.
fn text(text: &str) -> String {
    format!(
        "convert(x'{}' using utf8mb4)",
        crate::archive::hex(text.as_bytes())
    )
}
