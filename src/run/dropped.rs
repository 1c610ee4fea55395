//! The stores that a run goes on without, because others have waited for them in vain.
//!
//! What a store that is away costs a job is time: for its lease, for its parts or its commit, and
//! for taking away what is left there. A run pays that once, and not for each of five hundred
//! databases:
//!
//! ```text
//! in use ──a job's others waited in vain──▶ left out ──it answers, and its pause is over──▶ in use
//! ```
//!
//! While it is **left out**, jobs that begin do so without it, at no cost, and say that their copy is
//! missing; it is asked beside them whether it answers. One that **answers again** is used by the
//! next job, which waits for it no longer than [`PATIENCE`]. A store that answers and takes nothing,
//! or is too slow, is dropped again: so the pause doubles with each time, and what such a store costs
//! the run becomes a small part of it, however many databases there are.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::{BackupId, check_key};
use crate::store::{ErrorKind, SharedStore};

/// How long others wait in a job for a store that was dropped before in the run: what a good one
/// takes for a request at its worst.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How quickly it goes.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// What is dropped for the first time is left out for so long at least.
    first: Duration,
    /// And however often it was, no longer than this when it answers.
    longest: Duration,
    /// Between two times that it is asked.
    between: Duration,
    /// What has not answered by then does not.
    answer: Duration,
}

/// A drop costs half a minute at most: the lease, [`PATIENCE`], taking away. After five of them in a
/// run that is a fifth of its time, after seven a twentieth.
const PACE: Pace = Pace {
    first: Duration::from_secs(10),
    longest: Duration::from_mins(10),
    between: Duration::from_secs(5),
    answer: Duration::from_secs(10),
};

/// The stores of a run that were dropped, by name.
#[derive(Debug)]
pub struct DroppedStores {
    stores: Mutex<BTreeMap<String, Dropped>>,
    pace: Pace,
}

#[derive(Debug, Default)]
struct Dropped {
    times: u32,
    /// While it is left out.
    absence: Option<Absence>,
}

#[derive(Debug)]
struct Absence {
    /// The database whose backup went on without it.
    database: String,
    since: Instant,
    /// Over when the store is in use again.
    back: AbortOnDropHandle<()>,
}

impl Default for DroppedStores {
    fn default() -> Self {
        Self {
            stores: Mutex::default(),
            pace: PACE,
        }
    }
}

impl DroppedStores {
    /// The backup of `database` went on without the store called `name`.
    pub fn drop_out(&self, name: &str, store: &SharedStore, database: &str) {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = stores.entry(name.to_owned()).or_default();
        // Of jobs side by side the first counts.
        if dropped.is_out() {
            return;
        }
        let pause = self.pace.first * 2u32.saturating_pow(dropped.times);
        dropped.times += 1;
        let back = until_back(store.clone(), pause.min(self.pace.longest), self.pace);
        dropped.absence = Some(Absence {
            database: database.to_owned(),
            since: Instant::now(),
            back: AbortOnDropHandle::new(tokio::spawn(back)),
        });
    }

    /// The store called `name` has taken a backup.
    pub fn is_good(&self, name: &str) {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dropped) = stores.get_mut(name) {
            dropped.absence = None;
        }
    }

    /// Whether it was dropped before in this run.
    pub fn has(&self, name: &str) -> bool {
        let stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.contains_key(name)
    }

    /// Why a job that begins now leaves the store out; `None` when it is to be used.
    pub fn why_out(&self, name: &str) -> Option<String> {
        let stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = stores.get(name).filter(|dropped| dropped.is_out())?;
        let Absence {
            database, since, ..
        } = dropped.absence.as_ref()?;
        Some(format!(
            "left out: {} s ago the backup of {database} waited for it in vain, and it has not been \
             well since",
            since.elapsed().as_secs()
        ))
    }
}

impl Dropped {
    fn is_out(&self) -> bool {
        let absence = self.absence.as_ref();
        absence.is_some_and(|absence| !absence.back.is_finished())
    }
}

/// Returns when `pause` is over and the store answers, whatever it says: a key need not be allowed
/// to look.
async fn until_back(store: SharedStore, pause: Duration, pace: Pace) {
    tokio::time::sleep(pause).await;
    let key = check_key(&BackupId::now());
    loop {
        let asked = tokio::time::timeout(pace.answer, store.head(&key)).await;
        let is_away = |kind| matches!(kind, ErrorKind::Transient | ErrorKind::Unreachable);
        match asked {
            Ok(Ok(_)) => break,
            Ok(Err(error)) if !is_away(error.kind()) => break,
            Ok(Err(_)) | Err(_) => tokio::time::sleep(pace.between).await,
        }
    }
    let address = store.address();
    tracing::info!(address, "the store answers again, and is used again");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::Limits;
    use crate::store::memory::MemoryStore;

    const QUICK: Pace = Pace {
        first: Duration::from_millis(100),
        longest: Duration::from_millis(400),
        between: Duration::from_millis(10),
        answer: Duration::from_secs(10),
    };

    fn dropped() -> DroppedStores {
        DroppedStores {
            pace: QUICK,
            ..DroppedStores::default()
        }
    }

    async fn back_in(dropped: &DroppedStores) -> Duration {
        let start = Instant::now();
        while dropped.why_out("offsite").is_some() {
            assert!(start.elapsed() < Duration::from_mins(1), "never");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        start.elapsed()
    }

    #[tokio::test]
    async fn a_store_is_left_out_until_it_answers_and_no_longer() {
        let memory = MemoryStore::new(Limits::S3, None);
        let store: SharedStore = Arc::new(memory.clone());
        let dropped = dropped();
        assert!(dropped.why_out("offsite").is_none() && !dropped.has("offsite"));
        memory.set_away(true);
        dropped.drop_out("offsite", &store, "shop");
        tokio::time::sleep(5 * QUICK.first).await;
        let why = dropped.why_out("offsite").unwrap();
        assert!(why.contains("the backup of shop waited"), "{why}");
        assert!(dropped.why_out("main").is_none());
        memory.set_away(false);
        back_in(&dropped).await;
        // It is remembered all the same.
        assert!(dropped.has("offsite"));
    }

    #[tokio::test]
    async fn one_that_is_dropped_again_and_again_is_left_out_for_longer() {
        let store: SharedStore = Arc::new(MemoryStore::new(Limits::S3, None));
        let dropped = dropped();
        for pause in [100, 200, 400, 400] {
            dropped.drop_out("offsite", &store, "shop");
            // Another job that was begun before tells nothing new.
            dropped.drop_out("offsite", &store, "events");
            let took = back_in(&dropped).await;
            assert!(took >= Duration::from_millis(pause), "{took:?} of {pause}");
        }
        dropped.drop_out("offsite", &store, "shop");
        dropped.is_good("offsite");
        assert!(dropped.why_out("offsite").is_none(), "a backup is in it");
    }
}
