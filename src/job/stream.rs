//! From the tool's start to an archive that lacks nothing but its completion.

use std::pin::pin;
use std::time::Instant;

use futures_util::TryStreamExt;
use jiff::Timestamp;

use super::parallel::{Folder, ManyFiles, folder_name, read as read_parallel};
use super::{Job, JobError, Parallel, WholeDump};
use crate::archive::{Cores, END_LEN, Encoding, Inlet, TarHeader, encoder, padding};
use crate::catalog::BackupId;
use crate::cipher::Envelope;
use crate::deposit::{Landed, Route, Tee};
use crate::dump::{DumpEnd, DumpError, Next, Source};
use crate::engine::Streams;
use crate::meter::{Phase, Step};

/// A dump on its way: the tool runs, a store has accepted an upload, or is asked for nothing yet.
pub(super) struct Dumping {
    pub source: Dumper,
    pub envelope: Envelope,
    pub tee: Tee,
    pub started: Timestamp,
}

impl Dumping {
    /// The tool is started last: while the store is away it must not hold locks for nothing. A small
    /// dump holds them for seconds, and is asked for one request instead of three.
    pub async fn begin(
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
        let source = Dumper::begin(job).await?;
        Ok(Self {
            source,
            envelope,
            tee,
            started,
        })
    }
}

/// What writes a dump at this moment.
pub(super) enum Dumper {
    One(Box<Source>),
    Several(Box<Streams>, usize),
}

impl Dumper {
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

    pub async fn kill(&mut self) {
        match self {
            Self::One(source) => source.kill().await,
            Self::Several(streams, _) => streams.kill().await,
        }
    }
}

/// The path itself: what comes out of it lacks nothing but its completion.
pub(super) async fn stream(
    job: &Job,
    cores: &Cores,
    source: &mut Dumper,
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
    let (DumpOutcome { end, header, many }, ()) = tokio::try_join!(read, write)?;
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

/// A dump that has ended: proof of it, and what of the archive could not be written before.
struct DumpOutcome {
    end: DumpEnd,
    /// The first file's header, without the hash that a single file's has.
    header: TarHeader,
    /// How many sessions, and how many files.
    many: Option<(usize, u64)>,
}

/// Reads the dump to its end.
async fn read(job: &Job, source: &mut Dumper, mut inlet: Inlet) -> Result<DumpOutcome, JobError> {
    let Job {
        file_name,
        layout,
        meter,
        ..
    } = job;
    let source = match source {
        Dumper::One(source) => source,
        Dumper::Several(streams, count) => {
            let folder = Folder {
                name: &folder_name(file_name),
                segment: layout.segment,
            };
            let timeout = job.exit_timeout;
            let read = read_parallel(streams, *count, inlet, folder, timeout, meter);
            let ManyFiles { end, first, files } = Box::pin(read).await?;
            return Ok(DumpOutcome {
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
                return Ok(DumpOutcome {
                    end,
                    header,
                    many: None,
                });
            }
        }
    }
}
