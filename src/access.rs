//! The inventory's stores opened, and an entry's secrets resolved: what every command begins with.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::config::{
    ConfigError, Database, Inventory, RunSettings, Secret, SignatureSettings, StoreKeySource,
    StoreSettings,
};
use crate::engine::Access;
use crate::signature::Signer;
use crate::store::SharedStore;
use crate::store::folder::FolderStore;
use crate::store::pace::Pace;
use crate::store::retry::{PatientStore, RetryPolicy};
use crate::store::s3::{KeySource, S3Store};

/// A store that is open, by its kind.
#[derive(Clone)]
pub enum OpenStore {
    /// A bucket.
    S3(Arc<S3Store>),
    /// A folder.
    Folder(Arc<FolderStore>),
}

impl OpenStore {
    /// The store, whatever its kind.
    pub fn shared(&self) -> SharedStore {
        match self {
            Self::S3(store) => store.clone(),
            Self::Folder(store) => store.clone(),
        }
    }
}

/// Opens the inventory's stores, credentials resolved.
///
/// # Errors
/// When a secret is missing.
pub async fn open_stores(inventory: &Inventory) -> Result<HashMap<String, OpenStore>, ConfigError> {
    let mut stores = HashMap::new();
    let pace = inventory.run.max_upload_rate.map(Pace::new);
    for (name, settings) in &inventory.stores {
        let opened = open_store(settings, &inventory.run, pace.clone()).await?;
        stores.insert(name.clone(), opened);
    }
    Ok(stores)
}

/// `pace` is what all stores keep to together.
async fn open_store(
    settings: &StoreSettings,
    run: &RunSettings,
    pace: Option<Arc<Pace>>,
) -> Result<OpenStore, ConfigError> {
    let (s3, keys) = match settings {
        StoreSettings::S3 { s3, keys } => (s3, keys),
        StoreSettings::Folder(folder) => {
            let store = FolderStore::new(folder.clone()).paced(pace);
            return Ok(OpenStore::Folder(Arc::new(store)));
        }
    };
    let mut source = None;
    if let Some(keys) = keys {
        let from = StoreKeySource {
            keys: keys.clone(),
            limit: run.connect_timeout,
        };
        // What is missing is said now, and not by the first request.
        from.access_key().await.map_err(ConfigError)?;
        source = Some(Arc::new(from) as Arc<dyn KeySource>);
    }
    // Some 20 KB, which every future above it would carry.
    let opened = Box::pin(S3Store::open(s3, source)).await;
    opened
        .map(|store| OpenStore::S3(Arc::new(store.paced(pace))))
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
    let pace = inventory.run.max_upload_rate.map(Pace::new);
    for (name, settings) in inventory
        .stores
        .iter()
        .filter(|(name, _)| only.is_none_or(|only| only == *name))
    {
        let store = open_store(settings, &inventory.run, pace.clone()).await?;
        let patient = PatientStore::new(
            store.shared(),
            RetryPolicy::lasting(inventory.run.retry_for),
            Arc::new(|| ()),
        );
        stores.insert(name.clone(), Arc::new(patient) as SharedStore);
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

/// The key that signs manifests, if there is one.
///
/// # Errors
/// When it is missing, or is none.
pub async fn signer(
    settings: &SignatureSettings,
    limit: Duration,
) -> Result<Option<Signer>, ConfigError> {
    let Some(secret) = &settings.sign_with else {
        return Ok(None);
    };
    let signer = Signer::new(secret.resolve(limit).await?);
    let signer = signer.map_err(|why| ConfigError(format!("{}: {why}", secret.place)))?;
    Ok(Some(signer))
}
