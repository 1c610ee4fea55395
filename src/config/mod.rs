//! The inventory: what to back up, from where, to where. Plain validated structs; knows no clap.
//!
//! | file | role |
//! |---|---|
//! | `read` | from text to tables; no error has a value in it |
//! | `raw` | the tables as they are written |
//! | `exposure` | who else may read or change the files |
//! | `validate`, `entry` | from the file as written to the model, every error with file, line, key and fix |
//! | `encryption` | who can read a database's backups |
//! | `store`, `notify`, `hooks`, `serve` | the tables of these names |
//! | `schedule` | when something is due |
//! | `place` | that file: places for messages, and values of common kinds |
//! | `options` | options for dump tools that cannot be let through |
//! | `model` | the model that the rest of the program sees |
//! | `secret` | where secrets come from |
//! | `target` | where a backup is restored to, when that is elsewhere |

mod encryption;
mod entry;
mod exposure;
mod hooks;
mod model;
mod notify;
mod options;
mod place;
mod raw;
mod read;
mod schedule;
mod secret;
mod serve;
mod store;
mod target;
mod validate;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::catalog::Retention;

pub use encryption::{EncryptionSettings, LockFrom, RecipientFrom};
pub use model::*;
pub(crate) use notify::address_flaw;
pub use place::{LONGEST, MOST_MEMORY};
pub use schedule::Schedule;
pub use secret::StoreKeySource;
pub use target::target;

/// A commented inventory to start from; `tapline init` writes it.
pub const TEMPLATE: &str = include_str!("template.toml");

/// What is wrong with an inventory, or with a secret that it names: place, problem and fix.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Database {
    /// Whether its backups go to this store.
    pub fn goes_to(&self, store: &str) -> bool {
        self.stores.iter().any(|own| own == store)
    }

    /// Dumps it by so many sessions at once, where it can be.
    pub fn ask_for_parallel(&mut self, sessions: usize) {
        let can = self.engine == EngineKind::Postgres
            && self.dump_format == DumpFormat::Plain
            && self.database != Selection::Globals
            && options::unfit_for_parallel(&self.options).is_none();
        if can {
            self.parallel = sessions;
        }
    }
}

impl Inventory {
    /// Reads and validates an inventory file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_text(path).map_err(|error| {
            ConfigError(format!(
                "{}: {error}; `tapline init` writes one to start from",
                path.display()
            ))
        })?;
        let mut inventory = Self::parse(path, &text)?;
        inventory.warnings.extend(exposure::warnings(&inventory));
        Ok(inventory)
    }

    /// Validates the text of an inventory; `path` is for messages and for what is relative to it.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let raw = read::tables(path, text)?;
        validate::inventory(path, text, &raw)
    }

    /// An inventory of one store and no database, for whoever has a bucket and nothing else. Its
    /// credentials come by the standard AWS chain.
    ///
    /// # Errors
    /// When `url` is not of a bucket and prefix.
    pub fn of_store(
        url: &str,
        endpoint: Option<&str>,
        region: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let given = [
            ("url", Some(url)),
            ("endpoint", endpoint),
            ("region", region),
        ];
        let mut text = "[stores.bucket]\n".to_owned();
        for (key, value) in given {
            if let Some(value) = value {
                text += &format!("{key} = {}\n", toml::Value::from(value));
            }
        }
        Self::parse(Path::new("--from"), &text)
    }

    /// The databases called `names`, all of them when there are none. `NAME/DATABASE` names one of
    /// those that a `database = "*"` stands for, and selects its entry.
    ///
    /// # Errors
    /// When the inventory has no such database.
    pub fn select(&self, names: &[String]) -> Result<Vec<&Database>, ConfigError> {
        if self.databases.is_empty() {
            let path = self.path.display();
            return Err(ConfigError(format!(
                "{path}: databases: there is none; add a table [databases.NAME]"
            )));
        }
        if let Some(name) = names
            .iter()
            .find(|name| !self.databases.iter().any(|database| database.covers(name)))
        {
            let known: Vec<&str> = self
                .databases
                .iter()
                .map(|database| database.name.as_str())
                .collect();
            let path = self.path.display();
            return Err(ConfigError(format!(
                "{path} has no database called {name:?}; it has {}",
                known.join(", ")
            )));
        }
        let selected = |database: &&Database| {
            names.is_empty() || names.iter().any(|name| database.covers(name))
        };
        Ok(self.databases.iter().filter(selected).collect())
    }

    /// Whether `name` stands for all databases of a server.
    pub fn is_fan_out(&self, name: &str) -> bool {
        let mut entries = self.databases.iter();
        entries.any(|entry| entry.name == name && matches!(entry.database, Selection::All { .. }))
    }

    /// Whether a person who says `name` means `database`: it is its name, or that of the entry that
    /// stands for it.
    pub fn means(&self, name: &str, database: &str) -> bool {
        let mut entries = self.databases.iter();
        name == database || entries.any(|entry| entry.name == name && entry.covers(database))
    }

    /// The error of whoever needs a store where there is none.
    pub(crate) fn without_stores(&self) -> ConfigError {
        let path = self.path.display();
        ConfigError(format!(
            "{path}: stores: there is none; add a table [stores.NAME] with url = \"s3://BUCKET/PREFIX\" \
             or \"file:///FOLDER\""
        ))
    }

    /// The entry of the database called `name`: its own, or the `database = "*"` that stands for
    /// it.
    pub fn entry(&self, name: &str) -> Option<&Database> {
        let own = self.databases.iter().find(|database| database.name == name);
        own.or_else(|| self.databases.iter().find(|database| database.covers(name)))
    }

    /// Which of an entry's backups stay in a store: by the store's own rules, if it has any.
    pub fn retention(&self, entry: &Database, store: &str) -> Retention {
        let own = self.store_rules.get(store);
        own.copied().unwrap_or(entry.retention)
    }

    /// The stores that a database's backups go to.
    pub fn stores_of(&self, name: &str) -> &[String] {
        self.entry(name).map_or(&[], |entry| &entry.stores)
    }

    /// The fingerprints of what a database was before its server's identity changed.
    pub fn formerly(&self, name: &str) -> &[String] {
        self.entry(name).map_or(&[], |entry| &entry.formerly)
    }
}

impl Database {
    /// Whether `name` is this entry's, or of one of the databases that its `database = "*"` stands
    /// for.
    pub fn covers(&self, name: &str) -> bool {
        self.name == name
            || matches!(self.database, Selection::All { .. })
                && name
                    .strip_prefix(&self.name)
                    .is_some_and(|rest| rest.starts_with('/'))
    }
}

/// The largest inventory, in bytes: some 100,000 databases. What is larger is a dump, or /dev/zero.
const MOST_TEXT: u64 = 64 << 20;

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(MOST_TEXT + 1)
        .read_to_string(&mut text)? as u64;
    if read > MOST_TEXT {
        return Err(std::io::Error::other("it has more than 64 MiB"));
    }
    Ok(text)
}
