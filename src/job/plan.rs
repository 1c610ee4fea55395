//! What a job is before its first byte: planned, with all sizes fixed.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Destination, Failure, FailureKind, Interruption, JobError, Layout, Parallel, Witness,
    give_up_all,
};
use crate::archive::{Compression, Cores};
use crate::catalog::{BackupId, Mode, Properties, SourceIdentity, archive_key};
use crate::cipher::{Envelope, Lock, Seal};
use crate::deposit::{Ledger, Route, kept_by};
use crate::dump::{DumpShape, ToolCommand};
use crate::meter::Meter;
use crate::signature::Signer;
use crate::store::retry::Hurry;
use crate::store::{ChecksumKind, SharedStore};

/// `cleanup` leaves alone what is younger than an hour; a commit takes 45 minutes at most.
pub const SIGN_OF_LIFE_AFTER: Duration = Duration::from_mins(10);

/// All that the write path needs to know of one source: a job that is planned.
pub struct Job {
    /// Name of the database in the inventory.
    pub database: String,
    /// Its engine's name.
    pub engine: String,
    /// Whose dump it is, for the manifest.
    pub source: SourceIdentity,
    /// What is said about the database itself, for the manifest.
    pub properties: Option<Properties>,
    /// The same of a database whose backups are encrypted.
    pub sealed_properties: Option<String>,
    /// What is known of what the dump will lack.
    pub warnings: Vec<String>,
    /// Whether a warning fails the job.
    pub strict: bool,
    /// Streamed or staged.
    pub mode: Mode,
    /// The dump's format, for the manifest.
    pub dump_format: String,
    /// The tool and its version in its own words, for the manifest.
    pub tool: String,
    /// What writes the dump.
    pub command: ToolCommand,
    /// What does so where that is several sessions at once.
    pub parallel: Option<Parallel>,
    /// What a whole dump looks like.
    pub dump_shape: DumpShape,
    /// File name of the dump in the archive.
    pub file_name: String,
    /// Compression.
    pub compression: Compression,
    /// Its level.
    pub level: i32,
    /// Who alone can read it; everybody when there is none.
    pub lock: Option<Lock>,
    /// Who signs its manifest.
    pub signer: Option<Signer>,
    /// Whether a manifest keeps the names of the files in an encrypted archive to itself.
    pub hide_names: bool,
    /// Where it goes: to one store, or to several at once.
    pub stores: Vec<JobStore>,
    /// Sizes fixed before the first byte.
    pub layout: Layout,
    /// Who can tell why the dump does not go on.
    pub witness: Option<Arc<dyn Witness>>,
    /// What it counts.
    pub meter: Arc<Meter>,
    /// How long the tool may take to exit after it closed its stdout.
    pub exit_timeout: Duration,
    /// When nothing moves for so long, the job is ended.
    pub stall_timeout: Option<Duration>,
    /// A volume that was begun longer ago needs a sign of life beside it while it is committed.
    pub sign_of_life_after: Duration,
}

impl Job {
    /// A job of a command that needs no server: its stdout is the dump.
    pub fn of_command(
        database: &str,
        command: ToolCommand,
        (compression, level): (Compression, i32),
        store: SharedStore,
        layout: Layout,
    ) -> Self {
        Self {
            database: database.into(),
            engine: "command".into(),
            source: SourceIdentity {
                engine: "command".into(),
                host: "localhost".into(),
                database: None,
                server: None,
            },
            properties: None,
            sealed_properties: None,
            warnings: Vec::new(),
            strict: false,
            mode: Mode::Streamed,
            dump_format: "dump".into(),
            tool: command.program.display().to_string(),
            command,
            parallel: None,
            dump_shape: DumpShape::default(),
            file_name: format!("{database}.dump"),
            compression,
            level,
            lock: None,
            signer: None,
            hide_names: false,
            stores: vec![JobStore::only(store)],
            layout,
            witness: None,
            meter: Arc::default(),
            exit_timeout: Duration::from_mins(1),
            stall_timeout: None,
            sign_of_life_after: SIGN_OF_LIFE_AFTER,
        }
    }

    /// Where its backup goes.
    pub fn destinations(&self) -> Vec<Destination> {
        let each = self.stores.iter().cloned().map(|one| Destination {
            store: one.store,
            store_name: one.name,
            database: self.database.clone(),
            meter: self.meter.clone(),
            sign_of_life_after: self.sign_of_life_after,
            patience: one.patience,
            hurry: one.hurry,
        });
        each.collect()
    }

    /// The ways there, on which nothing is yet.
    pub fn routes(&self) -> Vec<Route> {
        let each = self.stores.iter().cloned().map(|one| Route {
            store: one.store,
            store_name: one.name,
            patience: one.patience,
            ledger: Ledger::default(),
        });
        each.collect()
    }

    /// The checksums that its stores keep.
    pub fn checksum_kind(&self) -> Option<ChecksumKind> {
        kept_by(self.stores.iter().map(|one| &one.store))
    }

    /// There is no backup, in none of its stores: takes away what there is of it.
    pub async fn give_up(
        &self,
        id: &BackupId,
        routes: &[Route],
        error: JobError,
        interruption: &Interruption,
    ) -> Failure {
        let ledgers = routes.iter().map(|route| route.ledger.clone());
        let all = self.destinations().into_iter().zip(ledgers);
        give_up_all(all.collect(), id, error, interruption).await
    }

    /// The key of the archive's first volume. `extension` is such as `tar.gz`.
    pub fn archive_key(&self, id: &BackupId, extension: &str) -> String {
        let sealed = if self.lock.is_some() { ".age" } else { "" };
        archive_key(&self.database, id, &format!("{extension}{sealed}"))
    }

    /// How its archive, which has a head of so many bytes, goes into its parts.
    ///
    /// # Errors
    /// When its key cannot be wrapped for those who are to read it.
    pub async fn envelope(&self, head: usize, cores: &Cores) -> Result<Envelope, JobError> {
        let Some(lock) = self.lock.clone() else {
            return Ok(Envelope::open(head));
        };
        // A passphrase is stretched for a second, and a plugin may take its time.
        let seal = tokio::task::spawn_blocking(move || Seal::new(&lock)).await;
        let seal = seal.map_err(std::io::Error::other)?;
        let seal = seal.map_err(|why| JobError::Plan {
            kind: FailureKind::Inventory,
            message: format!("cannot encrypt: {why}"),
        })?;
        let (workers, kept) = (self.layout.workers, self.checksum_kind());
        Ok(Envelope::sealed(seal, head, cores, workers, kept))
    }

    /// Whether its volumes need a digest that nobody can forge: nothing else in the manifest of an
    /// encrypted archive says what is in it, and a signature is to be one of the volumes, too.
    pub fn wants_digests(&self) -> bool {
        self.lock.is_some() || self.signer.is_some()
    }

    /// Whether the archive is expected to fit the first part, which never leaves memory before the
    /// dump has ended well: a dump of two parts' size, compressed. One of a size that nobody knows
    /// may be large.
    pub(super) fn is_small(&self) -> bool {
        let most = self.layout.part.saturating_mul(2);
        self.layout.expected.is_some_and(|size| size <= most)
    }
}

/// A store that a job's backup goes to.
#[derive(Clone)]
pub struct JobStore {
    /// The store.
    pub store: SharedStore,
    /// What the inventory calls it.
    pub name: String,
    /// How long the others may wait for it.
    pub patience: Duration,
    /// Says so to the store when they do.
    pub hurry: Hurry,
}

impl JobStore {
    /// One that nobody waits for, because there is no other.
    pub fn only(store: SharedStore) -> Self {
        Self {
            store,
            name: "store".into(),
            patience: Duration::MAX,
            hurry: Hurry::default(),
        }
    }
}
