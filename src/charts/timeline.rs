//! A run as the textbook picture of a pipeline: a row for each worker, a column for each slot of
//! time, in the cell a letter for the database that the worker was busy with.
//!
//! ```text
//! dump 1     AAAAAAAABBBBBBBBBCCCCC
//! archive 1   AAAAAAAABBBBBBBBBCCCCC
//! upload 1      AAAAAAAABBBBBBBBBCCCCC
//!            ┴─────────┴─────────┴──────
//!            0 s       2 s       4 s
//! ```

use crate::meter::Step;
use crate::run::RunReport;
use crate::units::time;

/// A database has one of these; those after the last share [`OTHERS`].
const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const OTHERS: char = '#';
/// Width where none is known: not a terminal.
const COLUMNS: u16 = 80;
/// Ticks of the axis are this many columns apart at least.
const BETWEEN_TICKS: usize = 10;

/// The rows of the picture, and what is in them.
pub struct Timeline<'a> {
    /// A row for each worker, step by step.
    pub rows: Vec<Row>,
    /// The databases in the picture, in the run's order.
    pub databases: Vec<&'a str>,
    /// Where the axis ends, in seconds from the run's start.
    pub end: f64,
}

/// What one worker did.
pub struct Row {
    /// Its step.
    pub step: Step,
    /// Its name, such as `dump 1`.
    pub name: String,
    /// When it was busy.
    pub bars: Vec<Bar>,
}

/// A span in which a worker was busy with one database.
pub struct Bar {
    /// The database, by its place in the list.
    pub database: usize,
    /// From, in seconds from the run's start.
    pub start: f64,
    /// To.
    pub end: f64,
}

impl<'a> Timeline<'a> {
    /// Sorts a run's spans into rows.
    pub fn of(report: &'a RunReport) -> Self {
        let jobs: Vec<_> = report
            .jobs
            .iter()
            .filter(|job| !job.busy.is_empty())
            .collect();
        let spans = || {
            jobs.iter()
                .enumerate()
                .flat_map(|(at, job)| job.busy.iter().map(move |span| (at, span)))
        };
        let mut workers: Vec<(usize, usize)> = spans()
            .map(|(_, span)| (span.step as usize, span.worker))
            .collect();
        workers.sort_unstable();
        workers.dedup();
        let row = |(step, worker): (usize, usize)| {
            let step = Step::ALL[step];
            let own = spans().filter(|(_, span)| (span.step, span.worker) == (step, worker));
            Row {
                step,
                name: format!("{} {}", title(step), worker + 1),
                bars: own
                    .map(|(database, span)| Bar {
                        database,
                        start: span.start,
                        end: span.end,
                    })
                    .collect(),
            }
        };
        Self {
            rows: workers.into_iter().map(row).collect(),
            databases: jobs.iter().map(|job| job.database.as_str()).collect(),
            end: spans()
                .map(|(_, span)| span.end)
                .fold(report.seconds, f64::max),
        }
    }
}

/// A step as the picture names it.
fn title(step: Step) -> &'static str {
    match step {
        Step::Encode => "archive",
        step => step.name(),
    }
}

/// The picture, as wide as the terminal.
pub fn text(report: &RunReport) -> String {
    let width = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| size.ws_col);
    draw(
        &Timeline::of(report),
        if width == 0 { COLUMNS } else { width }.into(),
    )
}

fn draw(timeline: &Timeline, width: usize) -> String {
    let margin = timeline
        .rows
        .iter()
        .map(|row| row.name.len())
        .max()
        .unwrap_or_default()
        + 2;
    let slots = width.saturating_sub(margin).max(BETWEEN_TICKS);
    let mut picture = String::new();
    for row in &timeline.rows {
        let cells = cells(row, timeline, slots);
        picture += format!("{:margin$}{cells}", row.name).trim_end();
        picture.push('\n');
    }
    for line in axis(timeline.end, slots) {
        picture += &format!("{:margin$}{}\n", "", line.trim_end());
    }
    picture + &legend(&timeline.databases, width)
}

/// One row's cells: of the databases in a slot the one with the most time in it.
#[expect(clippy::cast_precision_loss, reason = "few columns")]
fn cells(row: &Row, timeline: &Timeline, slots: usize) -> String {
    let slot = timeline.end / slots as f64;
    let cell = |at: usize| {
        let (from, to) = (at as f64 * slot, (at + 1) as f64 * slot);
        let mut time = vec![0.0; timeline.databases.len()];
        for bar in &row.bars {
            time[bar.database] += (bar.end.min(to) - bar.start.max(from)).max(0.0);
        }
        let most = time.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        most.filter(|(_, time)| **time > 0.0)
            .map_or(' ', |(database, _)| letter(database))
    };
    (0..slots).map(cell).collect()
}

/// The letter of a database, by its place in the list.
pub fn letter(database: usize) -> char {
    LETTERS
        .get(database)
        .map_or(OTHERS, |letter| char::from(*letter))
}

/// The axis: ticks, and below them their times.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "few columns"
)]
fn axis(end: f64, slots: usize) -> [String; 2] {
    let most = (slots / BETWEEN_TICKS).max(1);
    let (mut line, mut times) = (vec!['─'; slots], vec![' '; slots]);
    for tick in ticks(end, most) {
        let at = (tick / end * slots as f64).round() as usize;
        let label: Vec<char> = tick_name(tick).chars().collect();
        if at + label.len() <= slots {
            line[at] = '┴';
            times[at..at + label.len()].copy_from_slice(&label);
        }
    }
    [line.into_iter().collect(), times.into_iter().collect()]
}

/// At most `most` + 1 round times from 0 to `end`, evenly apart.
pub fn ticks(end: f64, most: usize) -> Vec<f64> {
    /// Round numbers of seconds, minutes and hours; above a day and below a second, by tens.
    const ROUND: [f64; 17] = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0,
        14_400.0, 43_200.0, 86_400.0,
    ];
    if end <= 0.0 {
        return vec![0.0];
    }
    #[expect(clippy::cast_precision_loss, reason = "few ticks")]
    let least = end / most as f64;
    let fine = [0.001, 0.01, 0.1]
        .into_iter()
        .flat_map(|unit| [unit, 2.0 * unit, 5.0 * unit]);
    let mut steps = fine.chain(ROUND);
    let step = steps
        .find(|step| *step >= least)
        .unwrap_or_else(|| (least / 86_400.0).ceil() * 86_400.0);
    std::iter::successors(Some(0u32), |count| Some(count + 1))
        .map(|count| f64::from(count) * step)
        .take_while(|tick| *tick <= end)
        .collect()
}

/// A tick's time: `0 s`, `1.5 s`, `2 min 30 s`.
pub fn tick_name(tick: f64) -> String {
    let name = if tick < 60.0 {
        format!("{} s", (tick * 1e3).round() / 1e3)
    } else {
        time(tick)
    };
    name.replace(" min 0 s", " min").replace(" h 0 min", " h")
}

/// Letter and name of each database, in lines that fit.
fn legend(databases: &[&str], width: usize) -> String {
    let (named, rest) = databases.split_at(databases.len().min(LETTERS.len()));
    let mut entries: Vec<String> = named
        .iter()
        .enumerate()
        .map(|(at, name)| format!("{} {name}", letter(at)))
        .collect();
    if !rest.is_empty() {
        entries.push(format!("{OTHERS} {} others", rest.len()));
    }
    let (mut legend, mut line) = (String::new(), String::new());
    for entry in entries {
        if !line.is_empty() && line.chars().count() + 3 + entry.chars().count() > width {
            legend += &format!("{line}\n");
            line.clear();
        }
        line += if line.is_empty() { "" } else { "   " };
        line += &entry;
    }
    if line.is_empty() {
        legend
    } else {
        format!("\n{legend}{line}\n")
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::catalog::Mode;
    use crate::meter::Busy;
    use crate::run::resources::Resources;
    use crate::run::{JobReport, JobResult, Waited};

    /// A span: step, worker, start, end.
    type Span = (Step, usize, f64, f64);

    /// A report of jobs with spans.
    pub fn report(jobs: &[(&str, &[Span])]) -> RunReport {
        let job = |(name, spans): &(&str, &[Span])| JobReport {
            database: (*name).into(),
            engine: "command".into(),
            store: "memory:".into(),
            stores: Vec::new(),
            dump_format: None,
            result: JobResult::Stored,
            backup_id: None,
            error: None,
            failure: None,
            warnings: Vec::new(),
            failed_tries: Vec::new(),
            started: None,
            objects: Vec::new(),
            dump_bytes: 0,
            archive_bytes: 0,
            seconds: 1.0,
            waited: Waited {
                dump: 0.0,
                encode: 0.0,
                upload: 0.0,
            },
            retries: 0,
            pruned: 0,
            prune_error: None,
            busy: spans
                .iter()
                .map(|&(step, worker, start, end)| Busy {
                    step,
                    worker,
                    start,
                    end,
                })
                .collect(),
        };
        RunReport {
            version: 1,
            tapline: "0".into(),
            host: "h".into(),
            mode: Mode::Streamed,
            started: jiff::Timestamp::UNIX_EPOCH,
            seconds: 3.5,
            resources: Resources::taken(0),
            jobs: jobs.iter().map(job).collect(),
        }
    }

    #[test]
    fn overlapping_jobs_are_a_staircase() {
        use Step::{Dump, Encode, Upload};
        let report = report(&[
            (
                "shop",
                &[
                    (Dump, 0, 0.0, 1.0),
                    (Encode, 0, 0.5, 1.5),
                    (Upload, 0, 1.0, 2.5),
                ],
            ),
            ("idle", &[]),
            (
                "events",
                &[
                    (Dump, 0, 1.0, 3.0),
                    (Dump, 1, 1.0, 1.1),
                    (Encode, 0, 1.5, 3.5),
                    (Upload, 0, 2.5, 4.0),
                ],
            ),
        ]);
        let expected = "\
dump 1     AAAAAAAAAABBBBBBBBBBBBBBBBBBBB
dump 2               B
archive 1       AAAAAAAAAABBBBBBBBBBBBBBBBBBBB
upload 1             AAAAAAAAAAAAAAABBBBBBBBBBBBBBB
           ┴─────────┴─────────┴─────────┴─────────
           0 s       1 s       2 s       3 s

A shop   B events
";
        assert_eq!(draw(&Timeline::of(&report), 51), expected);
    }

    #[test]
    fn a_slot_shows_the_database_with_the_most_time_in_it() {
        use Step::Dump;
        let report = report(&[
            ("a", &[(Dump, 0, 0.0, 0.2), (Dump, 0, 0.5, 0.7)]),
            ("b", &[(Dump, 0, 0.2, 0.5)]),
        ]);
        let timeline = Timeline {
            end: 10.0,
            ..Timeline::of(&report)
        };
        assert_eq!(cells(&timeline.rows[0], &timeline, 10), "A         ");
    }

    #[test]
    fn any_number_of_databases_and_any_duration_fit() {
        let names: Vec<String> = (0..100).map(|n| format!("database {n}")).collect();
        let jobs: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), &[(Step::Dump, 0, 0.0, 90_000.0)][..]))
            .collect();
        let report = report(&jobs);
        for width in [1, 20, 80, 300] {
            let picture = draw(&Timeline::of(&report), width);
            assert!(picture.contains("# 38 others"), "{picture}");
            assert!(
                picture
                    .lines()
                    .all(|line| line.chars().count() <= width.max(20)),
                "{picture}"
            );
        }
        assert_eq!(
            draw(&Timeline::of(&self::report(&[])), 40).lines().count(),
            2
        );
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(4.0, 4), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(ticks(100.0, 5), [0.0, 30.0, 60.0, 90.0]);
        assert_eq!(ticks(0.0, 5), [0.0]);
        assert!(ticks(1e7, 5).len() <= 6);
        assert_eq!(
            [0.0, 0.25, 90.0, 120.0, 7200.0].map(tick_name),
            ["0 s", "0.25 s", "1 min 30 s", "2 min", "2 h"]
        );
    }
}
