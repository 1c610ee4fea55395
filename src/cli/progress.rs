//! Progress: on a terminal a line for each running database and one for all, else log lines now and
//! then.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::text::{rate, size};
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
            ProgressStyle::with_template("{prefix:24!} {spinner} {msg}").expect("a constant");
        let bar = |name: &str| {
            let bar = self
                .lines
                .add(ProgressBar::new_spinner().with_style(style.clone()));
            bar.set_prefix(name.to_owned());
            bar
        };
        let total = bar("total");
        let mut shown: Vec<Option<(ProgressBar, Instant)>> = Vec::new();
        loop {
            let jobs = board.jobs();
            shown.resize_with(jobs.len(), || None);
            for (job, shown) in jobs.iter().zip(&mut shown) {
                match job.meter.phase() {
                    Phase::Queued => {}
                    Phase::Done => {
                        if let Some((bar, _)) = shown.take() {
                            bar.finish_and_clear();
                        }
                    }
                    Phase::Preparing | Phase::Running | Phase::Committing => {
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
            let speed = rate(dump, start.elapsed().as_secs_f64());
            total.set_message(format!(
                "{} → {}  {speed} MB/s  {} of {} done, {} queued",
                size(dump),
                size(archive),
                count(Phase::Done),
                jobs.len(),
                count(Phase::Queued)
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

fn describe(meter: &Meter, elapsed: Duration) -> String {
    let waiting = match (meter.phase(), meter.waiting_for()) {
        (Phase::Committing, _) => "committing",
        (Phase::Preparing, _) => "asking the server",
        (_, Some(Step::Dump)) => "waiting for dump",
        (_, Some(Step::Upload)) => "waiting for upload",
        (_, _) => "encoding",
    };
    let (dump, archive) = (meter.dump_bytes(), meter.archive_bytes());
    format!(
        "{} → {}  {} MB/s  {waiting}",
        size(dump),
        size(archive),
        rate(dump, elapsed.as_secs_f64())
    )
}
