//! `tapline backup`: plan, run with progress, report.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::args::{BackupOptions, Timeline};
use super::exit::{Exit, Failure};
use super::interrupt::interruptible;
use super::progress::Display;
use super::{inventory, report, text};
use crate::charts::{plot, timeline};
use crate::engine::StagedDump;
use crate::run::plan::{self, Plan};
use crate::run::{self, JobResult};

pub(super) async fn backup(
    config: &Path,
    options: &BackupOptions,
    display: &Display,
) -> Result<Exit, Failure> {
    let inventory = inventory::load(config, options)?;
    let stores = inventory::stores(&inventory, options).await?;
    let own_binary = std::env::current_exe()?;
    let plan = plan::plan(&inventory, &stores, &options.names, own_binary).await?;
    if options.dry_run {
        text::out(&describe(&plan));
        return Ok(Exit::Good);
    }
    // Found out now, and not when hours have passed.
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
    let cancel = CancellationToken::new();
    let work = async {
        tokio::select! {
            report = run::run(&plan, cancel.clone()) => report,
            () = display.show(&plan, !options.no_progress) => unreachable!("progress is shown until the run is over"),
        }
    };
    let stopping = "ending dumps, aborting uploads";
    let (report, interrupted) = interruptible(display, stopping, cancel.clone(), work).await?;
    display.clear();
    let to_stdout = options.report.as_deref() == Some(Path::new("-"));
    match &options.report {
        Some(_) if to_stdout => text::out(&report::json(&report)),
        Some(file) => write(file, &report::json(&report))?,
        None => {}
    }
    let mut shown = report::text(&report);
    match &options.timeline {
        None => {}
        Some(Timeline::Text) => shown += &format!("\n{}", timeline::text(&report)),
        Some(Timeline::Svg(file)) => write(file, &plot::svg(&report)?)?,
        Some(Timeline::Html(file)) => write(file, &plot::html(&report)?)?,
    }
    if to_stdout {
        eprint!("{shown}");
    } else {
        text::out(&shown);
    }
    let all_good = report
        .jobs
        .iter()
        .all(|job| job.result == JobResult::Stored && job.prune_error.is_none());
    Ok(match interrupted {
        Some(exit) if !all_good => exit,
        _ if all_good => Exit::Good,
        _ => Exit::Failed,
    })
}

pub(super) fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| {
        Failure::new(
            Exit::Failed,
            format!("cannot write {}: {error}", file.display()),
        )
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
        "\n{} jobs, {jobs} at once, at most {} of memory\n",
        plan.jobs.len(),
        text::size(plan.memory_per_job * jobs as u64)
    )
}
