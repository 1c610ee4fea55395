//! `tapline bench`: what streaming gains over staging, on these databases, this machine and this
//! store.
//!
//! Both ways are measured from outside and alike, as child processes, in turn (A B A B …), so that
//! what else the machine does meets both. All of it is stored under a prefix of its own, which is
//! emptied after every run.

mod measure;
mod plot;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::args::{BackupOptions, BenchOptions};
use super::backup::write;
use super::exit::{Exit, Failure};
use super::{Session, console, inventory, text};
use crate::catalog::{BackupId, Mode};
use crate::store::retry::{RetryPolicy, Retrying};
use crate::store::{SharedStore, StoreError, Upload, list_all, list_all_uploads};
use measure::{Sample, measure};
use table::Results;

/// How long what was stored is tried to be deleted.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) async fn bench(session: &mut Session, options: &BenchOptions) -> Result<Exit, Failure> {
    let (config, display) = (session.config.clone(), session.display.clone());
    let config = config.as_path();
    if options.modes.len() > 2 {
        return Err(Failure::new(
            Exit::Usage,
            "--modes: two are compared, or one is measured",
        ));
    }
    let scratch = Scratch::make(config, options).await?;
    let cancel = CancellationToken::new();
    let stopping = format!(
        "ending the run, deleting what it stored under {}",
        scratch.under
    );
    let runs = scratch.runs(config, options, &cancel);
    let (measured, interrupted) = session
        .signals
        .tidy(&display, &stopping, &cancel, || false, runs)
        .await?;
    let cleared = scratch.remove().await;
    match (interrupted, measured) {
        (Some(exit), Err(_)) => cleared.map(|()| exit),
        (_, Err(failure)) => {
            if let Err(left) = cleared {
                console::error(&left);
            }
            Err(failure)
        }
        (_, Ok(samples)) => {
            cleared?;
            show(options, &Results::of(options, samples))?;
            Ok(Exit::Good)
        }
    }
}

/// Prints the table, and writes what was asked for besides.
fn show(options: &BenchOptions, results: &Results) -> Result<(), Failure> {
    let to_stdout = options.json.as_deref() == Some(Path::new("-"));
    match &options.json {
        Some(_) if to_stdout => console::out(&results.json()),
        Some(file) => write(file, &results.json())?,
        None => {}
    }
    if let Some(file) = &options.plot {
        write(file, &plot::svg(results)?)?;
    }
    if to_stdout {
        console::aside(&results.text());
    } else {
        console::out(&results.text());
    }
    Ok(())
}

/// Where the runs keep their files and put their backups; nothing else is there.
struct Scratch {
    folder: PathBuf,
    /// Below the stores' own prefixes.
    under: String,
    stores: Vec<SharedStore>,
}

impl Scratch {
    /// Checks the inventory and the flags, and makes the folder.
    async fn make(config: &Path, options: &BenchOptions) -> Result<Self, Failure> {
        let name = format!("tapline-bench-{}", BackupId::now());
        let like_a_run = backup_options(options, &name, Mode::Streamed);
        let inventory = inventory::load(config, &like_a_run)?;
        let stores = inventory::stores(&inventory, &like_a_run)
            .await?
            .into_values();
        let retry = RetryPolicy::lasting(PATIENCE);
        let stores = stores
            .map(|store| Arc::new(Retrying::new(store, retry, Arc::new(|| ()))) as SharedStore);
        // Absolute, because a dump tool may run elsewhere.
        let folder = std::path::absolute(options.dir.clone().unwrap_or_else(std::env::temp_dir))?
            .join(&name);
        std::fs::create_dir(&folder).map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("cannot make {}: {error}", folder.display()),
            )
        })?;
        Ok(Self {
            folder,
            under: name,
            stores: stores.collect(),
        })
    }

    /// The runs, in turn; those before the first counted one are not in the result.
    async fn runs(
        &self,
        config: &Path,
        options: &BenchOptions,
        cancel: &CancellationToken,
    ) -> Result<Vec<Vec<Sample>>, Failure> {
        let mut samples: Vec<Vec<Sample>> = options.modes.iter().map(|_| Vec::new()).collect();
        let first = u16::from(options.no_warmup);
        for round in first..=options.runs {
            for (mode, samples) in options.modes.iter().zip(&mut samples) {
                let run = backup_options(options, &self.under, *mode);
                let measured = measure(config, &run, &self.folder.join("run"), cancel).await;
                let cleared = self.clear().await;
                let sample = measured?;
                cleared?;
                let which = if round == 0 {
                    "to warm up".into()
                } else {
                    format!("{round} of {}", options.runs)
                };
                console::aside(&format!(
                    "{}, {which}: {}\n",
                    mode.name(),
                    text::time(sample.wall_seconds)
                ));
                if round > 0 {
                    samples.push(sample);
                }
            }
        }
        Ok(samples)
    }

    /// Deletes what the runs have stored and aborts what they have begun.
    async fn clear(&self) -> Result<(), StoreError> {
        for store in &self.stores {
            for object in list_all(&**store, "").await? {
                store.delete(&object.key).await?;
            }
            for open in list_all_uploads(&**store, "").await? {
                store
                    .abort_upload(&Upload {
                        key: open.key,
                        id: open.id,
                        backup_id: String::new(),
                    })
                    .await?;
            }
        }
        Ok(())
    }

    /// Empties the prefix and removes the folder.
    async fn remove(self) -> Result<(), Failure> {
        let cleared = self.clear().await;
        std::fs::remove_dir_all(&self.folder)?;
        cleared.map_err(|error| {
            error
                .context(format!("deleting what is under {}", self.under))
                .into()
        })
    }
}

/// The run that is measured, as `tapline backup` would be told.
fn backup_options(options: &BenchOptions, under: &str, mode: Mode) -> BackupOptions {
    BackupOptions {
        names: options.names.clone(),
        jobs: options.jobs,
        mode: Some(mode),
        compression: options.compression,
        level: options.level,
        source: options.source,
        store: options.store.clone(),
        under: Some(under.to_owned()),
        ..BackupOptions::default()
    }
}
