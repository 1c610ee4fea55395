//! A job in which nothing moves: said after a while, ended after `stall_timeout`.
//!
//! Only the way to the sealed archive is watched. A commit moves no bytes, and what is being
//! committed must not be ended.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use async_trait::async_trait;

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

/// Returns when nothing has moved for `stall_timeout`; never without one.
pub async fn stalled(job: &Job) -> JobError {
    let moved = || (job.meter.dump_bytes(), job.meter.sent_bytes());
    let (mut last, mut since, mut say) = (moved(), Instant::now(), SAY);
    let mut ask = ASK;
    let look = job
        .stall_timeout
        .map_or(LOOK, |timeout| LOOK.min(timeout / 2));
    loop {
        sleep(look).await;
        if moved() != last {
            (last, since, say, ask) = (moved(), Instant::now(), SAY, ASK);
            continue;
        }
        let waiting = job.meter.waiting_for().map_or("nothing", Step::name);
        if let Some(timeout) = job
            .stall_timeout
            .filter(|timeout| since.elapsed() >= *timeout)
        {
            return JobError::Stalled(timeout, waiting);
        }
        if since.elapsed() >= ask
            && job.meter.waiting_for() == Some(Step::Dump)
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
        if since.elapsed() >= say {
            let (database, seconds) = (&job.database, since.elapsed().as_secs());
            tracing::warn!(
                database,
                "nothing has moved for {seconds} s, waiting for {waiting}"
            );
            say *= 2;
        }
    }
}
