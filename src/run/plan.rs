//! What a run is to do, as far as the inventory says it: no server has been asked yet.
//!
//! A run's memory is divided by the number of jobs that can run at once, and a job takes its whole
//! share before it starts: jobs cannot wait for each other's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use jiff::Timestamp;

use crate::catalog::Mode;
use crate::config::{
    ConfigError, Database, Inventory, RunSettings, Selection, SignatureSettings, StagedSettings,
};
use crate::store::SharedStore;

/// Memory of a job when the inventory says nothing, in bytes.
const MEMORY_PER_JOB: u64 = 128 << 20;

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
    /// The inventory's stores, by name.
    pub stores: BTreeMap<String, SharedStore>,
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
        let at_once = match inventory.run.mode {
            Mode::Streamed => inventory.run.jobs.min(most_jobs(&entries)).max(1),
            // Those that encode, and those that hold parts.
            Mode::Staged => inventory
                .staged
                .archive
                .saturating_add(inventory.staged.upload),
        };
        let share = at_once as u64;
        let memory = inventory
            .run
            .memory
            .unwrap_or(MEMORY_PER_JOB.saturating_mul(share));
        Ok(Self {
            epoch: Instant::now(),
            settings: inventory.run.clone(),
            signatures: inventory.signatures.clone(),
            staged: inventory.staged.clone(),
            entries,
            names: names.to_vec(),
            due: BTreeMap::new(),
            stores,
            tapline,
            at_once,
            memory_per_job: memory / share,
        })
    }
}

impl Plan {
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

/// How many jobs these entries can become.
fn most_jobs(entries: &[Database]) -> usize {
    let all = |entry: &Database| matches!(entry.database, Selection::All { .. });
    if entries.iter().any(all) {
        usize::MAX
    } else {
        entries.len()
    }
}
