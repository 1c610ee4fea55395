//! How many bodies may be on their way to a store at once: as many as memory gives, until the store
//! asks for less.
//!
//! ```text
//! SlowDown, 503, 429   limit = half of those on their way, at least 1
//! success              limit + 1 for each limit's worth of them
//! ```
//!
//! So a store that throttles is found the number that it bears, and one that has recovered is given
//! more again ("additive increase, multiplicative decrease", as TCP does it). Those that were on
//! their way together are often refused together; that is one sign and not several, so a refusal
//! counts only if its request began after the limit was lowered last. Without all this each part
//! that is refused comes back by itself after its delay, to as many others as before.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::StoreError;

/// Codes by which a server asks to be left alone for a while.
pub(super) const THROTTLED: [&str; 4] = [
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
];
/// Above this many there is no limit any more.
const NO_LIMIT: f64 = 512.0;

/// The gate of one store; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    inside: u32,
    /// `None` is no limit.
    limit: Option<f64>,
    /// How often it was lowered.
    lowered: u64,
}

impl State {
    fn has_room(&self) -> bool {
        self.limit
            .is_none_or(|limit| f64::from(self.inside) + 1.0 <= limit)
    }
}

/// A request that is on its way for as long as this lives.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Gate,
    /// What `lowered` was when it began.
    since: u64,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more may be on its way.
    pub(super) async fn enter(&self) -> Pass {
        loop {
            let room = self.0.room.notified();
            {
                let mut state = self.state();
                if state.has_room() {
                    state.inside += 1;
                    let since = state.lowered;
                    drop(state);
                    // Room for two may have been told to one.
                    self.0.room.notify_one();
                    return Pass {
                        gate: self.clone(),
                        since,
                    };
                }
            }
            room.await;
        }
    }

    /// How many may be on their way; `None` is as many as like.
    #[cfg(test)]
    fn limit(&self) -> Option<f64> {
        self.state().limit
    }
}

impl Pass {
    /// The request has ended so.
    pub(super) fn ended<T>(self, result: &Result<T, StoreError>) {
        match result {
            Ok(_) => self.succeeded(),
            Err(error) if asks_for_less(error) => self.throttled(),
            Err(_) => {}
        }
    }

    fn succeeded(&self) {
        let mut state = self.gate.state();
        if state.lowered == self.since
            && let Some(limit) = state.limit
        {
            let more = limit + 1.0 / limit;
            state.limit = (more <= NO_LIMIT).then_some(more);
        }
    }

    fn throttled(&self) {
        let mut state = self.gate.state();
        if state.lowered == self.since {
            let now = f64::from(state.inside);
            let half = (state.limit.unwrap_or(now).min(now) / 2.0).max(1.0);
            state.limit = Some(half);
            state.lowered += 1;
            tracing::debug!(limit = half, "the store asks for less at once");
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.state().inside -= 1;
        self.gate.0.room.notify_one();
    }
}

fn asks_for_less(error: &StoreError) -> bool {
    matches!(error.status(), Some(429 | 503))
        || error.code().is_some_and(|code| THROTTLED.contains(&code))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::store::ErrorKind;

    fn slow_down() -> Result<(), StoreError> {
        let error = StoreError::new(ErrorKind::Transient, "less");
        Err(error.with_reply(Some(503), Some("SlowDown")))
    }

    /// All who get in at once.
    fn enter_all(gate: &Gate) -> Vec<Pass> {
        std::iter::from_fn(|| gate.enter().now_or_never())
            .take(40)
            .collect()
    }

    #[test]
    fn refusals_of_those_that_were_on_their_way_together_halve_them_once() {
        let gate = Gate::default();
        let mut inside = enter_all(&gate);
        assert_eq!((inside.len(), gate.limit()), (40, None));
        for pass in inside.drain(..20) {
            pass.ended(&slow_down());
        }
        assert_eq!(gate.limit(), Some(20.0));
        // Other failures say nothing, and those who are still inside count.
        inside
            .pop()
            .unwrap()
            .ended::<()>(&Err(StoreError::new(ErrorKind::Transient, "broken")));
        assert_eq!(enter_all(&gate).len(), 1);
        drop(inside);
        assert_eq!(gate.limit(), Some(20.0));
        let inside = enter_all(&gate);
        assert_eq!(inside.len(), 20);
        for pass in inside {
            pass.ended(&slow_down());
        }
        assert_eq!(gate.limit(), Some(10.0));
    }

    #[test]
    fn it_never_closes_and_success_opens_it_again() {
        let gate = Gate::default();
        for _ in 0..9 {
            gate.enter().now_or_never().unwrap().ended(&slow_down());
        }
        assert_eq!(gate.limit(), Some(1.0));
        let mut rounds = 0;
        while gate.limit().is_some() {
            for pass in enter_all(&gate) {
                pass.ended(&Ok(()));
            }
            rounds += 1;
            // One more each round, until forty at once no longer fill it.
            assert!(rounds < 10_000);
            if rounds == 10 {
                assert!(
                    gate.limit()
                        .is_some_and(|limit| (7.0..12.0).contains(&limit))
                );
            }
        }
    }

    #[tokio::test]
    async fn whoever_waits_is_let_in_when_there_is_room() {
        let gate = Gate::default();
        for _ in 0..4 {
            gate.enter().await.ended(&slow_down());
        }
        let first = gate.enter().await;
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.enter().await.ended(&Ok(())) })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|waits| !waits.is_finished()));
        drop(first);
        for waits in waiting {
            let limit = std::time::Duration::from_secs(20);
            tokio::time::timeout(limit, waits).await.unwrap().unwrap();
        }
    }
}
