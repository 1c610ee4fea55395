//! How long one try of a request may take, and the watch that ends one whose bytes have stopped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::time::Instant;

/// How long one try may take. A body may take as long as its bytes move: 10 kB/s is slow and not
/// broken, and a try that is ended early has to send all of it again.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// To be connected, TLS included.
    pub connect: Duration,
    /// In which not one byte of a body moves, either way.
    pub stall: Duration,
    /// From a request's last byte to its reply's. What lies in the sockets' buffers and proxies'
    /// memory on the way is still being sent then: 5 minutes empty 30 MB at 100 kB/s.
    pub reply: Duration,
    /// The same for a completion, for which S3 says "several minutes":
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>.
    pub completion: Duration,
    /// From beginning to end of a request that carries nothing, such as a listing's page.
    pub small: Duration,
}

impl Timeouts {
    /// The same for all of them.
    pub fn all(time: Duration) -> Self {
        Self {
            connect: time,
            stall: time,
            reply: time,
            completion: time,
            small: time,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_mins(1),
            reply: Duration::from_mins(5),
            completion: Duration::from_mins(10),
            small: Duration::from_mins(1),
        }
    }
}

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How far a try's body has come.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Moments>);

#[derive(Debug)]
struct Moments {
    /// When the last byte was taken, in milliseconds since the epoch.
    moved: AtomicU64,
    /// Bytes that are still to be taken.
    left: AtomicU64,
}

impl Progress {
    pub(super) fn of(length: u64) -> Self {
        Self(Arc::new(Moments {
            moved: AtomicU64::new(since_epoch()),
            left: AtomicU64::new(length),
        }))
    }

    pub(super) fn moved_to(&self, left: u64) {
        self.0.left.store(left, Ordering::Relaxed);
        self.0.moved.store(since_epoch(), Ordering::Relaxed);
    }

    /// The next byte is to be taken no sooner than at `turn`; until then nothing stands still.
    pub(super) fn moves_at(&self, turn: Instant) {
        let turn = turn.saturating_duration_since(*EPOCH).as_millis();
        let turn = u64::try_from(turn).unwrap_or(u64::MAX);
        self.0.moved.fetch_max(turn, Ordering::Relaxed);
    }

    /// Returns, with the reason, when the try has come to a standstill.
    pub(super) async fn standstill(&self, timeouts: Timeouts) -> String {
        loop {
            let left = self.0.left.load(Ordering::Relaxed);
            let limit = if left > 0 {
                timeouts.stall
            } else {
                timeouts.reply
            };
            let moved = Duration::from_millis(self.0.moved.load(Ordering::Relaxed));
            let end = *EPOCH + moved + limit;
            if Instant::now() >= end {
                let seconds = limit.as_secs();
                return if left > 0 {
                    format!("not a byte was taken for {seconds} s, with {left} to go")
                } else {
                    format!("no reply came within {seconds} s after the last byte")
                };
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

fn since_epoch() -> u64 {
    u64::try_from(EPOCH.elapsed().as_millis()).unwrap_or(u64::MAX)
}
