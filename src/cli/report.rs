//! The end of a run: a table for people, JSON for programs.

use super::text::{rate, ratio, size, table, time};
use crate::run::{JobReport, JobResult, RunReport, Waited};
use crate::units;

/// The table, the errors in full, and a line that sums up.
pub(super) fn text(report: &RunReport) -> String {
    let header = [
        "DATABASE",
        "DUMP",
        "ARCHIVE",
        "RATIO",
        "TIME",
        "MB/s",
        "BOUNDED BY",
        "RESULT",
    ];
    let rows = report.jobs.iter().map(|job| {
        [
            job.database.clone(),
            size(job.dump_bytes),
            size(job.archive_bytes),
            ratio(job.dump_bytes, job.archive_bytes),
            time(job.seconds),
            rate(job.dump_bytes, job.seconds),
            bounded_by(&job.waited),
            name(job.result).into(),
        ]
    });
    let mut text = table(header, rows);
    for JobReport {
        database,
        error,
        prune_error,
        ..
    } in &report.jobs
    {
        if let Some(error) = error {
            text += &format!("\n{database}: {error}\n");
        }
        if let Some(error) = prune_error {
            text += &format!("\n{database}: stored, but pruning failed: {error}\n");
        }
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
        count(JobResult::Stored),
        report.jobs.len()
    );
    for result in [JobResult::Failed, JobResult::Cancelled] {
        if count(result) > 0 {
            text += &format!(", {} {}", count(result), name(result));
        }
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
        JobResult::Failed => "failed",
        JobResult::Cancelled => "cancelled",
    }
}

/// The share of each step in the time waited, the largest first: `dump 71% encode 20% upload 9%`.
fn bounded_by(waited: &Waited) -> String {
    let mut shares = [
        ("dump", waited.dump),
        ("encode", waited.encode),
        ("upload", waited.upload),
    ];
    let total: f64 = shares.iter().map(|(_, seconds)| seconds).sum();
    if total <= 0.0 {
        return "-".into();
    }
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
        .map(|(step, seconds)| format!("{step} {:.0}%", 100.0 * seconds / total))
        .join(" ")
}

/// The report as JSON. Its fields are those of [`RunReport`]; `version` changes when one changes
/// its meaning.
pub(super) fn json(report: &RunReport) -> String {
    serde_json::to_string_pretty(report).expect("a report has only string keys") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bounded_a_job_comes_first() {
        let waited = Waited {
            dump: 1.0,
            encode: 6.0,
            upload: 3.0,
        };
        assert_eq!(bounded_by(&waited), "encode 60% upload 30% dump 10%");
        assert_eq!(
            bounded_by(&Waited {
                dump: 0.0,
                encode: 0.0,
                upload: 0.0
            }),
            "-"
        );
    }
}
