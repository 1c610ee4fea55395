//! What a run is to do, as far as the inventory says it: no server has been asked yet.
//!
//! A run's memory is divided by the number of jobs that can run at once, and a job takes its whole
//! share before it starts: jobs cannot wait for each other's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use jiff::Timestamp;

use super::dropped::DroppedStores;
use super::memory;
use crate::catalog::{Mode, Retention};
use crate::config::{
    ConfigError, Database, HookSettings, Inventory, RunSettings, Selection, SignatureSettings,
    StagedSettings,
};
use crate::store::SharedStore;
use crate::units;

/// Memory of a job when the inventory says nothing, in bytes.
const MEMORY_PER_JOB: u64 = 128 << 20;
/// What a job needs at any rate: three parts of 5 MiB, the least that S3 takes, and an encoder.
const SMALL_JOB: u64 = 24 << 20;
/// And a part for each store beyond the first.
const SMALL_PART: u64 = 5 << 20;

/// What a run is to do.
pub struct Plan {
    /// When the run began: times of the report count from here.
    pub epoch: Instant,
    /// Limits.
    pub settings: RunSettings,
    /// Who signs manifests, and who may.
    pub signatures: SignatureSettings,
    /// Pools and folder of a staged run.
    pub staged: StagedSettings,
    /// The entries that were chosen, in the inventory's order. One of them may stand for all
    /// databases of a server.
    pub entries: Vec<Database>,
    /// The names that were asked for; all when empty.
    pub names: Vec<String>,
    /// Since when databases are due, by name: what was backed up since by somebody else is left out.
    pub due: BTreeMap<String, Timestamp>,
    /// Commands before and after.
    pub hooks: HookSettings,
    /// The inventory's stores, by name.
    pub stores: BTreeMap<String, SharedStore>,
    /// The stores that have rules of their own for what stays in them.
    pub store_rules: BTreeMap<String, Retention>,
    /// The stores that were dropped in this run, because others waited for them.
    pub dropped: DroppedStores,
    /// This program's own binary, which dumps SQLite databases.
    pub tapline: PathBuf,
    /// Jobs that can run at once.
    pub at_once: usize,
    /// Memory of one job, in bytes.
    pub memory_per_job: u64,
}

impl Plan {
    /// Chooses the databases called `names`, all when there are none.
    ///
    /// # Errors
    /// When the inventory has no such database.
    pub fn new(
        inventory: &Inventory,
        stores: BTreeMap<String, SharedStore>,
        names: &[String],
        tapline: PathBuf,
    ) -> Result<Self, ConfigError> {
        let entries: Vec<Database> = inventory.select(names)?.into_iter().cloned().collect();
        let mode = inventory.run.mode;
        let at_once = match mode {
            Mode::Streamed => inventory.run.jobs.min(most_jobs(&entries)).max(1),
            // Those that encode, and those that hold parts.
            Mode::Staged => inventory
                .staged
                .archive
                .saturating_add(inventory.staged.upload),
        };
        let room = memory::limit().map_or(u64::MAX, |limit| limit / 2);
        let most_stores = entries.iter().map(|entry| entry.stores.len()).max();
        let more_stores = most_stores.unwrap_or(1).saturating_sub(1) as u64;
        let least = SMALL_JOB + more_stores * SMALL_PART;
        let asked = inventory.run.memory;
        let (at_once, memory_per_job) = divide(at_once, mode, asked, (room, least));
        Ok(Self {
            epoch: Instant::now(),
            settings: inventory.run.clone(),
            signatures: inventory.signatures.clone(),
            staged: inventory.staged.clone(),
            entries,
            names: names.to_vec(),
            due: BTreeMap::new(),
            hooks: inventory.hooks.clone(),
            stores,
            store_rules: inventory.store_rules.clone(),
            dropped: DroppedStores::default(),
            tapline,
            at_once,
            memory_per_job,
        })
    }
}

impl Plan {
    /// Which of an entry's backups stay in a store.
    pub fn retention(&self, entry: &Database, store: &str) -> Retention {
        let own = self.store_rules.get(store);
        own.copied().unwrap_or(entry.retention)
    }

    /// The part of the plan that is about these databases, since when each is due; its jobs have the
    /// memory that they have in the whole.
    #[must_use]
    pub fn of(mut self, due: BTreeMap<String, Timestamp>) -> Self {
        self.entries.retain(|entry| due.contains_key(&entry.name));
        self.names = due.keys().cloned().collect();
        self.due = due;
        self
    }
}

/// So many jobs of those that can run at once, and what each of them may take of a run's memory.
/// `room` is what there is: half of what the machine has or this process is allowed, since the
/// clients and the program itself need some, too; a job needs the `least`. Where that is less than what was asked for, fewer
/// jobs run at once.
fn divide(
    at_once: usize,
    mode: Mode,
    asked: Option<u64>,
    (room, least): (u64, u64),
) -> (usize, u64) {
    let wanted = asked.unwrap_or(MEMORY_PER_JOB.saturating_mul(at_once as u64));
    if wanted <= room {
        return (at_once, wanted / at_once as u64);
    }
    if asked.is_some() {
        tracing::warn!(
            "memory: half of what this machine has, or this process may have, is {} and not {}: \
             it is that",
            units::size(room),
            units::size(wanted)
        );
    }
    let at_once = match mode {
        Mode::Streamed => {
            let fit = usize::try_from(room / least).unwrap_or(usize::MAX);
            at_once.min(fit.max(1))
        }
        Mode::Staged => at_once,
    };
    (at_once, room / at_once as u64)
}

/// How many jobs these entries can become.
fn most_jobs(entries: &[Database]) -> usize {
    let all = |entry: &Database| matches!(entry.database, Selection::All { .. });
    if entries.iter().any(all) {
        usize::MAX
    } else {
        entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_run_keeps_to_the_memory_that_there_is_with_fewer_jobs_at_once() {
        let streamed =
            |at_once, asked, room| divide(at_once, Mode::Streamed, asked, (room, SMALL_JOB));
        assert_eq!(streamed(4, None, 1024 * MIB), (4, 128 * MIB));
        assert_eq!(streamed(4, None, 256 * MIB), (4, 64 * MIB));
        assert_eq!(streamed(4, None, 64 * MIB), (2, 32 * MIB));
        assert_eq!(streamed(4, None, 32 * MIB), (1, 32 * MIB));
        assert_eq!(streamed(4, None, 8 * MIB), (1, 8 * MIB));
        assert_eq!(streamed(4, Some(40 * MIB), 1024 * MIB), (4, 10 * MIB));
        assert_eq!(streamed(4, Some(200 * MIB), 96 * MIB), (4, 24 * MIB));
        let staged = divide(4, Mode::Staged, None, (32 * MIB, SMALL_JOB));
        assert_eq!(staged, (4, 8 * MIB));
        let in_two_stores = divide(4, Mode::Streamed, None, (64 * MIB, SMALL_JOB + SMALL_PART));
        assert_eq!(in_two_stores, (2, 32 * MIB));
    }
}
