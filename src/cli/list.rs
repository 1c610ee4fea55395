//! `tapline list`: the backups in the stores.

use std::path::Path;

use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::text;
use crate::catalog::{BackupId, Manifest, database_prefix, locate};
use crate::config::Inventory;
use crate::run::open_stores;
use crate::store::{Store, get_small, list_all};

/// Manifests fetched at once.
const AT_ONCE: usize = 32;
/// A manifest is some hundred bytes for each volume; a larger object is something else.
const LONGEST_MANIFEST: usize = 16 << 20;

#[derive(Serialize)]
struct Listing {
    version: u32,
    backups: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    store: String,
    database: String,
    backup_id: BackupId,
    /// Absent when the manifest cannot be read; then `error` says why.
    manifest: Option<Manifest>,
    error: Option<String>,
}

pub(super) async fn list(config: &Path, name: Option<&str>, json: bool) -> Result<Exit, Failure> {
    let inventory = Inventory::load(config)?;
    let mut backups = Vec::new();
    for store in open_stores(&inventory).await?.values() {
        let prefix = name.map(database_prefix).unwrap_or_default();
        let objects = list_all(&**store, &prefix).await?;
        let manifests = objects.into_iter().filter_map(|object| Some((locate(&object.key)?, object.key)));
        let read = manifests.filter(|(located, _)| located.is_manifest).map(async |(located, key)| {
            let manifest = match get_small(&**store, &key, LONGEST_MANIFEST).await {
                Ok(text) => Manifest::from_json(&text).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let (manifest, error) =
                manifest.map_or_else(|error| (None, Some(error)), |manifest| (Some(manifest), None));
            Listed { store: store.address(), database: located.database, backup_id: located.id, manifest, error }
        });
        backups.extend(stream::iter(read).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);
    }
    backups.sort_by(|a, b| (&a.database, &a.backup_id).cmp(&(&b.database, &b.backup_id)));
    if json {
        let listing = Listing { version: 1, backups };
        text::out(&(serde_json::to_string_pretty(&listing).expect("only string keys") + "\n"));
    } else if backups.is_empty() {
        text::out("no backups\n");
    } else {
        text::out(&text::table(
            ["DATABASE", "BACKUP", "BEGUN (UTC)", "DUMP", "ARCHIVE", "RATIO", "ENGINE"],
            backups.iter().map(row),
        ));
    }
    Ok(Exit::Good)
}

fn row(listed: &Listed) -> [String; 7] {
    let begun = listed.backup_id.time().strftime("%Y-%m-%d %H:%M:%S").to_string();
    let [dump, archive, ratio, engine] = match (&listed.manifest, &listed.error) {
        (Some(manifest), _) => {
            let (dump, archive) = (manifest.dump_size(), manifest.archive.size);
            [text::size(dump), text::size(archive), text::ratio(dump, archive), manifest.engine.clone()]
        }
        (None, error) => ["?".into(), "?".into(), "?".into(), error.clone().unwrap_or_default()],
    };
    [listed.database.clone(), listed.backup_id.to_string(), begun, dump, archive, ratio, engine]
}
