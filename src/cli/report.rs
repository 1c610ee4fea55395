//! The end of a run: a table for people, JSON for programs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::text::{rate, size, table_of_names, time};
use crate::meter::Step;
use crate::run::{JobReport, JobResult, RunReport, Waited, hostname};
use crate::units;

/// A backup that takes longer, in seconds, may want to be faster.
const SLOW: f64 = 60.0;
/// A step with so large a share in what was waited for is what it is slow by.
const CLEAR: f64 = 0.6;

/// The table, the errors in full, what would be faster, and a line that sums up.
pub(super) fn text(report: &RunReport) -> String {
    let header = [
        "DATABASE", "RESULT", "DUMP", "ARCHIVE", "TIME", "MB/s", "BOUND BY",
    ];
    let rows = report.jobs.iter().map(|job| {
        [
            job.database.clone(),
            name(job.result).into(),
            size(job.dump_bytes),
            size(job.archive_bytes),
            time(job.seconds),
            rate(job.dump_bytes, job.seconds),
            bound_by(&job.waited),
        ]
    });
    let mut text = table_of_names(header, rows);
    for JobReport {
        database,
        error,
        prune_error,
        warnings,
        ..
    } in &report.jobs
    {
        for warning in warnings {
            text += &format!("\n{database}: warning: {warning}\n");
        }
        if let Some(error) = error {
            text += &format!("\n{database}: {error}\n");
        }
        if let Some(error) = prune_error {
            text += &format!("\n{database}: stored, but pruning failed: {error}\n");
        }
    }
    for (advice, databases) in advised(&report.jobs) {
        text += &format!("\n{}: {advice}\n", databases.join(", "));
    }
    let count = |result| {
        report
            .jobs
            .iter()
            .filter(|job| job.result == result)
            .count()
    };
    text += &format!(
        "\n{} of {} stored",
        report.jobs.iter().filter(|job| job.is_stored()).count(),
        report.jobs.len()
    );
    let others = [
        JobResult::CopyMissing,
        JobResult::Failed,
        JobResult::Cancelled,
    ];
    for result in others {
        if count(result) > 0 {
            text += &format!(", {} {}", count(result), name(result));
        }
    }
    let warnings: usize = report.jobs.iter().map(|job| job.warnings.len()).sum();
    if warnings > 0 {
        text += &format!(", {}", units::count(warnings, "warning"));
    }
    let pruned: usize = report.jobs.iter().map(|job| job.pruned).sum();
    if pruned > 0 {
        text += &format!(", {} pruned", units::count(pruned, "earlier backup"));
    }
    text + &format!(" in {}\n", time(report.seconds))
}

fn name(result: JobResult) -> &'static str {
    match result {
        JobResult::Stored => "stored",
        JobResult::CopyMissing => "copy missing",
        JobResult::Failed => "failed",
        JobResult::Cancelled => "cancelled",
    }
}

/// The step that was waited for most, and its share in the time waited.
fn bound(waited: &Waited) -> Option<(Step, f64)> {
    let shares = [
        (Step::Dump, waited.dump),
        (Step::Encode, waited.encode),
        (Step::Upload, waited.upload),
    ];
    let total: f64 = shares.iter().map(|(_, seconds)| seconds).sum();
    let largest = shares.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
    let (step, seconds) = largest.filter(|_| total > 0.0)?;
    Some((step, seconds / total))
}

/// The same in words: `dump 71%`.
fn bound_by(waited: &Waited) -> String {
    bound(waited).map_or("-".into(), |(step, share)| {
        format!("{} {:.0}%", step.name(), 100.0 * share)
    })
}

/// What would make the backups of some databases faster, and which they are.
fn advised(jobs: &[JobReport]) -> BTreeMap<&'static str, Vec<&str>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for job in jobs.iter().filter(|job| job.is_stored()) {
        if let Some(advice) = advice(&job.engine, job.seconds, &job.waited) {
            all.entry(advice).or_default().push(job.database.as_str());
        }
    }
    all
}

/// What would make a backup faster that took so many seconds; nothing where it was quick, or where
/// no step stands out.
fn advice(engine: &str, seconds: f64, waited: &Waited) -> Option<&'static str> {
    let (step, _) = bound(waited).filter(|(_, share)| seconds >= SLOW && *share >= CLEAR)?;
    match step {
        Step::Dump if engine == "postgres" => {
            Some("waited for the dump: `parallel` reads a database by more sessions at once")
        }
        // One process is all that its tool has.
        Step::Dump => None,
        Step::Encode => Some(
            "waited for the compression: zstd at level 1 takes the least time, a lower level less, \
             and more cores are used where there are any",
        ),
        Step::Upload => Some(
            "waited for the store: its `connections` and more `run.memory` put more parts on their \
             way at once, if the line has room",
        ),
    }
}

/// The report as JSON. Its fields are those of [`RunReport`] and how the program ends, unless what
/// it says cannot be written; `version` changes when one changes its meaning.
pub(super) fn json(report: &RunReport, exit: Exit) -> String {
    #[derive(Serialize)]
    struct Told<'a> {
        #[serde(flatten)]
        report: &'a RunReport,
        exit_code: u8,
    }
    let exit_code = exit as u8;
    super::text::json(&Told { report, exit_code })
}

/// The report of a run that did not come as far as its jobs.
pub(super) fn of_nothing(failure: &Failure, started: Timestamp) -> String {
    let report = serde_json::json!({
        "version": 1,
        "tapline": env!("CARGO_PKG_VERSION"),
        "host": hostname(),
        "started": started,
        "seconds": Timestamp::now().duration_since(started).as_secs_f64().max(0.0),
        "jobs": [],
        "error": failure.message,
        "exit_code": failure.exit as u8,
    });
    super::text::json(&report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bounded_a_job_most_is_named_and_what_to_do_about_it() {
        let waited = |dump, encode, upload| Waited {
            dump,
            encode,
            upload,
        };
        assert_eq!(bound_by(&waited(1.0, 6.0, 3.0)), "encode 60%");
        assert_eq!(bound_by(&waited(0.0, 0.0, 0.0)), "-");

        let of = |engine, seconds, waited| advice(engine, seconds, &waited).unwrap_or_default();
        assert!(of("postgres", 90.0, waited(9.0, 1.0, 0.0)).contains("`parallel`"));
        assert!(of("mariadb", 90.0, waited(1.0, 9.0, 0.0)).contains("level"));
        assert!(of("mariadb", 90.0, waited(1.0, 0.0, 9.0)).contains("`connections`"));
        assert_eq!(of("mariadb", 90.0, waited(9.0, 1.0, 0.0)), "");
        assert_eq!(of("postgres", 9.0, waited(9.0, 1.0, 0.0)), "");
        assert_eq!(of("postgres", 90.0, waited(5.0, 4.0, 0.0)), "");
    }
}
