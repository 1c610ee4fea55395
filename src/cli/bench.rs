//! `tapline bench`: what is to be measured, and the table of what was.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::args::{BackupOptions, BenchOptions};
use super::backup::write;
use super::exit::{Exit, Failure};
use super::{Session, console, inventory, text};
use crate::bench::results::{Arm, MEASURES, Measure, Results, Spread};
use crate::bench::{Bench, BenchError, BenchRun, Sample};
use crate::catalog::{BackupId, Mode};
use crate::charts;
use crate::store::SharedStore;
use crate::store::retry::{PatientStore, RetryPolicy};

/// How long what was stored is tried to be deleted.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) async fn bench(session: &mut Session, options: &BenchOptions) -> Result<Exit, Failure> {
    if options.modes.len() > 2 {
        return Err(Failure::new(
            Exit::Usage,
            "--modes: two are compared, or one is measured",
        ));
    }
    let bench = prepare(&session.config, options).await?;
    let (display, cancel) = (session.display.clone(), CancellationToken::new());
    let stopping = format!(
        "ending the run, deleting what it stored under {}",
        bench.run.under
    );
    let say = |sample: &Sample, round: u16| {
        let which = if round == 0 {
            "to warm up".into()
        } else {
            format!("{round} of {}", options.runs)
        };
        let (mode, took) = (sample.mode.name(), text::time(sample.wall_seconds));
        console::aside(&format!("{mode}, {which}: {took}\n"));
    };
    let work = bench.measure(&cancel, say);
    let (measured, interrupted) = session
        .signals
        .tidy(&display, &stopping, &cancel, || false, work)
        .await?;
    let cleared = bench.remove().await.map_err(Failure::from);
    match (interrupted, measured) {
        (Some(exit), Err(_)) => cleared.map(|()| exit),
        (_, Err(error)) => {
            if let Err(left) = cleared {
                console::error(&left);
            }
            Err(error.into())
        }
        (_, Ok(results)) => {
            cleared?;
            show(options, &results)?;
            Ok(Exit::Good)
        }
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Store(error) => error.into(),
            error => Self::new(Exit::Failed, error.to_string()).step("bench"),
        }
    }
}

/// Checks the inventory and the flags, and makes the folder.
async fn prepare(config: &Path, options: &BenchOptions) -> Result<Bench, Failure> {
    let name = format!("tapline-bench-{}", BackupId::now());
    let like_a_run = backup_options(options, &name);
    let inventory = inventory::load(config, &like_a_run)?;
    let stores = inventory::stores(&inventory, &like_a_run).await?;
    let retry = RetryPolicy::lasting(PATIENCE);
    let stores = stores
        .into_values()
        .map(|store| Arc::new(PatientStore::new(store, retry, Arc::new(|| ()))) as SharedStore);
    // Absolute, because a dump tool may run elsewhere.
    let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let folder = std::path::absolute(parent)?.join(&name);
    std::fs::create_dir(&folder).map_err(|error| {
        let why = format!("cannot make {}: {error}", folder.display());
        Failure::new(Exit::Failed, why)
    })?;
    Ok(Bench {
        modes: options.modes.clone(),
        runs: options.runs,
        warmup: !options.no_warmup,
        run: BenchRun {
            config: config.to_owned(),
            names: options.names.clone(),
            source: options.source,
            store: options.store.clone(),
            compression: options.compression,
            level: options.level,
            jobs: options.jobs,
            under: name,
        },
        folder,
        stores: stores.collect(),
    })
}

/// The run that is measured, as `tapline backup` would be told.
fn backup_options(options: &BenchOptions, under: &str) -> BackupOptions {
    BackupOptions {
        names: options.names.clone(),
        jobs: options.jobs,
        mode: Some(Mode::Streamed),
        compression: options.compression,
        level: options.level,
        source: options.source,
        store: options.store.clone(),
        under: Some(under.to_owned()),
        ..BackupOptions::default()
    }
}

/// Prints the table, and writes what was asked for besides; the table first, which nothing keeps
/// from being seen.
fn show(options: &BenchOptions, results: &Results) -> Result<(), Failure> {
    let to_stdout = options.json.as_deref() == Some(Path::new("-"));
    if to_stdout {
        console::aside(&table(results));
    } else {
        console::out(&table(results));
    }
    match &options.json {
        Some(_) if to_stdout => console::out(&results.json()),
        Some(file) => write(file, &results.json())?,
        None => {}
    }
    if let Some(file) = &options.plot {
        write(file, &charts::bench::svg(results)?)?;
    }
    Ok(())
}

/// The table, and what puts it in doubt.
fn table(results: &Results) -> String {
    let of = |arm: &Arm, measure: &Measure| spread(arm.spread(measure), measure.show);
    let name = |arm: &Arm| arm.mode.name().to_uppercase();
    let mut shown = match results.arms.as_slice() {
        [first, second] => {
            let header = [
                "MIN / MEDIAN / MAX".into(),
                name(first),
                name(second),
                format!("{}/{}", name(first), name(second)),
            ];
            let rows = MEASURES.iter().map(|measure| {
                [
                    measure.name.into(),
                    of(first, measure),
                    of(second, measure),
                    spread(results.ratio(measure), |ratio| format!("{ratio:.2}")),
                ]
            });
            text::table(header.each_ref().map(String::as_str), rows)
        }
        arms => {
            let header = [
                "MIN / MEDIAN / MAX".to_owned(),
                arms.first().map(name).unwrap_or_default(),
            ];
            let row = |arm: &Arm, measure: &Measure| [measure.name.into(), of(arm, measure)];
            let rows = arms
                .iter()
                .flat_map(|arm| MEASURES.iter().map(move |measure| row(arm, measure)));
            text::table(header.each_ref().map(String::as_str), rows)
        }
    };
    for changed in results.changed() {
        shown += &format!("\n{changed}\n");
    }
    shown
}

fn spread(spread: Option<Spread>, show: fn(f64) -> String) -> String {
    spread.map_or("-".into(), |spread| {
        [spread.min, spread.median, spread.max]
            .map(show)
            .join(" / ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn the_table_has_least_median_and_most_and_the_ratio_of_the_pairs() {
        let text = table(&results(&[2.0, 4.0, 3.0], &[4.0, 5.0, 9.0]));
        let line = |name: &str| {
            text.lines()
                .find(|line| line.trim().starts_with(name))
                .unwrap()
                .to_owned()
        };
        assert!(line("wall time").contains("2.00 s / 3.00 s / 4.00 s"));
        assert!(line("wall time").ends_with("0.33 / 0.50 / 0.80"));
        assert!(line("peak temp disk").ends_with("0.00 / 0.00 / 0.00"));
        assert!(line("disk written").ends_with('-'));
    }
}
