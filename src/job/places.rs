//! Numbered places: for the jobs that run at once, and for the workers of a pool.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// More places than this make no difference: more jobs than this are never there.
const MOST: usize = 1 << 16;

/// So many places, numbered from 0; whoever waits longest gets the next.
#[derive(Clone)]
pub struct Places {
    permits: Arc<Semaphore>,
    free: Arc<Mutex<BTreeSet<usize>>>,
}

/// One of the places, free again when dropped.
pub struct Place {
    /// Its number.
    pub number: usize,
    free: Arc<Mutex<BTreeSet<usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// `count` free places.
    pub fn new(count: usize) -> Self {
        let count = count.min(MOST);
        let free = (0..count).collect();
        Self {
            permits: Arc::new(Semaphore::new(count)),
            free: Arc::new(Mutex::new(free)),
        }
    }

    /// Waits for a place and takes the lowest that is free.
    pub async fn take(&self) -> Place {
        let permit = self
            .permits
            .clone()
            .acquire_owned()
            .await
            .expect("never closed");
        let lowest = self.free.lock().expect("no holder panics").pop_first();
        Place {
            number: lowest.expect("as many as permits"),
            free: self.free.clone(),
            _permit: permit,
        }
    }
}

/// Waits at a gate, where there is one, for so many to pass. A gate is never closed.
pub async fn pass(gate: Option<&Arc<Semaphore>>, many: u32) -> Option<OwnedSemaphorePermit> {
    match gate {
        Some(gate) => gate.clone().acquire_many_owned(many).await.ok(),
        None => None,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Before the permit, which goes with the fields.
        self.free
            .lock()
            .expect("no holder panics")
            .insert(self.number);
    }
}
