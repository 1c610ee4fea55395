//! `tapline backup`: plan, run with progress, report.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;

use super::args::{BackupOptions, Timeline};
use super::exit::{Exit, Failure};
use super::{Session, console, inventory, notify, report, text};
use crate::charts::{plot, timeline};
use crate::config::Database;
use crate::engine::StagedDump;
use crate::job::{Interruption, JobError, JobStore};
use crate::notify::Teller;
use crate::run::prepare::PreparedJob;
use crate::run::{self, Board, Plan, RunReport};

pub(super) async fn backup(
    session: &mut Session,
    options: &BackupOptions,
) -> Result<Exit, Failure> {
    let started = Timestamp::now();
    let ended = attempt(session, options).await;
    // Else the report of the last run would stay, and say that all was well.
    if let (Err(failure), Some(file), false) = (&ended, &options.report, options.dry_run)
        && find_folders(options).is_ok()
    {
        let report = report::of_nothing(failure, started);
        if file == Path::new("-") {
            console::out(&report);
        } else if let Err(untold) = write(file, &report) {
            console::error(&untold);
        }
    }
    ended
}

async fn attempt(session: &mut Session, options: &BackupOptions) -> Result<Exit, Failure> {
    let inventory = inventory::load(&session.config, options)?;
    find_folders(options)?;
    let work = async {
        let stores = inventory::stores(&inventory, options).await?;
        let plan = Plan::new(&inventory, stores, &options.names, std::env::current_exe()?)?;
        let found = if options.dry_run {
            run::dry_run(&plan).await
        } else {
            Vec::new()
        };
        Ok((plan, found))
    };
    // What is made up is nobody's backup, and a dry run none.
    let is_real = !options.dry_run && options.source.is_none();
    let teller = is_real.then(|| Teller::begin(&inventory)).flatten();
    let ended = match session.signals.unless(work).await {
        Ok((plan, found)) if options.dry_run => {
            console::out(&describe(&plan, &found));
            return Ok(Exit::Good);
        }
        Ok((plan, _)) => carry_out(session, options, plan).await,
        Err(failure) => Err(failure),
    };
    if let Some(teller) = teller {
        notify::end(teller, session, &ended).await;
    }
    ended.map(|(_, exit)| exit)
}

/// The run, shown and told.
async fn carry_out(
    session: &mut Session,
    options: &BackupOptions,
    plan: Plan,
) -> Result<(RunReport, Exit), Failure> {
    let (display, board) = (session.display.clone(), Arc::<Board>::default());
    let show = {
        let (display, board, bars) = (display.clone(), board.clone(), !options.no_progress);
        AbortOnDropHandle::new(tokio::spawn(
            async move { display.show(&board, bars).await },
        ))
    };
    let interruption = Interruption::default();
    let (cancel, commits) = (interruption.cancel.clone(), interruption.commits.clone());
    let work = run::run(Arc::new(plan), board, interruption);
    let committing = || !commits.is_empty();
    let stopping = "ending dumps, aborting uploads";
    let (report, interrupted) = session
        .signals
        .tidy(&display, stopping, &cancel, committing, work)
        .await?;
    drop(show);
    display.clear();
    let codes = report
        .jobs
        .iter()
        .filter_map(|job| match job.first_failure() {
            Some(failure) => Some(Exit::of_job(failure.kind)),
            None => job.prune_error.as_ref().map(|_| Exit::Failed),
        });
    let exit = match (interrupted, Exit::of_all(codes)) {
        (_, Exit::Good) => Exit::Good,
        (Some(exit), _) | (None, exit) => exit,
    };
    let is_told = tell(options, &report, exit);
    match exit {
        Exit::Good if !is_told => Ok((report, Exit::Untold)),
        exit => Ok((report, exit)),
    }
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
/// keeps nothing else from being told; whether all of it was.
fn tell(options: &BackupOptions, report: &RunReport, exit: Exit) -> bool {
    let to_stdout = options.report.as_deref() == Some(Path::new("-"));
    let mut shown = report::text(report);
    let mut written = vec![match &options.report {
        Some(_) if to_stdout => {
            console::out(&report::json(report, exit));
            Ok(())
        }
        Some(file) => write(file, &report::json(report, exit)),
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
    failures.is_empty()
}

pub(super) fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| {
        let why = format!("cannot write {}: {error}", file.display());
        Failure::new(Exit::Untold, why).step("report")
    };
    std::fs::write(file, text).map_err(failed)
}

/// What a run would do; never a secret.
fn describe(plan: &Plan, found: &[(Database, Result<PreparedJob, JobError>)]) -> String {
    let mut text = String::new();
    for (entry, prepared) in found {
        text += &format!("{} ({})\n", entry.name, entry.engine.name());
        match prepared {
            Err(error) => text += &format!("  would fail  {error}\n"),
            Ok(prepared) => text += &describe_job(plan, entry, prepared),
        }
    }
    let (count, jobs) = (found.len(), plan.at_once.min(found.len()));
    let memory = text::size(plan.memory_per_job.saturating_mul(jobs as u64));
    let count = text::count(count, "job");
    text + &format!("\n{count}, {jobs} at once, at most {memory} of memory\n")
}

fn describe_job(
    plan: &Plan,
    entry: &Database,
    PreparedJob { job, staged, .. }: &PreparedJob,
) -> String {
    let command = staged.as_ref().map_or(&job.command, StagedDump::command);
    let layout = &job.layout;
    let size = text::size;
    let prefix = crate::catalog::database_prefix(&job.database);
    let object = |one: &JobStore| {
        let (store, extension) = (one.store.address(), job.compression.extension());
        format!("{store}/{prefix}BACKUP-ID/….{extension}")
    };
    let objects: Vec<String> = job.stores.iter().map(object).collect();
    let mut lines = vec![
        ("dump", command.display()),
        ("object", objects.join(", ")),
        ("expected", layout.expected.map_or("unknown".into(), size)),
        (
            "parts",
            format!(
                "{} each, {} in flight and one held, {} to a volume",
                size(layout.part),
                layout.in_flight,
                layout.max_parts
            ),
        ),
        (
            "encode",
            format!(
                "{} at a time on {} cores",
                size(layout.segment as u64),
                layout.workers
            ),
        ),
        ("memory", size(layout.memory)),
    ];
    for store in &entry.stores {
        let rules = plan.retention(entry, store);
        if plan.settings.prune_after_backup && !rules.is_empty() {
            let where_to = if entry.stores.len() > 1 {
                format!(" {store}")
            } else {
                String::new()
            };
            lines.push(("then", format!("prune{where_to}, keeping {rules}")));
        }
    }
    let lines: Vec<String> = lines
        .iter()
        .map(|(what, value)| format!("  {what:<8} {value}\n"))
        .collect();
    lines.concat()
}
