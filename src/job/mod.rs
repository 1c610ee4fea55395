//! One job as a state machine, on one screen: [`back_up`].
//!
//! ```text
//! Planned ──▶ Dumping ──▶ Sealed ──▶ Committed
//!  (Job)         │           │
//!                └─ erased ──┘   by its prefix in the store
//! ```
//!
//! Each state consumes the one before, so that no other order can be written down.
//!
//! | state | what is true | how it is left |
//! |---|---|---|
//! | [`Job`] | all sizes are fixed, nothing has been asked for | a store accepts an upload, unless the dump is small; then the tool starts |
//! | [`Dumping`] | bytes flow: source ─segments▶ encode ─pieces▶ deposit ─parts▶ store | the dump is whole ([`DumpEnd`]), every part has a receipt of a store, or the archive is whole in memory |
//! | [`Stowed`] | nothing can fail any more but the stores | in each for itself the volumes are completed, the manifest is put; no signal gets here |
//! | [`Committed`] | there is a backup in one store at least | |
//!
//! Whatever fails before the manifest, there is no backup: the child's process group is ended, and
//! all below the backup's prefix is taken away again, also when the run is being cancelled.
//!
//! | file | role |
//! |---|---|
//! | this | the states and the way through them |
//! | [`layout`] | the sizes |
//! | [`parallel`] | a dump by several sessions, into an archive of many files |
//! | [`watch`] | nothing moves |
//! | [`settle`](mod@settle) | the end in each store: a backup, or nothing of it |
//! | [`commit`] | the point of no return |
//! | [`erase`](mod@erase) | taking away what is no backup |
//! | [`failure`] | why there is none, as data |
//! | [`places`] | numbered places for jobs and workers |

mod commit;
mod erase;
mod failure;
mod layout;
mod parallel;
pub mod places;
mod settle;
mod watch;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::archive::{
    Compression, Cores, END_LEN, Encoding, Inlet, TarHeader, encoder, hex, padding,
};
use crate::catalog::{
    Archive, BackupId, Encryption, Entry, Manifest, Mode, ParallelDump, Properties, SourceIdentity,
    archive_key,
};
use crate::cipher::{Envelope, Lock, Seal};
use crate::deposit::{Landed, Ledger, Route, SealedVolume, Tee, kept_by};
use crate::dump::{DumpEnd, DumpError, DumpShape, Next, Source, ToolCommand};
use crate::engine::Streams;
use crate::meter::{Meter, Phase, Step};
use crate::signature::Signer;
use crate::store::retry::Hurry;
use crate::store::{ChecksumKind, SharedStore};
pub use commit::{Committed, Sealed, Signature};
pub use failure::{FailedStep, Failure, FailureKind, JobError, StoreFailure};
pub use layout::Layout;
pub use parallel::Parallel;
use parallel::{Folder, ManyFiles};
pub use settle::{Destination, StoreEnd, Stowed, give_up, give_up_all, settle};
pub use watch::{Witness, stalled};

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
}

impl Job {
    /// Whether the archive is expected to fit the first part, which never leaves memory before the
    /// dump has ended well: a dump of two parts' size, compressed. One of a size that nobody knows
    /// may be large.
    fn is_small(&self) -> bool {
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

/// How a run is interrupted, and what an interruption must wait for.
#[derive(Debug, Clone, Default)]
pub struct Interruption {
    /// Fires when jobs are to end.
    pub cancel: CancellationToken,
    /// The commits under way, which nothing ends but themselves.
    pub commits: TaskTracker,
}

impl From<CancellationToken> for Interruption {
    fn from(cancel: CancellationToken) -> Self {
        Self {
            cancel,
            commits: TaskTracker::new(),
        }
    }
}

/// Proof that what is in an archive is a whole dump, and what it is.
#[derive(Debug)]
pub struct WholeDump {
    entries: Vec<Entry>,
    parallel: Option<ParallelDump>,
    /// What the tool said although all went well.
    warnings: Vec<String>,
}

impl WholeDump {
    /// An archive with one file in it, the dump that has ended so.
    pub fn one_file(end: &DumpEnd, name: &str, sha256: &[u8; 32]) -> Self {
        let entry = Entry {
            name: name.to_owned(),
            size: end.size(),
            sha256: hex(sha256),
        };
        Self::of_files(end, vec![entry])
    }

    /// The files that a tool has made by itself before its stdout ended so.
    pub fn of_files(end: &DumpEnd, entries: Vec<Entry>) -> Self {
        Self {
            entries,
            parallel: None,
            warnings: end.warnings().to_vec(),
        }
    }

    /// So many files by several sessions that, joined, are this one.
    fn in_many_files(self, sessions: usize, files: u64) -> Self {
        Self {
            parallel: Some(ParallelDump { sessions, files }),
            ..self
        }
    }
}

/// Dumps, archives and uploads one source, and commits the backup.
///
/// # Errors
/// Then there is no backup, and nothing of it is in the store unless the failure says so.
pub async fn back_up(
    job: Arc<Job>,
    id: BackupId,
    cores: &Cores,
    interruption: &Interruption,
) -> Result<Committed, Failure> {
    job.meter.set_phase(Phase::Running);
    let routes = job.routes();
    let mut running = None;
    let stowed = tokio::select! {
        biased;
        () = interruption.cancel.cancelled() => Err(JobError::Cancelled),
        stalled = stalled(&job) => Err(stalled),
        stowed = JobError::caught(async {
            let Dumping { source, envelope, tee, started } =
                Dumping::begin(&job, &id, &routes, cores).await?;
            let source = running.insert(source);
            let (whole, landed) = stream(&job, cores, source, envelope, tee).await?;
            let container = ("tar", job.compression);
            Ok(Stowed::new(&job, &id, &routes, started, &whole, container, landed))
        }) => stowed,
    };
    let committed = match stowed {
        Ok(stowed) => stowed.settle(interruption).await,
        Err(error) => {
            let end = async {
                if let Some(source) = &mut running {
                    source.kill().await;
                }
            };
            let given_up = job.give_up(&id, &routes, error, interruption);
            Err(tokio::join!(given_up, end).0)
        }
    };
    job.meter.set_phase(Phase::Done);
    committed
}

/// A dump on its way: the tool runs, a store has accepted an upload, or is asked for nothing yet.
struct Dumping {
    source: Running,
    envelope: Envelope,
    tee: Tee,
    started: Timestamp,
}

/// What writes a dump at this moment.
enum Running {
    One(Box<Source>),
    Several(Box<Streams>, usize),
}

impl Running {
    async fn begin(job: &Job) -> Result<Self, DumpError> {
        let Some(Parallel { engine, streams }) = &job.parallel else {
            let source = Source::spawn(&job.command, job.dump_shape, job.exit_timeout);
            return source.map(Box::new).map(Self::One);
        };
        let (count, segment, meter) = (*streams, job.layout.segment, &job.meter);
        let begun = engine.parallel_dump(count, segment, job.exit_timeout, meter);
        let streams = meter.wait_for(Step::Dump, begun).await?;
        Ok(Self::Several(Box::new(streams), count))
    }

    async fn kill(&mut self) {
        match self {
            Self::One(source) => source.kill().await,
            Self::Several(streams, _) => streams.kill().await,
        }
    }
}

/// A dump that has ended: proof of it, and what of the archive could not be written before.
struct Ended {
    end: DumpEnd,
    /// The first file's header, without the hash that a single file's has.
    header: TarHeader,
    /// How many sessions, and how many files.
    many: Option<(usize, u64)>,
}

impl Dumping {
    /// The tool is started last: while the store is away it must not hold locks for nothing. A small
    /// dump holds them for seconds, and is asked for one request instead of three.
    async fn begin(
        job: &Job,
        id: &BackupId,
        routes: &[Route],
        cores: &Cores,
    ) -> Result<Self, JobError> {
        let started = Timestamp::now();
        let envelope = job.envelope(job.compression.head_len(), cores).await?;
        let key = job.archive_key(id, job.compression.extension());
        let (names, head) = ((key, id.to_string()), envelope.head_len());
        let window = job.layout.window(job.wants_digests());
        let mut tee = Tee::new(routes, &job.meter, window, &names, Some(head))?;
        if !job.is_small() {
            tee.begin().await?;
        }
        let source = Running::begin(job).await?;
        Ok(Self {
            source,
            envelope,
            tee,
            started,
        })
    }
}

/// The path itself: what comes out of it lacks nothing but its completion.
async fn stream(
    job: &Job,
    cores: &Cores,
    source: &mut Running,
    mut envelope: Envelope,
    mut tee: Tee,
) -> Result<(WholeDump, Landed), JobError> {
    let Job {
        compression,
        level,
        layout,
        meter,
        ..
    } = job;
    let encoding = Encoding {
        compression: *compression,
        level: *level,
        segment: layout.segment,
        workers: layout.workers,
        feeds: layout.feeds,
        checksum: job.checksum_kind(),
        sha256: true,
    };
    let (inlet, mut outlet) = encoder(cores, encoding, meter);
    let read = read(job, source, inlet);
    let write = async {
        let pieces = outlet.pieces();
        let pieces = pieces.map_ok(|(piece, room)| envelope.body(piece, room));
        let mut pieces = pin!(pieces.try_buffered(layout.workers + 1));
        loop {
            let next = tokio::select! {
                biased;
                failed = tee.failure() => return Err(failed.into()),
                next = pieces.try_next() => next?,
            };
            let Some((piece, _room)) = next else {
                return Ok::<_, JobError>(());
            };
            tee.push(piece).await?;
        }
    };
    let (Ended { end, header, many }, ()) = tokio::try_join!(read, write)?;
    let sha256 = outlet
        .sha256()
        .ok_or_else(|| std::io::Error::other("the dump was not hashed"))?;

    // The dump is whole: what could not be written before can be now.
    meter.set_phase(Phase::Committing);
    let one_file = WholeDump::one_file(&end, &job.file_name, &sha256);
    let (whole, header, padding) = if let Some((sessions, files)) = many {
        // Each file has brought its padding along.
        (one_file.in_many_files(sessions, files), header, 0)
    } else {
        let sha256 = Some(sha256);
        (
            one_file,
            TarHeader { sha256, ..header },
            padding(end.size()),
        )
    };
    let header = header.to_bytes();
    let tail = outlet.tail(&header, padding + END_LEN);
    let (tail, head) = envelope.close(tail, compression.head(&header));
    tee.push(tail).await?;
    let landed = tee.seal(head).await?;
    Ok((whole, landed))
}

/// Reads the dump to its end.
async fn read(job: &Job, source: &mut Running, mut inlet: Inlet) -> Result<Ended, JobError> {
    let Job {
        file_name,
        layout,
        meter,
        ..
    } = job;
    let source = match source {
        Running::One(source) => source,
        Running::Several(streams, count) => {
            let folder = Folder {
                name: &parallel::folder_name(file_name),
                segment: layout.segment,
            };
            let timeout = job.exit_timeout;
            let read = parallel::read(streams, *count, inlet, folder, timeout, meter);
            let ManyFiles { end, first, files } = Box::pin(read).await?;
            return Ok(Ended {
                end,
                header: first,
                many: Some((*count, files)),
            });
        }
    };
    loop {
        let (mut room, start) = (inlet.room().await, Instant::now());
        let next = meter
            .wait_for(Step::Dump, source.next(room.segment(), meter))
            .await?;
        meter.was_busy(Step::Dump, start);
        match next {
            Next::Segment => inlet.put(room).await,
            Next::End(end) => {
                let header = TarHeader {
                    name: file_name.clone(),
                    size: end.size(),
                    sha256: None,
                };
                return Ok(Ended {
                    end,
                    header,
                    many: None,
                });
            }
        }
    }
}

impl Sealed {
    /// An archive of a whole dump whose parts are all in a store. `container` is the archive's
    /// kind and how it is compressed as a whole.
    pub fn new(
        job: &Job,
        id: BackupId,
        (to, ledger): (Destination, Ledger),
        (started, finished): (Timestamp, Timestamp),
        whole: &WholeDump,
        (container, compression): (&str, Compression),
        volumes: Vec<SealedVolume>,
    ) -> Self {
        let warnings = [job.warnings.clone(), whole.warnings.clone()].concat();
        let names = whole.entries.iter().map(|entry| entry.name.clone());
        let names = (!job.hide_names).then(|| names.collect());
        let encryption = job.lock.as_ref().map(|lock| Encryption {
            format: Encryption::AGE.into(),
            recipients: lock.fingerprints(),
            properties: job.sealed_properties.clone(),
            files: names,
        });
        let manifest = Manifest {
            format: Manifest::FORMAT,
            tapline: env!("CARGO_PKG_VERSION").into(),
            database: job.database.clone(),
            backup_id: id,
            engine: job.engine.clone(),
            source: Some(job.source.clone()),
            properties: job.properties.clone(),
            warnings: warnings.len(),
            dump_format: job.dump_format.clone(),
            tool: job.tool.clone(),
            mode: job.mode,
            started,
            finished,
            entries: if encryption.is_none() {
                whole.entries.clone()
            } else {
                Vec::new()
            },
            parallel: whole.parallel,
            archive: Archive {
                container: container.into(),
                compression,
                size: volumes.iter().map(|volume| volume.size).sum(),
                volumes: volumes.iter().map(SealedVolume::describe).collect(),
                encryption,
            },
            signed_by: job
                .signer
                .as_ref()
                .map(|signer| signer.public().to_string()),
        };
        Self {
            to,
            ledger,
            volumes,
            text: manifest.to_json().into(),
            manifest,
            signature: job.signer.clone().map(Signature::By),
            warnings,
            strict: job.strict,
        }
    }
}
