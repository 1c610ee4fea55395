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
//! | [`Job`] | all sizes are fixed, nothing has been asked for | the store accepts an upload, unless the dump is small; then the tool starts |
//! | [`Dumping`] | bytes flow: source ─segments▶ encode ─pieces▶ deposit ─parts▶ store | the dump is whole ([`DumpEnd`]), every part has a receipt, or the archive is whole in memory |
//! | [`Sealed`] | nothing can fail any more but the store | the volumes are completed, the manifest is put; no signal gets here |
//! | [`Committed`] | there is a backup | |
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
use crate::deposit::{Deposit, Ledger, SealedVolume};
use crate::dump::{DumpEnd, DumpError, DumpShape, Next, Source, ToolCommand};
use crate::engine::Streams;
use crate::meter::{Meter, Phase, Step};
use crate::signature::Signer;
use crate::store::SharedStore;
use commit::CommitError;
pub use commit::{Committed, Sealed, Signature};
use erase::{Traces, erase};
pub use failure::{FailedStep, Failure, FailureKind, JobError, StoreFailure};
pub use layout::Layout;
pub use parallel::Parallel;
use parallel::{Folder, ManyFiles};
pub use watch::{Witness, stalled};

/// How long a failed job tries to take away what it has put into the store.
const ERASE_TIMEOUT: Duration = Duration::from_mins(1);
/// `cleanup` leaves alone what is younger than an hour; a commit takes 45 minutes at most.
pub const SIGN_OF_LIFE_AFTER: Duration = Duration::from_mins(10);
/// How long one does whose run is interrupted: container engines kill after 10 seconds.
const ERASE_WHEN_INTERRUPTED: Duration = Duration::from_secs(7);

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
    /// Where it goes.
    pub store: SharedStore,
    /// What the inventory calls that, for messages.
    pub store_name: String,
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
            store,
            store_name: "store".into(),
            layout,
            witness: None,
            meter: Arc::default(),
            exit_timeout: Duration::from_mins(1),
            stall_timeout: None,
            sign_of_life_after: SIGN_OF_LIFE_AFTER,
        }
    }

    /// Where its backup goes.
    pub fn destination(&self) -> Destination {
        Destination {
            store: self.store.clone(),
            store_name: self.store_name.clone(),
            database: self.database.clone(),
            meter: self.meter.clone(),
            sign_of_life_after: self.sign_of_life_after,
        }
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
        let (workers, kept) = (self.layout.workers, self.store.checksum_kind());
        Ok(Envelope::sealed(seal, head, cores, workers, kept))
    }

    /// Whether its volumes need a digest that nobody can forge: nothing else in the manifest of an
    /// encrypted archive says what is in it, and a signature is to be one of the volumes, too.
    pub fn wants_digests(&self) -> bool {
        self.lock.is_some() || self.signer.is_some()
    }
}

/// Where a backup goes, and all that its end there needs to know.
#[derive(Clone)]
pub struct Destination {
    /// Where it goes.
    pub store: SharedStore,
    /// What the inventory calls that, for messages.
    pub store_name: String,
    /// Name of the database.
    pub database: String,
    /// What is counted.
    pub meter: Arc<Meter>,
    /// A volume that was begun longer ago needs a sign of life beside it while it is committed.
    pub sign_of_life_after: Duration,
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
    let ledger = Ledger::default();
    let mut running = None;
    let sealed = tokio::select! {
        biased;
        () = interruption.cancel.cancelled() => Err(JobError::Cancelled),
        stalled = stalled(&job) => Err(stalled),
        sealed = async {
            let Dumping { source, envelope, deposit, started } =
                Dumping::begin(&job, &id, &ledger, cores).await?;
            let source = running.insert(source);
            let (whole, volumes) = stream(&job, cores, source, envelope, deposit).await?;
            let container = ("tar", job.compression);
            Ok(Sealed::new(&job, id.clone(), ledger.clone(), started, whole, container, volumes))
        } => sealed,
    };
    let committed = match sealed {
        Ok(sealed) => settle(sealed, interruption).await,
        Err(error) => {
            let end = async {
                if let Some(source) = &mut running {
                    source.kill().await;
                }
            };
            let to = job.destination();
            Err(tokio::join!(give_up(&to, &id, &ledger, error, interruption), end).0)
        }
    };
    job.meter.set_phase(Phase::Done);
    committed
}

/// A dump on its way: the tool runs, the store has accepted an upload, or is asked for nothing yet.
struct Dumping {
    source: Running,
    envelope: Envelope,
    deposit: Deposit,
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
        ledger: &Ledger,
        cores: &Cores,
    ) -> Result<Self, JobError> {
        let started = Timestamp::now();
        let envelope = job.envelope(job.compression.head_len(), cores).await?;
        let key = job.archive_key(id, job.compression.extension());
        let (names, head) = ((key, id.to_string()), envelope.head_len());
        let (store, meter) = (job.store.clone(), job.meter.clone());
        let window = job.layout.window(job.wants_digests());
        let ledger = ledger.clone();
        let deposit = if job.is_small() {
            Deposit::of_little(store, meter, ledger, window, names, head)?
        } else {
            Deposit::begin(store, meter, ledger, window, names, head).await?
        };
        let source = Running::begin(job).await?;
        Ok(Self {
            source,
            envelope,
            deposit,
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
    mut deposit: Deposit,
) -> Result<(WholeDump, Vec<SealedVolume>), JobError> {
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
        checksum: job.store.checksum_kind(),
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
                failed = deposit.failure() => return Err(failed.into()),
                next = pieces.try_next() => next?,
            };
            let Some((piece, _room)) = next else {
                return Ok::<_, JobError>(());
            };
            deposit.push(piece).await?;
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
    deposit.push(tail).await?;
    let volumes = deposit.seal(head).await?;
    Ok((whole, volumes))
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
    /// An archive of a whole dump whose parts are all in the store. `container` is the archive's
    /// kind and how it is compressed as a whole.
    pub fn new(
        job: &Job,
        id: BackupId,
        ledger: Ledger,
        started: Timestamp,
        whole: WholeDump,
        (container, compression): (&str, Compression),
        volumes: Vec<SealedVolume>,
    ) -> Self {
        let warnings = [job.warnings.clone(), whole.warnings].concat();
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
            finished: Timestamp::now(),
            entries: if encryption.is_none() {
                whole.entries
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
            to: job.destination(),
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

/// From a sealed archive to one of two ends: there is a backup, or nothing is left of it. Runs as a
/// task of its own that goes on when the caller is gone.
///
/// # Errors
/// There is no backup.
pub async fn settle(sealed: Sealed, interruption: &Interruption) -> Result<Committed, Failure> {
    if sealed.strict && !sealed.warnings.is_empty() {
        let (to, id) = (&sealed.to, &sealed.manifest.backup_id);
        let error = JobError::Warned(sealed.warnings.clone());
        return Err(give_up(to, id, &sealed.ledger, error, interruption).await);
    }
    let tidy_up = interruption.clone();
    let committing = interruption.commits.spawn(async move {
        let (to, ledger) = (sealed.to.clone(), sealed.ledger.clone());
        let (id, address) = (sealed.manifest.backup_id.clone(), to.store.address());
        match sealed.commit().await {
            Ok(committed) => {
                if ledger.uploads().iter().any(|upload| upload.has_twin) {
                    erase::abort_strays(&to.store, &to.database, &id).await;
                }
                Ok(committed)
            }
            Err(CommitError {
                error,
                may_still_come: true,
            }) => {
                let prefix = crate::catalog::backup_prefix(&to.database, &id);
                let store = &to.store_name;
                Err(error.describe(Some(format!(
                    "the manifest's put was never answered, so what is under {address}/{prefix} \
                     was left: should it arrive, `tapline verify {}@{id}` tells that the backup is \
                     whole; should it not, `tapline cleanup --store {store} --older-than 1h \
                     --confirm` removes the rest",
                    to.database
                ))))
            }
            Err(CommitError { error, .. }) => {
                Err(give_up(&to, &id, &ledger, error, &tidy_up).await)
            }
        }
    });
    match committing.await {
        Ok(settled) => settled,
        Err(error) => {
            let left = "the commit broke down: whether there is a backup `tapline list` tells";
            Err(JobError::Panicked(error.to_string()).describe(Some(left.into())))
        }
    }
}

/// There is no backup: takes away what there is of it.
pub async fn give_up(
    to: &Destination,
    id: &BackupId,
    ledger: &Ledger,
    error: JobError,
    interruption: &Interruption,
) -> Failure {
    let Destination {
        store,
        store_name,
        database,
        ..
    } = to;
    let within = match error {
        JobError::Cancelled => ERASE_WHEN_INTERRUPTED,
        _ => ERASE_TIMEOUT,
    };
    let interrupted = async {
        interruption.cancel.cancelled().await;
        tokio::time::sleep(ERASE_WHEN_INTERRUPTED).await;
    };
    let left = tokio::select! {
        left = erase(Traces { store, store_name, database, id, ledger }, within) => left,
        () = interrupted => Some(format!(
            "interrupted while it was taken away: something may be left under {}/{}; \
             `tapline cleanup --store {store_name} --older-than 1h --confirm` removes it",
            store.address(),
            crate::catalog::backup_prefix(database, id),
        )),
    };
    if let Some(left) = &left {
        tracing::error!(database, %id, store = store.address(), %error, "{left}");
    }
    error.describe(left)
}
