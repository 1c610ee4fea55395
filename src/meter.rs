//! What a job does, counted while it does it: bytes, what it waits for, and when each step was
//! busy.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A step of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The engine's tool makes the dump.
    Dump,
    /// The dump becomes an archive.
    Encode,
    /// The archive goes to the store.
    Upload,
}

impl Step {
    /// All steps, in the order of the data path.
    pub const ALL: [Step; 3] = [Step::Dump, Step::Encode, Step::Upload];

    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Step::Dump => "dump",
            Step::Encode => "encode",
            Step::Upload => "upload",
        }
    }
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Waits for a free place among the jobs.
    Queued = 0,
    /// Its server is asked what the job needs.
    Preparing = 1,
    /// Bytes flow.
    Running = 2,
    /// The dump has ended; the last parts, the completion and the manifest are on their way.
    Committing = 3,
    /// Over, well or not.
    Done = 4,
}

/// A span in which a step was busy, in seconds from the run's start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Busy {
    /// The step.
    pub step: Step,
    /// Which of the step's workers, from 0. In a streamed run the three workers of one number are
    /// one place among the jobs at once.
    pub worker: usize,
    /// From.
    pub start: f64,
    /// To.
    pub end: f64,
}

/// Counters of one job; written by the data path, read by the progress display and the report.
#[derive(Debug)]
pub struct Meter {
    epoch: Instant,
    dump_bytes: AtomicU64,
    archive_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    retries: AtomicU64,
    /// About how many bytes the dump will have; 0 is unknown.
    expected: AtomicU64,
    phase: AtomicU8,
    waited: [AtomicU64; 3],
    waiting: [AtomicU64; 3],
    worker: AtomicUsize,
    /// Of each step, ascending by end.
    busy: Mutex<[Vec<Busy>; 3]>,
}

/// Spans of one worker that are closer than this are one span, in seconds; keeps the list short.
const SAME_SPAN: f64 = 0.05;

/// Most spans that are kept of a step; a dump of days has more, and the two of one worker that are
/// closest become one: a report must not grow with the dump.
const MOST_SPANS: usize = 2048;

impl Default for Meter {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl Meter {
    /// A meter whose spans count from `epoch`, the run's start.
    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            dump_bytes: AtomicU64::new(0),
            archive_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Queued as u8),
            waited: Default::default(),
            waiting: Default::default(),
            worker: AtomicUsize::new(0),
            busy: Mutex::default(),
        }
    }

    /// Dump bytes read from the child so far.
    pub fn dump_bytes(&self) -> u64 {
        self.dump_bytes.load(Ordering::Relaxed)
    }

    /// Archive bytes that a store has given receipts for so far.
    pub fn archive_bytes(&self) -> u64 {
        self.archive_bytes.load(Ordering::Relaxed)
    }

    /// The same of all its stores together.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Store operations that were tried again so far.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// About how many bytes the dump will have, where that is known.
    pub fn expected(&self) -> Option<u64> {
        Some(self.expected.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Says about how many bytes the dump will have.
    pub fn expect(&self, bytes: Option<u64>) {
        self.expected.store(bytes.unwrap_or(0), Ordering::Relaxed);
    }

    /// Where the job is.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Queued,
            1 => Phase::Preparing,
            2 => Phase::Running,
            3 => Phase::Committing,
            _ => Phase::Done,
        }
    }

    /// How long the job has waited for `step` in all.
    pub fn waited(&self, step: Step) -> Duration {
        Duration::from_nanos(self.waited[step as usize].load(Ordering::Relaxed))
    }

    /// Which step the job waits for at this moment: the one farthest down the path that is waited
    /// for.
    pub fn waiting_for(&self) -> Option<Step> {
        Step::ALL
            .into_iter()
            .rev()
            .find(|step| self.waiting[*step as usize].load(Ordering::Relaxed) > 0)
    }

    /// When each step was busy, step by step, merged where spans of one worker nearly touch.
    pub fn busy_spans(&self) -> Vec<Busy> {
        self.busy.lock().expect("no holder panics").concat()
    }

    /// What was dumped and stored is gone: the job begins again from the start.
    pub fn begin_again(&self) {
        self.dump_bytes.store(0, Ordering::Relaxed);
        self.archive_bytes.store(0, Ordering::Relaxed);
        self.set_phase(Phase::Queued);
    }

    /// Counts dump bytes.
    pub fn add_dump(&self, bytes: u64) {
        self.dump_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts archive bytes.
    pub fn add_archive(&self, bytes: u64) {
        self.archive_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The whole archive is stored, by a single request to each store.
    pub fn archive_is(&self, bytes: u64) {
        self.archive_bytes.fetch_max(bytes, Ordering::Relaxed);
        self.add_sent(bytes);
    }

    /// Counts archive bytes, of every store.
    pub fn add_sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a store operation that is tried again.
    pub fn add_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Says where the job is.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Says which worker, from 0, does what is recorded from here on.
    pub fn set_worker(&self, worker: usize) {
        self.worker.store(worker, Ordering::Relaxed);
    }

    /// Awaits `work` and counts the time as waited for `step`.
    pub async fn wait_for<T>(&self, step: Step, work: impl Future<Output = T>) -> T {
        struct Waiting<'a>(&'a Meter, Step, Instant);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.waiting[self.1 as usize].fetch_sub(1, Ordering::Relaxed);
                let nanos = u64::try_from(self.2.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.0.waited[self.1 as usize].fetch_add(nanos, Ordering::Relaxed);
            }
        }
        self.waiting[step as usize].fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(self, step, Instant::now());
        work.await
    }

    /// Awaits room for the next segment and counts the time as waited for encode, but for what
    /// meanwhile went into waiting for upload: that is why there was no room.
    pub async fn wait_for_encode<T>(&self, room: impl Future<Output = T>) -> T {
        let (start, upload) = (Instant::now(), self.waited(Step::Upload));
        let room = room.await;
        let blocked = start
            .elapsed()
            .saturating_sub(self.waited(Step::Upload).saturating_sub(upload));
        let nanos = u64::try_from(blocked.as_nanos()).unwrap_or(u64::MAX);
        self.waited[Step::Encode as usize].fetch_add(nanos, Ordering::Relaxed);
        room
    }

    /// Records that `step` was busy from `start` until now.
    pub fn was_busy(&self, step: Step, start: Instant) {
        let (start, end) = (
            (start - self.epoch).as_secs_f64(),
            self.epoch.elapsed().as_secs_f64(),
        );
        let mut span = Busy {
            step,
            worker: self.worker.load(Ordering::Relaxed),
            start,
            end,
        };
        let spans = &mut self.busy.lock().expect("no holder panics")[step as usize];
        while let Some(last) =
            spans.pop_if(|last| last.worker == span.worker && span.start <= last.end + SAME_SPAN)
        {
            span.start = span.start.min(last.start);
            span.end = span.end.max(last.end);
        }
        spans.push(span);
        if spans.len() > MOST_SPANS {
            merge_closest(spans);
        }
    }
}

/// Halves the number of spans: each with the next of its worker, the closest first.
fn merge_closest(spans: &mut Vec<Busy>) {
    let mut gaps: Vec<(f64, usize, usize)> = Vec::new();
    let mut last: std::collections::HashMap<usize, usize> = std::collections::HashMap::new();
    for (at, span) in spans.iter().enumerate() {
        if let Some(before) = last.insert(span.worker, at) {
            gaps.push((span.start - spans[before].end, before, at));
        }
    }
    gaps.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut gone = vec![false; spans.len()];
    let mut touched = vec![false; spans.len()];
    for (_, before, at) in gaps.into_iter().take(MOST_SPANS) {
        if touched[before] || touched[at] {
            continue;
        }
        (touched[before], touched[at], gone[before]) = (true, true, true);
        spans[at].start = spans[at].start.min(spans[before].start);
        spans[at].end = spans[at].end.max(spans[before].end);
    }
    let mut gone = gone.into_iter();
    spans.retain(|_| !gone.next().unwrap_or(false));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_one_worker_that_touch_are_one() {
        let epoch = Instant::now().checked_sub(Duration::from_mins(1)).unwrap();
        let meter = Meter::new(epoch);
        let now = Instant::now();
        let before = |seconds: u64| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        meter.was_busy(Step::Upload, before(5));
        meter.was_busy(Step::Upload, before(1));
        meter.was_busy(Step::Upload, before(9));
        meter.was_busy(Step::Dump, before(2));
        meter.set_worker(3);
        meter.was_busy(Step::Upload, before(4));
        let spans = meter.busy_spans();
        let shown: Vec<_> = spans
            .iter()
            .map(|span| (span.step, span.worker, span.start.round()))
            .collect();
        assert_eq!(
            shown,
            [
                (Step::Dump, 0, 58.0),
                (Step::Upload, 0, 51.0),
                (Step::Upload, 3, 56.0)
            ]
        );
    }

    #[test]
    fn spans_of_a_dump_of_days_are_bounded_and_still_cover_it() {
        let epoch = Instant::now().checked_sub(Duration::from_hours(1)).unwrap();
        let meter = Meter::new(epoch);
        let first = Instant::now();
        // Those of one worker that touch are one, but not behind another's back.
        for n in 0..100_000 {
            meter.set_worker(n % 3);
            let start = if n == 0 { first } else { Instant::now() };
            meter.was_busy(Step::Encode, start);
        }
        let last = epoch.elapsed().as_secs_f64();
        let spans = meter.busy_spans();
        assert!(
            spans.len() <= MOST_SPANS && spans.len() > MOST_SPANS / 4,
            "{}",
            spans.len()
        );
        let (first, covered) = ((first - epoch).as_secs_f64(), spans.iter());
        let start = covered
            .clone()
            .map(|span| span.start)
            .fold(f64::MAX, f64::min);
        let end = covered.map(|span| span.end).fold(0.0, f64::max);
        assert!((start - first).abs() < 1e-6, "{start} and {first}");
        assert!(end <= last && end > last - 1.0, "{end} and {last}");
    }
}
