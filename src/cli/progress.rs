//! Progress: on a terminal a line for each running database and one for all, else log lines now and
//! then.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::text::{cut, rate, size, time};
use crate::catalog::BackupName;
use crate::meter::{Meter, Phase, Step};
use crate::restore::Stored;
use crate::run::Board;

const REDRAW: Duration = Duration::from_millis(150);
const LOG: Duration = Duration::from_secs(30);

/// The terminal, if stderr is one.
#[derive(Debug, Clone)]
pub(super) struct Display {
    lines: MultiProgress,
    terminal: bool,
}

impl Display {
    pub fn new() -> Self {
        Self {
            lines: MultiProgress::new(),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Does `work` while no progress line is on the screen.
    pub fn suspend<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.terminal {
            self.lines.suspend(work)
        } else {
            work()
        }
    }

    /// Shows how the jobs on the board are doing; never returns, to be dropped when they are done.
    pub async fn show(&self, board: &Board, bars: bool) {
        let start = Instant::now();
        if !(bars && self.terminal) {
            loop {
                tokio::time::sleep(LOG).await;
                let jobs = board.jobs();
                for job in jobs
                    .iter()
                    .filter(|job| job.meter.phase() == Phase::Running)
                {
                    let line = describe(&job.meter, start.elapsed());
                    tracing::info!(database = job.database, "{line}");
                }
            }
        }
        let style =
            ProgressStyle::with_template("{prefix:16} {spinner} {wide_msg}").expect("a constant");
        let bar = |name: &str| {
            let bar = self
                .lines
                .add(ProgressBar::new_spinner().with_style(style.clone()));
            bar.set_prefix(cut(name, 16));
            bar
        };
        let total = bar("total");
        let mut shown: Vec<Option<(ProgressBar, Instant)>> = Vec::new();
        let mut lines = 0;
        loop {
            // One for the total, one for the cursor.
            let room = usize::from(console_rows().saturating_sub(2)).max(1);
            let jobs = board.jobs();
            shown.resize_with(jobs.len(), || None);
            for (job, shown) in jobs.iter().zip(&mut shown) {
                match job.meter.phase() {
                    Phase::Queued => {}
                    Phase::Done => {
                        if let Some((bar, _)) = shown.take() {
                            lines -= 1;
                            bar.finish_and_clear();
                        }
                    }
                    // The total stays in sight: who has no line left is counted there.
                    _ if shown.is_none() && lines >= room => {}
                    Phase::Preparing | Phase::Running | Phase::Committing => {
                        lines += usize::from(shown.is_none());
                        let (bar, since) = shown.get_or_insert_with(|| {
                            let bar = self.lines.insert_before(&total, bar(&job.database));
                            (bar, Instant::now())
                        });
                        bar.set_message(describe(&job.meter, since.elapsed()));
                        bar.tick();
                    }
                }
            }
            let count = |phase| jobs.iter().filter(|job| job.meter.phase() == phase).count();
            let sum = |bytes: fn(&Meter) -> u64| jobs.iter().map(|job| bytes(&job.meter)).sum();
            let (dump, archive): (u64, u64) = (sum(Meter::dump_bytes), sum(Meter::archive_bytes));
            let speed = rate(dump, start.elapsed().as_secs_f64().max(1.0));
            total.set_message(format!(
                "{} of {} done, {} waiting  {} → {}  {speed} MB/s",
                count(Phase::Done),
                jobs.len(),
                count(Phase::Queued),
                size(dump),
                size(archive),
            ));
            total.tick();
            tokio::time::sleep(REDRAW).await;
        }
    }

    /// Shows how far the archive has been read; never returns, to be dropped when it is over.
    pub async fn show_read(&self, name: &BackupName, stored: &Stored, bars: bool) {
        let (start, total, progress) = (
            Instant::now(),
            stored.manifest.archive.size,
            &stored.progress,
        );
        let describe = || {
            let rate = rate(progress.written(), start.elapsed().as_secs_f64());
            format!(
                "{} of {} → {}  {rate} MB/s",
                size(progress.fetched()),
                size(total),
                size(progress.written())
            )
        };
        if !(bars && self.terminal) {
            loop {
                tokio::time::sleep(LOG).await;
                tracing::info!(backup = %name, "{}", describe());
            }
        }
        let style = ProgressStyle::with_template("{prefix} {bar:24} {percent}%  {msg}")
            .expect("a constant");
        let bar = self.lines.add(
            ProgressBar::new(total)
                .with_style(style)
                .with_prefix(name.to_string()),
        );
        loop {
            bar.set_position(progress.fetched());
            bar.set_message(describe());
            tokio::time::sleep(REDRAW).await;
        }
    }

    /// Takes the progress lines away.
    pub fn clear(&self) {
        let _ = self.lines.clear();
    }
}

/// Rows of the terminal; 24 when it does not say.
fn console_rows() -> u16 {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.map(|size| size.ws_row)
        .ok()
        .filter(|rows| *rows > 0)
        .unwrap_or(24)
}

/// `42%  1.2 GiB → 310 MiB  25.8 MB/s  3 min 2 s left  upload`, the share and the time left where
/// the size is known.
fn describe(meter: &Meter, elapsed: Duration) -> String {
    let waiting = match (meter.phase(), meter.waiting_for()) {
        (Phase::Committing, _) => "commit",
        (Phase::Preparing, _) => "asking the server",
        (_, Some(Step::Dump)) => "dump",
        (_, Some(Step::Upload)) => "upload",
        (_, _) => "encode",
    };
    let (dump, archive) = (meter.dump_bytes(), meter.archive_bytes());
    // In its first moments a job has no rate yet, only what a pipe holds.
    let speed = rate(dump, elapsed.as_secs_f64().max(1.0));
    let moved = format!("{} → {}  {speed} MB/s", size(dump), size(archive));
    match meter
        .expected()
        .map(|expected| ahead(dump, expected, elapsed))
    {
        Some((percent, Some(left))) => {
            format!("{percent}%  {moved}  {} left  {waiting}", time(left))
        }
        Some((percent, None)) => format!("{percent}%  {moved}  {waiting}"),
        None => format!("{moved}  {waiting}"),
    }
}

/// The share that is done, and the seconds that the rest takes at the same speed. An estimate is
/// never over before the dump is.
fn ahead(done: u64, expected: u64, elapsed: Duration) -> (u64, Option<f64>) {
    let percent = (u128::from(done) * 100 / u128::from(expected.max(1))).min(99);
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    let left = elapsed.as_secs_f64() * expected.saturating_sub(done) as f64 / done.max(1) as f64;
    let is_known = done > 0 && done < expected && elapsed > Duration::from_secs(2);
    (
        u64::try_from(percent).unwrap_or(99),
        is_known.then_some(left),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_was_full_at_the_first_look_is_no_rate() {
        let meter = Meter::new(Instant::now());
        meter.add_dump(64 << 10);
        let line = describe(&meter, Duration::from_nanos(300));
        assert!(line.contains("  0.1 MB/s"), "{line}");
    }

    #[test]
    fn percent_and_time_left_follow_the_expected_size() {
        let minute = Duration::from_mins(1);
        assert_eq!(ahead(25, 100, minute), (25, Some(180.0)));
        assert_eq!(ahead(0, 100, minute), (0, None));
        // More than was expected.
        assert_eq!(ahead(300, 100, minute), (99, None));
        assert_eq!(ahead(u64::MAX, u64::MAX, minute), (99, None));
        let meter = Meter::new(Instant::now());
        meter.expect(Some(400));
        meter.add_dump(100);
        assert!(describe(&meter, minute).starts_with("25%  100 B → 0 B  0.0 MB/s  3 min 0 s left"));
    }
}
