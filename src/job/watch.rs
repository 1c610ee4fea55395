//! A job in which nothing moves: said after a while, ended after `stall_timeout`.
//!
//! Only the way to the sealed archive is watched. A commit moves no bytes, and what is being
//! committed must not be ended.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::{Job, JobError};
use crate::meter::Step;

/// How often it is looked at; a stall is noticed this much late at most.
const LOOK: Duration = Duration::from_secs(1);
/// After so long without a byte the log says what is waited for, and again whenever that has
/// doubled.
const SAY: Duration = Duration::from_mins(1);

/// After so long without a byte of the dump its server is asked whether it waits for a lock.
const ASK: Duration = Duration::from_secs(10);

/// Who knows why a source's dump does not go on.
#[async_trait]
pub trait Witness: Send + Sync {
    /// Who holds a lock that the dump waits for, in words.
    async fn holder(&self) -> Option<String>;
}

/// Returns when the job has waited for its tool or a store for `stall_timeout` and nothing has
/// moved; never without one.
///
/// Time is counted in looks, and a look that came late counts as one: while a machine, or the
/// process, is stopped nothing can move. Nor is it a stall while the dump is compressed or waits for
/// a core to be.
pub async fn stalled(job: &Job) -> JobError {
    let moved = || (job.meter.dump_bytes(), job.meter.sent_bytes());
    let (mut last, mut still, mut say, mut ask) = (moved(), Duration::ZERO, SAY, ASK);
    let look = job
        .stall_timeout
        .map_or(LOOK, |timeout| LOOK.min(timeout / 2));
    loop {
        sleep(look).await;
        let now = moved();
        let waiting = job.meter.waiting_for();
        let Some(waiting) = waiting.filter(|_| now == last) else {
            (last, still, say, ask) = (now, Duration::ZERO, SAY, ASK);
            continue;
        };
        still += look;
        if let Some(timeout) = job.stall_timeout.filter(|timeout| still >= *timeout) {
            return JobError::Stalled(timeout, waiting);
        }
        if still >= ask
            && waiting == Step::Dump
            && let Some(witness) = &job.witness
        {
            ask *= 2;
            if let Some(holder) = witness.holder().await {
                let database = &job.database;
                tracing::warn!(
                    database,
                    "the dump waits for a lock that is held by {holder}"
                );
            }
        }
        if still >= say {
            let (database, seconds, waiting) = (&job.database, still.as_secs(), waiting.name());
            tracing::warn!(
                database,
                "nothing has moved for {seconds} s, waiting for {waiting}"
            );
            say *= 2;
        }
    }
}
