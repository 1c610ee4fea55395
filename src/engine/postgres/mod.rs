//! PostgreSQL: `pg_dump`, and `pg_dumpall --globals-only`.
//!
//! The password reaches libpq through a password file that is a memfd
//! (<https://www.postgresql.org/docs/current/libpq-pgpass.html>: a regular file, mode 0600).
//!
//! | file | what it knows |
//! |---|---|
//! | `connection` | whom to connect to, and the password |
//! | `programs` | which of the installed clients to run |
//! | `dump` | what dumps, and what there is to dump |
//! | `parallel`, `split` | a dump by several sessions, and what each of them copies |
//! | `properties` | what is said about a database itself |
//! | `load` | how a dump gets into a database |
//! | `script`, `wanted`, `post_data` | what of it is changed, left out, or done side by side |
//! | `beside` | the database that takes the target's place |

mod beside;
mod connection;
mod dump;
mod load;
mod parallel;
mod post_data;
mod programs;
mod properties;
mod script;
mod split;
mod wanted;

use std::sync::Arc;

use connection::MAINTENANCE;
pub use post_data::{Task, steps};
use programs::ServerVersion;

use super::Access;
use super::session::Interview;
use crate::config::{Database, Selection};

pub(super) struct Postgres {
    pub(super) database: Database,
    pub(super) access: Access,
    server: Arc<ServerVersion>,
    /// Where the database is asked, when that is in one session.
    interview: Option<Interview>,
}

impl Postgres {
    pub(super) fn new(database: Database, access: Access) -> Self {
        Self {
            database,
            access,
            server: Arc::default(),
            interview: None,
        }
    }

    /// The same, for many questions.
    fn in_one_session(&self) -> Self {
        Self {
            database: self.database.clone(),
            access: self.access.clone(),
            server: self.server.clone(),
            interview: Some(Interview::default()),
        }
    }
}

impl Postgres {
    fn globals(&self) -> bool {
        self.database.database == Selection::Globals
    }

    fn name(&self) -> &str {
        match &self.database.database {
            Selection::One(name) => name,
            _ => MAINTENANCE,
        }
    }

    fn identifier(&self) -> String {
        format!("\"{}\"", self.name().replace('"', "\"\""))
    }
}
