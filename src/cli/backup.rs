//! `tapline backup`: plan, run with progress, report.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::args::{BackupOptions, Timeline};
use super::exit::{Exit, Failure};
use super::{Session, console, inventory, report, text};
use crate::charts::{plot, timeline};
use crate::engine::StagedDump;
use crate::meter::Phase;
use crate::run::plan::{self, Plan};
use crate::run::{self, JobResult, RunReport};

pub(super) async fn backup(
    session: &mut Session,
    options: &BackupOptions,
) -> Result<Exit, Failure> {
    let inventory = inventory::load(&session.config, options)?;
    find_folders(options)?;
    let work = async {
        let stores = inventory::stores(&inventory, options).await?;
        let own_binary = std::env::current_exe()?;
        Ok(plan::plan(&inventory, &stores, &options.names, own_binary).await?)
    };
    let plan = session.signals.unless(work).await?;
    if options.dry_run {
        console::out(&describe(&plan));
        return Ok(Exit::Good);
    }
    let (display, cancel) = (session.display.clone(), CancellationToken::new());
    let work = async {
        tokio::select! {
            report = run::run(&plan, cancel.clone()) => report,
            () = display.show(&plan, !options.no_progress) => {
                unreachable!("progress is shown until the run is over")
            }
        }
    };
    let committing = || {
        let mut jobs = plan.jobs.iter();
        jobs.any(|planned| planned.meter.phase() == Phase::Committing)
    };
    let stopping = "ending dumps, aborting uploads";
    let (report, interrupted) = session
        .signals
        .tidy(&display, stopping, &cancel, committing, work)
        .await?;
    display.clear();
    let untold = tell(options, &report);
    let all_good = report
        .jobs
        .iter()
        .all(|job| job.result == JobResult::Stored && job.prune_error.is_none());
    Ok(match interrupted {
        Some(exit) if !all_good => exit,
        _ if !all_good => Exit::Failed,
        _ if untold => Exit::Untold,
        _ => Exit::Good,
    })
}

/// A folder that is not there is found out now, and not when hours have passed.
fn find_folders(options: &BackupOptions) -> Result<(), Failure> {
    let drawn = match &options.timeline {
        Some(Timeline::Svg(file) | Timeline::Html(file)) => Some(file),
        _ => None,
    };
    for file in [drawn, options.report.as_ref()].into_iter().flatten() {
        if file
            .parent()
            .is_some_and(|folder| folder != Path::new("") && !folder.is_dir())
        {
            return Err(Failure::new(
                Exit::Usage,
                format!("{}: there is no such folder", file.display()),
            ));
        }
    }
    Ok(())
}

/// Prints the table and writes what was asked for besides. What cannot be written is said, and
/// keeps nothing else from being told; whether there was any.
fn tell(options: &BackupOptions, report: &RunReport) -> bool {
    let to_stdout = options.report.as_deref() == Some(Path::new("-"));
    let mut shown = report::text(report);
    let mut written = vec![match &options.report {
        Some(_) if to_stdout => {
            console::out(&report::json(report));
            Ok(())
        }
        Some(file) => write(file, &report::json(report)),
        None => Ok(()),
    }];
    let drawn = |file: &Path, picture: std::io::Result<String>| {
        let failed = |error| Failure::new(Exit::Untold, format!("{}: {error}", file.display()));
        write(file, &picture.map_err(failed)?)
    };
    match &options.timeline {
        None => {}
        Some(Timeline::Text) => shown += &format!("\n{}", timeline::text(report)),
        Some(Timeline::Svg(file)) => written.push(drawn(file, plot::svg(report))),
        Some(Timeline::Html(file)) => written.push(drawn(file, plot::html(report))),
    }
    if to_stdout {
        console::aside(&shown);
    } else {
        console::remark(&shown);
    }
    let failures: Vec<Failure> = written.into_iter().filter_map(Result::err).collect();
    for failure in &failures {
        console::error(failure);
    }
    !failures.is_empty()
}

pub(super) fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| {
        let why = format!("cannot write {}: {error}", file.display());
        Failure::new(Exit::Untold, why).step("report")
    };
    std::fs::write(file, text).map_err(failed)
}

/// What a run would do; never a secret.
fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    for planned in &plan.jobs {
        text += &format!("{} ({})\n", planned.database, planned.engine);
        match &planned.job {
            Err(error) => text += &format!("  would fail  {error}\n"),
            Ok(planned_job) => {
                let (job, staged) = (&planned_job.job, &planned_job.staged);
                let command = staged.as_ref().map_or(&job.command, StagedDump::command);
                let layout = &job.layout;
                let prefix = crate::catalog::database_prefix(&job.database);
                text += &format!("  dump     {}\n", command.display());
                text += &format!(
                    "  object   {}/{prefix}BACKUP-ID/….{}\n",
                    planned.store,
                    job.compression.extension()
                );
                let expected = layout.expected.map_or("unknown".into(), text::size);
                text += &format!("  expected {expected}\n");
                text += &format!(
                    "  parts    {} each, {} in flight and one held, {} to a volume\n",
                    text::size(layout.part),
                    layout.in_flight,
                    layout.max_parts
                );
                text += &format!(
                    "  encode   {} at a time on {} cores\n",
                    text::size(layout.segment as u64),
                    layout.workers
                );
                text += &format!("  memory   {}\n", text::size(layout.memory));
                if let Some(policy) = &planned.prune {
                    text += &format!("  then     prune, keeping {policy}\n");
                }
            }
        }
    }
    let jobs = plan.settings.jobs.min(plan.jobs.len());
    text + &format!(
        "\n{}, {jobs} at once, at most {} of memory\n",
        text::count(plan.jobs.len(), "job"),
        text::size(plan.memory_per_job * jobs as u64)
    )
}
