//! `tapline list`: the backups in the stores.

use std::path::Path;

use serde::Serialize;

use super::exit::{Exit, Failure};
use super::text;
use crate::catalog::{self, BackupId, Manifest};
use crate::config::Inventory;
use crate::run::plan::open_patient_stores;

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
    for store in open_patient_stores(&inventory, None).await?.values() {
        let found = catalog::find(&**store, name).await?;
        for backup in catalog::read_manifests(&**store, found).await {
            let (manifest, error) = match backup.manifest {
                Ok(manifest) => (Some(manifest), None),
                Err(error) => (None, Some(error.to_string())),
            };
            let catalog::Found { database, id, .. } = backup.found;
            backups.push(Listed {
                store: store.address(),
                database,
                backup_id: id,
                manifest,
                error,
            });
        }
    }
    backups.sort_by(|a, b| (&a.database, &a.backup_id).cmp(&(&b.database, &b.backup_id)));
    if json {
        let listing = Listing {
            version: 1,
            backups,
        };
        text::out(&(serde_json::to_string_pretty(&listing).expect("only string keys") + "\n"));
    } else if backups.is_empty() {
        text::out("no backups\n");
    } else {
        text::out(&text::table(
            [
                "DATABASE",
                "BACKUP",
                "BEGUN (UTC)",
                "DUMP",
                "ARCHIVE",
                "RATIO",
                "ENGINE",
            ],
            backups.iter().map(row),
        ));
    }
    Ok(Exit::Good)
}

fn row(listed: &Listed) -> [String; 7] {
    let begun = text::begun(&listed.backup_id);
    let [dump, archive, ratio, engine] = match (&listed.manifest, &listed.error) {
        (Some(manifest), _) => {
            let (dump, archive) = (manifest.dump_size(), manifest.archive.size);
            [
                text::size(dump),
                text::size(archive),
                text::ratio(dump, archive),
                manifest.engine.clone(),
            ]
        }
        (None, error) => [
            "?".into(),
            "?".into(),
            "?".into(),
            error.clone().unwrap_or_default(),
        ],
    };
    [
        listed.database.clone(),
        listed.backup_id.to_string(),
        begun,
        dump,
        archive,
        ratio,
        engine,
    ]
}
