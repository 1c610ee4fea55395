//! What looks after the backups that are there: [`list`], [`verify`], [`prune`] removes backups
//! that no rule keeps, [`cleanup`] what never became a backup, [`check`] tries everything without
//! dumping, [`status`] says how each database stands, [`copy`] brings a backup into a second store.
//!
//! Plain structs in, plain results out, no word printed: the command line is one caller of them.
//! What takes away is planned first, from what is in the store, and the plan is a value that can be
//! shown; only then it is carried out.

pub mod check;
pub mod cleanup;
pub mod copy;
pub mod list;
pub mod metrics;
pub mod prune;
pub mod status;
pub mod verify;
pub mod versions;

use std::sync::Arc;

use crate::catalog::{LookupError, Manifest};
use crate::cipher::Identities;
use crate::config::{self, ConfigError, Database, EngineKind, Inventory, RunSettings, Secret};
use crate::restore::{Progress, Stored};
use crate::store::retry::RetryPolicy;
use crate::store::{SharedStore, Store, StoreError};

/// Why a question about the backups has no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The inventory, or a secret.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The name leads to no backup.
    #[error("{0}")]
    Lookup(#[from] LookupError),
    /// A store cannot be read.
    #[error("store {store} ({address}): {error}")]
    Store {
        /// Its name in the inventory.
        store: String,
        /// Its address.
        address: String,
        /// What it says.
        error: StoreError,
    },
    /// There is no such backup.
    #[error("{0}")]
    NoBackup(String),
    /// What is asked for makes no sense.
    #[error("{0}")]
    Senseless(String),
}

impl UpkeepError {
    /// The failure of the store that the inventory calls `name`.
    pub(crate) fn of_store(name: &str, store: &dyn Store) -> impl FnOnce(StoreError) -> Self {
        let (store, address) = (name.to_owned(), store.address());
        move |error| Self::Store {
            store,
            address,
            error,
        }
    }
}

/// A backup, ready to be read.
pub fn stored(
    store: SharedStore,
    manifest: Manifest,
    settings: &RunSettings,
    identities: Arc<Identities>,
) -> Arc<Stored> {
    let retry = RetryPolicy::lasting(settings.retry_for);
    Arc::new(Stored {
        store,
        manifest,
        retry,
        identities,
        progress: Arc::<Progress>::default(),
    })
}

/// The database that a backup is restored into: its own of the inventory, or what `to` says.
///
/// # Errors
/// When there is none, or it is of another engine.
pub fn restore_target(
    inventory: &Inventory,
    manifest: &Manifest,
    to: Option<&str>,
    password: Option<Secret>,
) -> Result<Database, ConfigError> {
    let name = &manifest.database;
    let Some(kind) = EngineKind::named(&manifest.engine) else {
        return Err(ConfigError(format!(
            "{name}: this tapline does not know the engine {:?}",
            manifest.engine
        )));
    };
    config::target(name, kind, inventory.entry(name), to, password)
}
