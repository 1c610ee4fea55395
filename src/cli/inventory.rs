//! The inventory of a backup: the file's, with what the command line changes in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::args::{BackupOptions, Timeline};
use super::exit::{Exit, Failure};
use crate::access::open_stores;
use crate::bench::synthetic::{self, Synthetic};
use crate::catalog::Mode;
use crate::config::{ConfigError, Database, Inventory};
use crate::store::memory::MemoryStore;
use crate::store::{Limits, SharedStore};

/// Reads the inventory and applies the flags, which are stronger.
pub(super) fn load(config: &Path, options: &BackupOptions) -> Result<Inventory, Failure> {
    let mut inventory = match (options.source, &options.store) {
        (None, _) => Inventory::load(config)?,
        // Nothing is left for a file to say.
        (Some(source), Some(_)) => of_synthetic(source)?,
        (Some(source), None) => {
            let mut inventory = Inventory::load(config)?;
            // The file's first database lends its store.
            let stores = vec![inventory.select(&[])?[0].stores[0].clone()];
            let databases = of_synthetic(source)?.databases.into_iter();
            inventory.databases = databases
                .map(|database| Database {
                    stores: stores.clone(),
                    ..database
                })
                .collect();
            inventory
        }
    };
    super::warn_of(&inventory);
    let run = &mut inventory.run;
    run.mode = options.mode.unwrap_or(run.mode);
    run.jobs = options.jobs.map_or(run.jobs, usize::from);
    run.jobs_per_host = options.jobs_per_host.map_or(run.jobs_per_host, usize::from);
    if let Some(parallel) = options.parallel {
        for entry in &mut inventory.databases {
            entry.ask_for_parallel(parallel.into());
        }
    }
    let run = &mut inventory.run;
    run.memory = options.memory.or(run.memory);
    run.retry_for = options.retry_for.unwrap_or(run.retry_for);
    run.prune_after_backup |= options.prune_after_backup;
    run.stall_timeout = options.stall_timeout.or(run.stall_timeout);
    if let Some(folder) = options
        .staged_dir
        .as_ref()
        .filter(|folder| !folder.is_dir())
    {
        return Err(Failure::new(
            Exit::Usage,
            format!("--staged-dir {}: there is no such folder", folder.display()),
        ));
    }
    if let Some(folder) = &options.staged_dir {
        inventory.staged.dir.clone_from(folder);
    }
    let folder = &inventory.staged.dir;
    if inventory.run.mode == Mode::Staged && !folder.is_dir() {
        let why = format!("staged.dir {}: there is no such folder", folder.display());
        return Err(Failure::new(Exit::Config, why).step("inventory"));
    }
    if let Some(under) = options.under.as_ref().map(|under| under.trim_matches('/')) {
        for store in inventory.stores.values_mut() {
            Arc::make_mut(store).put_under(under);
        }
    }
    find_pictures(options, &inventory)?;
    compression(options, &mut inventory)?;
    Ok(inventory)
}

/// `--timeline f.svg`, where `--timeline=f.svg` is meant, names a database.
fn find_pictures(options: &BackupOptions, inventory: &Inventory) -> Result<(), Failure> {
    let pictured = |name: &&String| {
        let path = Path::new(name);
        path.extension()
            .is_some_and(|kind| kind == "svg" || kind == "html")
            && inventory.entry(name).is_none()
    };
    match (&options.timeline, options.names.iter().find(pictured)) {
        (Some(Timeline::Text), Some(name)) => Err(Failure::new(
            Exit::Usage,
            format!("there is no database {name}; to draw into a file write --timeline={name}"),
        )),
        _ => Ok(()),
    }
}

/// Changes compression and level of the databases that are backed up.
fn compression(options: &BackupOptions, inventory: &mut Inventory) -> Result<(), Failure> {
    let selected: Vec<String> = inventory
        .select(&options.names)?
        .into_iter()
        .map(|database| database.name.clone())
        .collect();
    for database in inventory
        .databases
        .iter_mut()
        .filter(|database| selected.contains(&database.name))
    {
        if let Some(compression) = options
            .compression
            .filter(|compression| *compression != database.compression)
        {
            database.compression = compression;
            database.level = compression.levels().1;
        }
        if let Some(level) = options.level {
            let (range, _) = database.compression.levels();
            if !range.contains(&level) {
                let (name, compression) = (&database.name, database.compression.name());
                let why = format!(
                    "the levels of {compression} are {} to {}",
                    range.start(),
                    range.end()
                );
                return Err(Failure::new(
                    Exit::Usage,
                    format!("--level {level} for {name}: {why}"),
                ));
            }
            database.level = level;
        }
    }
    Ok(())
}

/// An inventory of one database, which this program's own binary makes up.
fn of_synthetic(source: Synthetic) -> Result<Inventory, Failure> {
    let tapline = std::env::current_exe()?.display().to_string();
    let command = toml::Value::from(vec![
        tapline,
        synthetic::SUBCOMMAND.to_owned(),
        source.to_string(),
    ]);
    let text = format!(
        "[stores.null]\nurl = \"s3://null\"\n\n\
         [databases.synthetic]\nengine = \"command\"\ncommand = {command}\nfile_name = \"synthetic.sql\"\n\
         expected_size = {}\n",
        source.size().max(1)
    );
    Ok(Inventory::parse(Path::new("--source"), &text)?)
}

/// Opens the inventory's stores, or in place of each one that swallows what it gets.
pub(super) async fn stores(
    inventory: &Inventory,
    options: &BackupOptions,
) -> Result<BTreeMap<String, SharedStore>, ConfigError> {
    if options.store.is_some() {
        let null = || Arc::new(MemoryStore::discarding(Limits::S3)) as SharedStore;
        return Ok(inventory
            .stores
            .keys()
            .map(|name| (name.clone(), null()))
            .collect());
    }
    let opened = open_stores(inventory).await?.into_iter();
    Ok(opened.map(|(name, store)| (name, store.shared())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Compression;

    const FILE: &str = "[stores.s]\nurl = \"s3://bucket/backups\"\n\
                        [databases.a]\nengine = \"sqlite\"\npath = \"a\"\nlevel = 9\n\
                        [databases.b]\nengine = \"sqlite\"\npath = \"b\"\ncompression = \"zstd\"\n";

    fn loaded(options: &BackupOptions) -> Result<Inventory, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tapline.toml");
        std::fs::write(&path, FILE).unwrap();
        load(&path, options)
    }

    #[test]
    fn a_level_must_fit_the_compression_of_what_is_backed_up() {
        let levels = |options| {
            let databases = loaded(&options).unwrap().databases.into_iter();
            databases
                .map(|database| (database.compression, database.level))
                .collect::<Vec<_>>()
        };
        let (gzip, zstd) = (Some(Compression::Gzip), Some(Compression::Zstd));
        let default = BackupOptions::default;
        assert_eq!(
            levels(default()),
            [(Compression::Gzip, 9), (Compression::Zstd, 1)]
        );
        assert_eq!(
            levels(BackupOptions {
                compression: gzip,
                ..default()
            }),
            [
                (Compression::Gzip, 9),
                (Compression::Gzip, Compression::Gzip.levels().1)
            ]
        );
        let nineteen = BackupOptions {
            compression: zstd,
            level: Some(19),
            ..default()
        };
        assert_eq!(levels(nineteen), [(Compression::Zstd, 19); 2]);
        let only_b = BackupOptions {
            names: vec!["b".into()],
            level: Some(19),
            ..default()
        };
        assert_eq!(
            levels(only_b),
            [(Compression::Gzip, 9), (Compression::Zstd, 19)]
        );
        let error = loaded(&BackupOptions {
            level: Some(19),
            ..default()
        })
        .unwrap_err();
        assert!(
            format!("{error:?}").contains("--level 19 for a: the levels of gzip are 1 to 9"),
            "{error:?}"
        );
    }

    #[test]
    fn a_synthetic_source_takes_the_place_of_the_databases() {
        let source = Some("1MiB:3".parse().unwrap());
        let options = BackupOptions {
            source,
            under: Some("/scratch/".into()),
            ..BackupOptions::default()
        };
        let inventory = loaded(&options).unwrap();
        let [synthetic] = inventory.databases.as_slice() else {
            panic!("one database")
        };
        assert_eq!(
            (synthetic.name.as_str(), synthetic.stores[0].as_str()),
            ("synthetic", "s")
        );
        assert_eq!(synthetic.command[1..], ["__synthetic", "1048576B:3"]);
        assert_eq!(inventory.stores["s"].prefix(), "backups/scratch");
        let without_file = BackupOptions {
            store: Some("null".into()),
            ..options
        };
        assert_eq!(
            load(Path::new("/nowhere"), &without_file)
                .unwrap()
                .databases
                .len(),
            1
        );
    }
}
