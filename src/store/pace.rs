//! A limit on the bytes that are sent in a second, kept inside each part.
//!
//! Whoever has a piece to send is told when its turn is: the turns of a [`Pace`] follow one another
//! at its rate, whichever job they are of, so all that share one together keep to it.
//!
//! ```text
//! turn(n + 1) = max(now, turn(n) + size(n) / rate)
//! ```
//!
//! A slow rate that many connections share must not leave one of them without a byte for long: S3
//! closes a connection on which nothing moves for some 20 seconds (`RequestTimeout`). So pieces are
//! the smaller the slower the rate is: 64 connections at 100 kB/s send 4 KiB every 2.6 s each.
//!
//! Manifests, leases and other notes are not paced. They are small, and a lease that waits behind
//! an archive would be lost.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Pieces sent at full speed, and the largest at any.
const LARGEST: u64 = 64 << 10;
const SMALLEST: u64 = 4 << 10;
/// Pieces that a second has at least, where they are not the smallest.
const PIECES_A_SECOND: u64 = 64;

/// A rate that all who share it keep to together.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: NonZeroU64,
    next: Mutex<Instant>,
}

impl Pace {
    /// Nothing has been sent yet.
    pub fn new(bytes_per_second: NonZeroU64) -> Arc<Self> {
        Arc::new(Self {
            bytes_per_second,
            next: Mutex::new(Instant::now()),
        })
    }

    fn turn(&self, now: Instant, bytes: u64) -> Instant {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(now);
        *next = turn + takes;
        turn
    }
}

/// The rates that a store keeps to: its own, its run's, or none.
#[derive(Debug, Clone, Default)]
pub struct Paces(Vec<Arc<Pace>>);

impl Paces {
    /// One more, if there is one.
    #[must_use]
    pub fn and(mut self, pace: Option<Arc<Pace>>) -> Self {
        self.0.extend(pace);
        self
    }

    /// The most bytes that are to be sent at once.
    pub(super) fn piece(&self) -> usize {
        let rates = self.0.iter().map(|pace| pace.bytes_per_second.get());
        let piece = rates
            .map(|rate| (rate / PIECES_A_SECOND).clamp(SMALLEST, LARGEST))
            .min()
            .unwrap_or(LARGEST);
        usize::try_from(piece).unwrap_or(usize::MAX)
    }

    /// When so many bytes may be sent, which are counted as sent from now on; `None` without a rate.
    pub(super) fn turn(&self, bytes: usize) -> Option<Instant> {
        self.turn_at(Instant::now(), bytes)
    }

    fn turn_at(&self, now: Instant, bytes: usize) -> Option<Instant> {
        let turns = self.0.iter().map(|pace| pace.turn(now, bytes as u64));
        turns.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: u64) -> Arc<Pace> {
        Pace::new(NonZeroU64::new(rate).unwrap())
    }

    #[test]
    fn turns_follow_one_another_at_the_rate_whoever_asks() {
        let run = pace(1_000_000);
        let stores = [
            Paces::default().and(Some(run.clone())),
            Paces::default().and(Some(run)).and(Some(pace(100_000))),
        ];
        let start = Instant::now() + Duration::from_secs(1);
        let turn = |now: Duration, store: usize, bytes| {
            let turn = stores[store].turn_at(start + now, bytes);
            turn.unwrap() - start
        };
        let zero = Duration::ZERO;
        assert_eq!(turn(zero, 0, 50_000), zero);
        assert_eq!(turn(zero, 0, 50_000), Duration::from_millis(50));
        // The second store waits for the run, and then for itself.
        assert_eq!(turn(zero, 1, 50_000), Duration::from_millis(100));
        assert_eq!(turn(zero, 1, 50_000), Duration::from_millis(500));
        // What was not sent in time is not made up for.
        let later = Duration::from_secs(10);
        assert_eq!(turn(later, 0, 1), later);
        assert_eq!(Paces::default().turn(1), None);
    }

    #[test]
    fn a_slow_rate_has_small_pieces() {
        let piece = |rate| Paces::default().and(Some(pace(rate))).piece();
        assert_eq!(Paces::default().piece(), 64 << 10);
        assert_eq!(piece(1), 4 << 10);
        assert_eq!(piece(1_000_000), 15_625);
        assert_eq!(piece(u64::MAX), 64 << 10);
    }
}
