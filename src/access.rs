//! The inventory's stores opened, and an entry's secrets resolved: what every command begins with.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::config::{
    ConfigError, Database, Inventory, RunSettings, Secret, StoreKeySource, StoreSettings,
};
use crate::engine::Access;
use crate::store::SharedStore;
use crate::store::retry::{RetryPolicy, Retrying};
use crate::store::s3::{KeySource, S3Store};

/// Opens the inventory's stores, credentials resolved.
///
/// # Errors
/// When a secret is missing.
pub async fn open_stores(
    inventory: &Inventory,
) -> Result<HashMap<String, Arc<S3Store>>, ConfigError> {
    let mut stores = HashMap::new();
    for (name, settings) in &inventory.stores {
        stores.insert(
            name.clone(),
            Arc::new(open_store(settings, inventory.run.connect_timeout).await?),
        );
    }
    Ok(stores)
}

async fn open_store(settings: &StoreSettings, limit: Duration) -> Result<S3Store, ConfigError> {
    let mut keys = None;
    if let Some(from) = &settings.keys {
        let source = StoreKeySource {
            keys: from.clone(),
            limit,
        };
        // What is missing is said now, and not by the first request.
        source.access_key().await.map_err(ConfigError)?;
        keys = Some(Arc::new(source) as Arc<dyn KeySource>);
    }
    // Some 20 KB, which every future above it would carry.
    Box::pin(S3Store::open(&settings.s3, keys))
        .await
        .map_err(|error| ConfigError(error.to_string()))
}

/// Opens the inventory's stores, or only the one called `only`, for commands other than `backup`:
/// what fails for a passing reason is tried again for `run.retry_for`.
///
/// # Errors
/// When a secret is missing, or there is no such store.
pub async fn open_patient_stores(
    inventory: &Inventory,
    only: Option<&str>,
) -> Result<BTreeMap<String, SharedStore>, ConfigError> {
    if let Some(only) = only.filter(|only| !inventory.stores.contains_key(*only)) {
        let known: Vec<&str> = inventory.stores.keys().map(String::as_str).collect();
        let path = inventory.path.display();
        return Err(ConfigError(format!(
            "{path} has no store called {only:?}; it has {}",
            known.join(", ")
        )));
    }
    let mut stores = BTreeMap::new();
    for (name, settings) in inventory
        .stores
        .iter()
        .filter(|(name, _)| only.is_none_or(|only| only == *name))
    {
        let store = open_store(settings, inventory.run.connect_timeout).await?;
        let retrying = Retrying::new(
            Arc::new(store),
            RetryPolicy::lasting(inventory.run.retry_for),
            Arc::new(|| ()),
        );
        stores.insert(name.clone(), Arc::new(retrying) as SharedStore);
    }
    Ok(stores)
}

/// Resolves an entry's secrets.
///
/// # Errors
/// When one is missing.
pub async fn access(
    database: &Database,
    settings: &RunSettings,
    tapline: PathBuf,
) -> Result<Access, ConfigError> {
    let timeout = settings.connect_timeout;
    let resolve = async |secret: &Secret| secret.resolve(timeout).await;
    let password: Option<SecretString> = match &database.password {
        Some(secret) => Some(resolve(secret).await?),
        None => None,
    };
    let mut env = Vec::new();
    for (name, secret) in &database.env {
        env.push((name.clone(), resolve(secret).await?));
    }
    Ok(Access {
        password,
        env,
        tapline,
        timeout,
    })
}
