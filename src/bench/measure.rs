//! One measured run: `tapline backup` as a child process, and what it took.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::process::Command;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::BenchError;
use super::synthetic::Synthetic;
use crate::archive::Compression;
use crate::catalog::Mode;
use crate::run::RunReport;
use crate::scratch::occupied;

/// How often the scratch folder is looked at: a file that lives shorter may be missed.
const LOOK: Duration = Duration::from_millis(20);

/// The run that is measured, as `tapline backup` is told.
#[derive(Debug, Clone, Serialize)]
pub struct BenchRun {
    /// The inventory's file.
    #[serde(skip)]
    pub config: PathBuf,
    /// Only these databases.
    #[serde(rename = "databases")]
    pub names: Vec<String>,
    /// Instead of databases, a dump that is made up.
    #[serde(serialize_with = "shown")]
    pub source: Option<Synthetic>,
    /// Instead of the stores, one that swallows everything.
    pub store: Option<String>,
    /// Of all databases.
    pub compression: Option<Compression>,
    /// Its level.
    pub level: Option<i32>,
    /// Databases at once.
    pub jobs: Option<u16>,
    /// Below the stores' own prefixes.
    #[serde(skip)]
    pub under: String,
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn shown<S: serde::Serializer>(
    source: &Option<Synthetic>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let shown = source.as_ref().map(|source| format!("synthetic:{source}"));
    shown.serialize(serializer)
}

/// What one run took.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// How it was run.
    pub mode: Mode,
    /// From the child's start to its end.
    pub wall_seconds: f64,
    /// Dump bytes by wall time.
    pub mb_per_second: f64,
    /// User and system, the dump tools included.
    pub cpu_seconds: Option<f64>,
    pub peak_rss: Option<u64>,
    pub peak_temp_disk: u64,
    pub disk_written: Option<u64>,
    pub dump_bytes: u64,
    pub archive_bytes: u64,
    #[serde(skip)]
    pub report: RunReport,
}

/// Runs `tapline backup` once, in a scratch folder of its own, and measures it.
///
/// # Errors
/// When it cannot be started, fails (with its own words), or `cancel` fires; then it has been told,
/// and has ended.
pub(super) async fn measure(
    run: &BenchRun,
    mode: Mode,
    scratch: &Path,
    cancel: &CancellationToken,
) -> Result<Sample, BenchError> {
    std::fs::create_dir_all(scratch)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(arguments(run, mode))
        .arg("--staged-dir")
        .arg(scratch)
        .env("TMPDIR", scratch);
    // In a group of its own: a signal from the terminal comes here alone, and is passed on.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let start = Instant::now();
    let child = command.spawn()?;
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let mut ended = std::pin::pin!(child.wait_with_output());
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut peak, mut told) = (0, false);
    let output = loop {
        tokio::select! {
            output = &mut ended => break output?,
            () = cancel.cancelled(), if !told => {
                told = true;
                // It aborts its uploads itself; one that has just ended needs no telling.
                let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
            }
            _ = look.tick() => peak = peak.max(occupied(scratch)),
        }
    };
    let wall_seconds = start.elapsed().as_secs_f64();
    std::fs::remove_dir_all(scratch)?;
    if told {
        return Err(BenchError::Interrupted);
    }
    let report = report(mode, &output)?;
    let dump_bytes: u64 = report.jobs.iter().map(|job| job.dump_bytes).sum();
    let resources = &report.resources;
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    Ok(Sample {
        mode,
        wall_seconds,
        mb_per_second: dump_bytes as f64 / wall_seconds / 1e6,
        cpu_seconds: resources
            .cpu_seconds_user
            .zip(resources.cpu_seconds_system)
            .map(|(user, system)| user + system),
        peak_rss: resources.peak_rss,
        peak_temp_disk: peak.max(resources.peak_temp_disk),
        disk_written: resources.disk_written,
        dump_bytes,
        archive_bytes: report.jobs.iter().map(|job| job.archive_bytes).sum(),
        report,
    })
}

/// The command line of the run.
fn arguments(run: &BenchRun, mode: Mode) -> Vec<String> {
    let BenchRun {
        config,
        names,
        source,
        store,
        compression,
        level,
        jobs,
        under,
    } = run;
    let flags = [
        ("--config", Some(config.display().to_string())),
        ("--mode", Some(mode.name().to_owned())),
        ("--report", Some("-".to_owned())),
        ("--jobs", jobs.map(|jobs| jobs.to_string())),
        (
            "--compression",
            compression.map(|compression| compression.name().to_owned()),
        ),
        ("--level", level.map(|level| level.to_string())),
        (
            "--source",
            source.map(|source| format!("synthetic:{source}")),
        ),
        ("--store", store.clone()),
        ("--under", Some(under.clone())),
    ];
    let given = flags
        .into_iter()
        .filter_map(|(flag, value)| Some(format!("{flag}={}", value?)));
    ["backup", "--quiet", "--no-progress"]
        .map(str::to_owned)
        .into_iter()
        .chain(given)
        .chain(names.clone())
        .collect()
}

/// The report of a run in which every job was stored.
fn report(mode: Mode, output: &Output) -> Result<RunReport, BenchError> {
    let failed = |words: &str| {
        let how = crate::dump::Ending::from(output.status);
        BenchError::Run(format!("a {} run {how}: {}", mode.name(), words.trim()))
    };
    let report: Result<RunReport, _> = serde_json::from_slice(&output.stdout);
    match (report, output.status.success()) {
        (Ok(report), true) => Ok(report),
        (Ok(report), false) => {
            let errors = report
                .jobs
                .iter()
                .filter_map(|job| Some(format!("{}: {}", job.database, job.error.as_ref()?)));
            Err(failed(&errors.collect::<Vec<_>>().join("\n")))
        }
        (Err(_), _) => Err(failed(&String::from_utf8_lossy(&output.stderr))),
    }
}
