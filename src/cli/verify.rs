//! `tapline verify`: reads backups as a restore does, to nowhere or into a scratch database, and
//! says a line of each.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::args::VerifyOptions;
use super::exit::{Exit, Failure};
use super::interrupt::interruptible;
use super::progress::Display;
use super::restore::{stored, target};
use super::text::{out, rate, size, time};
use crate::catalog::{Backup, BackupId, BackupName, Found, find, look_up, read_manifests};
use crate::config::Inventory;
use crate::engine;
use crate::restore::{RestoreError, Stored, Target, check, drill, restore};
use crate::run::plan::{access, open_patient_stores};

pub(super) async fn verify(
    config: &Path,
    options: &VerifyOptions,
    display: &Display,
) -> Result<Exit, Failure> {
    let inventory = Inventory::load(config)?;
    let backups = chosen(&inventory, options).await?;
    let cancel = CancellationToken::new();
    let work = async {
        let mut failed = 0;
        for (name, stored) in &backups {
            if cancel.is_cancelled() {
                break;
            }
            let result = match stored {
                Ok(stored) => {
                    one(&inventory, options, name, stored.clone(), display, &cancel).await
                }
                Err(error) => Err(error.clone()),
            };
            display.clear();
            if cancel.is_cancelled() {
                break;
            }
            match result {
                Ok(good) => out(&format!("ok    {name}  {good}\n")),
                Err(error) => {
                    failed += 1;
                    out(&format!("FAIL  {name}  {error}\n"));
                }
            }
        }
        failed
    };
    let (failed, interrupted) =
        interruptible(display, "ending the read", cancel.clone(), work).await?;
    Ok(match (failed, interrupted) {
        (_, Some(exit)) => exit,
        (0, None) => Exit::Good,
        (_, None) => Exit::Check,
    })
}

type Chosen = Vec<(BackupName, Result<Arc<Stored>, String>)>;

/// The backups that are asked for: one, the latest of each database, or all.
async fn chosen(inventory: &Inventory, options: &VerifyOptions) -> Result<Chosen, Failure> {
    let stores = open_patient_stores(inventory, options.store.as_deref()).await?;
    if let (Some(name), false) = (&options.name, options.all) {
        let named = look_up(&stores, name).await?;
        let name = BackupName {
            database: name.database.clone(),
            id: Some(named.manifest.backup_id.clone()),
        };
        return Ok(vec![(
            name,
            Ok(stored(named.store, named.manifest, &inventory.run)),
        )]);
    }
    let database = match &options.name {
        Some(BackupName { id: Some(_), .. }) => {
            return Err(Failure::new(
                Exit::Usage,
                "--all is for all backups of a database; name it without @ID",
            ));
        }
        name => name.as_ref().map(|name| name.database.as_str()),
    };
    let mut chosen = Chosen::new();
    for store in stores.values() {
        let mut found: Vec<Found> = find(&**store, database)
            .await?
            .into_iter()
            .filter(Found::is_committed)
            .collect();
        if !options.all {
            let newest: Vec<(String, BackupId)> = found
                .chunk_by(|a, b| a.database == b.database)
                .filter_map(<[Found]>::last)
                .map(|newest| (newest.database.clone(), newest.id.clone()))
                .collect();
            found.retain(|found| {
                newest
                    .iter()
                    .any(|(database, id)| (database, id) == (&found.database, &found.id))
            });
        }
        for Backup { found, manifest } in read_manifests(&**store, found).await {
            let name = BackupName {
                database: found.database,
                id: Some(found.id),
            };
            let manifest = manifest.map_err(|error| error.to_string());
            chosen.push((
                name,
                manifest.map(|manifest| stored(store.clone(), manifest, &inventory.run)),
            ));
        }
    }
    if chosen.is_empty() {
        return Err(Failure::new(Exit::NoBackup, "there is no backup to verify"));
    }
    Ok(chosen)
}

/// Verifies one backup; in words what is good about it, or what is wrong.
async fn one(
    inventory: &Inventory,
    options: &VerifyOptions,
    name: &BackupName,
    stored: Arc<Stored>,
    display: &Display,
    cancel: &CancellationToken,
) -> Result<String, String> {
    if options.quick {
        let volumes = stored.manifest.archive.volumes.len();
        let compared = check(&stored).await.map_err(|error| error.to_string())?;
        let what = if compared {
            "sizes and checksums are"
        } else {
            "sizes are (the store keeps no such checksums)"
        };
        return Ok(format!("{volumes} volumes there, {what} right"));
    }
    let start = Instant::now();
    let work = async {
        if options.drill {
            drilled(inventory, stored.clone(), cancel).await
        } else {
            restore(stored.clone(), Target::Nowhere, cancel)
                .await
                .map(|()| None)
                .map_err(|error| error.to_string())
        }
    };
    let drilled = tokio::select! {
        done = work => done?,
        () = display.show_read(name, &stored, true) => unreachable!("shown until it is over"),
    };
    let (bytes, seconds) = (stored.progress.written(), start.elapsed().as_secs_f64());
    let read = format!(
        "{} in {}, {} MB/s",
        size(bytes),
        time(seconds),
        rate(bytes, seconds)
    );
    Ok(drilled.map_or_else(|| read.clone(), |what| format!("{read}; {what}")))
}

/// Restores into a scratch database; in words what became of it.
async fn drilled(
    inventory: &Inventory,
    stored: Arc<Stored>,
    cancel: &CancellationToken,
) -> Result<Option<String>, String> {
    let words = |error: RestoreError| error.to_string();
    let manifest = &stored.manifest;
    if manifest.engine == "command" || manifest.dump_format == "globals" {
        restore(stored.clone(), Target::Nowhere, cancel)
            .await
            .map_err(words)?;
        return Ok(Some(
            "read only: there is no scratch database for it".into(),
        ));
    }
    let scratch = format!("tapline_drill_{}", BackupId::now())
        .to_lowercase()
        .replace('-', "_");
    let place = match manifest.engine.as_str() {
        "sqlite" => std::env::temp_dir().join(scratch).display().to_string(),
        _ => scratch,
    };
    let database =
        target(inventory, manifest, Some(&place), None).map_err(|failure| failure.message)?;
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let access = access(&database, &inventory.run, own)
        .await
        .map_err(|error| error.to_string())?;
    let tables = drill(
        stored.clone(),
        &*engine::open(&database, access),
        &inventory.staged.dir,
        cancel,
    )
    .await
    .map_err(words)?;
    Ok(tables.map(|tables| format!("restored into a scratch database: {tables} tables")))
}
