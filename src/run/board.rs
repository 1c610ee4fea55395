//! The jobs of a run while it goes on, for whoever wants to look: databases that a server is asked
//! for join when they are known.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::config::Database;
use crate::meter::Meter;

/// A job to be looked at.
#[derive(Debug, Clone)]
pub struct TrackedJob {
    /// Name of the database; of a discovered one `NAME/DATABASE`.
    pub database: String,
    /// Its engine's name.
    pub engine: &'static str,
    /// Address of its store.
    pub store: String,
    /// What it counts.
    pub meter: Arc<Meter>,
}

/// All jobs of a run that are known so far, in the order in which they became so.
#[derive(Debug, Default)]
pub struct Board {
    jobs: Mutex<Vec<TrackedJob>>,
}

impl Board {
    /// The jobs known so far.
    pub fn jobs(&self) -> Vec<TrackedJob> {
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Adds a job, which waits.
    pub(super) fn add(&self, entry: &Database, store: String, epoch: Instant) -> TrackedJob {
        let job = TrackedJob {
            database: entry.name.clone(),
            engine: entry.engine.name(),
            store,
            meter: Arc::new(Meter::new(epoch)),
        };
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(job.clone());
        job
    }
}
