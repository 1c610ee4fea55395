//! The backups in the stores.

use std::collections::BTreeMap;

use serde::Serialize;

use super::UpkeepError;
use crate::catalog::{self, BackupId, Manifest};
use crate::config::Inventory;
use crate::store::SharedStore;

/// All backups that were asked for, by database and id. Serialised as `list --json`, version 1.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// Version of the format.
    pub version: u32,
    /// The backups.
    pub backups: Vec<Listed>,
}

/// One backup.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Address of its store.
    pub store: String,
    /// What the inventory calls that.
    pub store_name: String,
    /// Name of the database.
    pub database: String,
    /// Which one.
    pub backup_id: BackupId,
    /// Absent when it cannot be read; then `error` says why.
    pub manifest: Option<Manifest>,
    /// Why there is no manifest.
    pub error: Option<String>,
}

/// Lists the backups in `stores`; with a `name` those of that database, or of the databases that a
/// `database = "*"` of that name stands for.
///
/// # Errors
/// When a store cannot be listed. When there is no backup: an inventory without stores, or a name
/// that neither the inventory nor a store knows.
pub async fn list(
    inventory: &Inventory,
    stores: &BTreeMap<String, SharedStore>,
    name: Option<&str>,
) -> Result<Listing, UpkeepError> {
    if stores.is_empty() {
        return Err(inventory.without_stores().into());
    }
    // One database's own prefix is enough, unless the name stands for several.
    let prefix = name.filter(|name| !inventory.is_fan_out(name));
    let mut backups = Vec::new();
    for (called, store) in stores {
        let mut found = catalog::find(&**store, prefix)
            .await
            .map_err(UpkeepError::of_store(called, &**store))?;
        found.retain(|found| name.is_none_or(|name| inventory.means(name, &found.database)));
        let trusted = &inventory.signatures.trusted;
        for backup in catalog::read_manifests(&**store, found, trusted).await {
            let (manifest, error) = match backup.manifest {
                Ok(manifest) => (Some(manifest), None),
                Err(error) => (None, Some(error.to_string())),
            };
            let catalog::Found { database, id, .. } = backup.found;
            backups.push(Listed {
                store: store.address(),
                store_name: called.clone(),
                database,
                backup_id: id,
                manifest,
                error,
            });
        }
    }
    if let (Some(name), true) = (name, backups.is_empty()) {
        let known = inventory.entry(name).map_or("", |_| " yet");
        return Err(UpkeepError::NoBackup(format!(
            "there is no backup of {name:?}{known}; `tapline list` shows all"
        )));
    }
    backups.sort_by(|a, b| (&a.database, &a.backup_id).cmp(&(&b.database, &b.backup_id)));
    Ok(Listing {
        version: 1,
        backups,
    })
}
