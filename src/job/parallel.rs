//! A dump by several sessions at once, on its way into an archive of many files.
//!
//! ```text
//! pre-data ──▶ segment ┐ first, alone
//! orders   ──▶ segment ┤
//! events   ──▶ segment ┼─▶ desk ─▶ encoder: one file after the other, in the order of arrival
//! the rest ──▶ segment ┤
//! post-data ─▶ segment ┘ last, alone
//!
//! memory = streams × (segment + an eighth of it), besides the encoder's
//! ```
//!
//! Each stream fills a segment of its own, cuts it where its script can be cut, keeps the few bytes
//! behind the cut for the next, and hands it in as a file. Where there is no such place, in a row
//! that is longer than a segment, the stream keeps the desk until there is one: the files of one
//! script stand next to each other, and the archive's files, joined, are one script.
//!
//! No more streams are at work than were asked for, and each of them waits for the desk with one
//! segment at most: so there always is room for the one who has the desk.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::sync::{Mutex, MutexGuard, Semaphore};

use super::JobError;
use crate::archive::{Desk, Inlet, Rooms, TarHeader};
use crate::dump::{Copier, DumpEnd, DumpError, Next, ROWS_END, Source};
use crate::engine::{Copy, Cut, Cutter, Engine, Streams, Table};
use crate::meter::{Meter, Step};

/// How a job's dump is made by several sessions.
#[derive(Clone)]
pub struct Parallel {
    /// Who begins it.
    pub engine: Arc<dyn Engine>,
    /// How many at once.
    pub streams: usize,
}

/// What an archive of many files is.
pub struct ManyFiles {
    /// Proof that all streams are whole; their size is the joined script's.
    pub end: DumpEnd,
    /// The header of the first file.
    pub first: TarHeader,
    /// How many there are.
    pub files: u64,
}

/// The longest name of a folder, in bytes: what its files are called must fit behind it.
const LONGEST_FOLDER: usize = 100;

/// The archive's folder, by the name that the dump would have as one file.
pub(super) fn folder_name(file_name: &str) -> String {
    let name = file_name.strip_suffix(".sql").unwrap_or(file_name);
    let mut length = name.len().min(LONGEST_FOLDER);
    while !name.is_char_boundary(length) {
        length -= 1;
    }
    match &name[..length] {
        "" | "." | ".." => "dump".into(),
        name => name.to_owned(),
    }
}

/// Where the files go, and how large they are.
pub(super) struct Folder<'a> {
    /// Its name in the archive.
    pub name: &'a str,
    /// The most that a file and its header have, in bytes.
    pub segment: usize,
}

/// Reads all streams to their ends, so many at once.
pub(super) async fn read(
    streams: &mut Streams,
    at_once: usize,
    inlet: Inlet,
    folder: Folder<'_>,
    exit_timeout: Duration,
    meter: &Meter,
) -> Result<ManyFiles, JobError> {
    let Streams {
        pre_data,
        rest,
        post_data,
        copiers,
        work,
        tables,
        prologue,
        epilogue,
        keeper,
    } = streams;
    let shared = Shared {
        rooms: inlet.rooms(),
        desk: Mutex::new(Desk::new(inlet)),
        segment: folder.segment,
        meter,
        prologue,
        epilogue,
    };
    let folder = folder.name;
    let ends = {
        let slots = Semaphore::new(at_once);
        let numbers: Vec<AtomicU32> = tables.iter().map(|_| AtomicU32::new(0)).collect();
        let work = std::sync::Mutex::new(work);
        let next = || {
            let mut work = work.lock().unwrap_or_else(PoisonError::into_inner);
            work.pop_front()
        };
        // First in both queues: nobody hands anything in before it is through.
        let (slot, desk) = (slots.acquire().await, shared.desk.lock().await);
        let pre_data = async {
            let _slot = slot;
            let names = Names::of_one(folder, "0-pre-data");
            shared.carry(Whole(pre_data), &[], names, Some(desk)).await
        };
        let last_of_rest = AtomicU32::new(0);
        let rest = async {
            let _slot = slots.acquire().await;
            let names = Names::of_many(folder, "rest", &last_of_rest);
            let script = Script(rest, Cutter::default());
            shared.carry(script, &[], names, None).await
        };
        let copiers = try_join_all(copiers.iter_mut().map(async |copier| {
            loop {
                let _slot = slots.acquire().await;
                let Some(Copy { table, statement }) = next() else {
                    return Ok::<_, DumpError>(());
                };
                let Table { file, copy } = &tables[table];
                let names = Names::of_many(folder, file, &numbers[table]);
                let begin = [prologue.as_slice(), copy].concat();
                meter.wait_for(Step::Dump, copier.tell(&statement)).await;
                shared
                    .carry(Rows(copier, copy), &begin, names, None)
                    .await?;
            }
        }));
        let all = async {
            let (first, rest, _) = tokio::try_join!(pre_data, rest, copiers)?;
            let names = Names::of_one(folder, "2-post-data");
            let last = shared.carry(Whole(post_data), &[], names, None).await?;
            Ok::<_, DumpError>([first, rest, last])
        };
        tokio::select! {
            ends = all => ends?,
            broken = keeper.watch() => return Err(broken.into()),
        }
    };
    // Every row is read: now all sessions must end well, the one that held everything last.
    let mut said = Vec::new();
    for copier in copiers {
        let end = copier.end(Streams::COMMIT, exit_timeout);
        said.push(meter.wait_for(Step::Dump, end).await?);
    }
    meter.wait_for(Step::Dump, keeper.end(exit_timeout)).await?;
    let (first, files, size) = shared.desk.into_inner().close();
    let none = || std::io::Error::other("the dump has no files");
    Ok(ManyFiles {
        end: DumpEnd::of_all(size, ends, said),
        first: first.ok_or_else(none)?,
        files,
    })
}

/// What all streams share.
struct Shared<'a> {
    rooms: Rooms,
    desk: Mutex<Desk>,
    segment: usize,
    meter: &'a Meter,
    prologue: &'a [u8],
    epilogue: &'a [u8],
}

impl Shared<'_> {
    /// Carries one feed to its end, as files that begin with `begin`; `held` is the desk where it
    /// is already had.
    async fn carry<'s, F: Feed>(
        &'s self,
        mut feed: F,
        begin: &[u8],
        mut names: Names<'_>,
        mut held: Option<MutexGuard<'s, Desk>>,
    ) -> Result<F::End, DumpError> {
        let limit = Desk::limit(self.segment) - ROWS_END.len() - self.epilogue.len();
        let most_behind = self.segment / 8;
        let (mut begin, mut behind) = (begin.to_vec(), Vec::new());
        loop {
            let mut room = self.rooms.room().await;
            Desk::begin(&mut room);
            let segment = room.segment();
            segment.append(&mut begin);
            let content = segment.len();
            segment.append(&mut behind);
            let start = Instant::now();
            let fill = feed.fill(segment, limit, self.meter);
            let end = self.meter.wait_for(Step::Dump, fill).await?;
            self.meter.was_busy(Step::Dump, start);
            if let Some(end) = end {
                let new = names.part == 0;
                if segment.len() == content || (new && F::is_nothing(&segment[content..])) {
                    return Ok(end);
                }
                if F::OF_ROWS {
                    segment.extend_from_slice(self.epilogue);
                }
                let mut desk = self.desk(&mut held).await;
                desk.put(room, names.next()).await;
                return Ok(end);
            }
            let cut = feed.cut(&segment[content..], most_behind);
            if let Some(cut) = &cut {
                behind = segment.split_off(segment.len() - cut.behind);
                if cut.in_rows {
                    segment.extend_from_slice(ROWS_END);
                }
                segment.extend_from_slice(self.epilogue);
            }
            let mut desk = self.desk(&mut held).await;
            desk.put(room, names.next()).await;
            match cut {
                Some(Cut { again, .. }) => {
                    begin = [self.prologue, &again].concat();
                    names.part = 0;
                }
                // What follows must stand next to it.
                None => held = Some(desk),
            }
        }
    }

    async fn desk<'s>(&'s self, held: &mut Option<MutexGuard<'s, Desk>>) -> MutexGuard<'s, Desk> {
        match held.take() {
            Some(desk) => desk,
            None => self.desk.lock().await,
        }
    }
}

/// Where one stream's bytes come from.
trait Feed {
    /// What is known when it has ended.
    type End;
    /// Whether it ends with rows, and not with what its script says itself.
    const OF_ROWS: bool;

    /// Fills the segment up to `limit`; at the feed's end with less, and the end.
    async fn fill(
        &mut self,
        segment: &mut Vec<u8>,
        limit: usize,
        meter: &Meter,
    ) -> Result<Option<Self::End>, DumpError>;

    /// Where the content of a segment that is full can be cut, with at most so many bytes behind.
    fn cut(&mut self, content: &[u8], most_behind: usize) -> Option<Cut>;

    /// Whether a file with this content alone would do nothing.
    fn is_nothing(_content: &[u8]) -> bool {
        false
    }
}

/// Rows of a table, and how a script of them begins.
struct Rows<'a>(&'a mut Copier, &'a [u8]);

impl Feed for Rows<'_> {
    type End = ();
    const OF_ROWS: bool = true;

    async fn fill(
        &mut self,
        segment: &mut Vec<u8>,
        limit: usize,
        meter: &Meter,
    ) -> Result<Option<()>, DumpError> {
        let ended = self.0.fill(segment, limit, meter).await?;
        Ok(ended.then_some(()))
    }

    fn cut(&mut self, content: &[u8], most_behind: usize) -> Option<Cut> {
        let behind = content.len() - (memchr::memrchr(b'\n', content)? + 1);
        (behind <= most_behind).then(|| Cut {
            behind,
            in_rows: true,
            again: self.1.to_vec(),
        })
    }

    fn is_nothing(content: &[u8]) -> bool {
        content == ROWS_END
    }
}

/// A script that can be cut.
struct Script<'a>(&'a mut Source, Cutter);

impl Feed for Script<'_> {
    type End = DumpEnd;
    const OF_ROWS: bool = false;

    async fn fill(
        &mut self,
        segment: &mut Vec<u8>,
        limit: usize,
        meter: &Meter,
    ) -> Result<Option<DumpEnd>, DumpError> {
        let start = segment.len();
        let end = Whole(self.0).fill(segment, limit, meter).await?;
        self.1.see(&segment[start..]);
        Ok(end)
    }

    fn cut(&mut self, _content: &[u8], most_behind: usize) -> Option<Cut> {
        self.1.cut(most_behind)
    }
}

/// A script that stays as it is.
struct Whole<'a>(&'a mut Source);

impl Feed for Whole<'_> {
    type End = DumpEnd;
    const OF_ROWS: bool = false;

    async fn fill(
        &mut self,
        segment: &mut Vec<u8>,
        limit: usize,
        meter: &Meter,
    ) -> Result<Option<DumpEnd>, DumpError> {
        loop {
            match self.0.fill(segment, limit, meter).await? {
                Next::End(end) => return Ok(Some(end)),
                Next::Segment if segment.len() < limit => {}
                Next::Segment => return Ok(None),
            }
        }
    }

    fn cut(&mut self, _content: &[u8], _most_behind: usize) -> Option<Cut> {
        None
    }
}

/// The names of one feed's files.
struct Names<'a> {
    stem: String,
    /// The last number of a script with this stem; where there is only one, it has none.
    last: Option<&'a AtomicU32>,
    number: u32,
    /// How many files of this script there are so far.
    part: u32,
}

impl<'a> Names<'a> {
    fn of_one(folder: &str, stem: &str) -> Self {
        Self {
            stem: format!("{folder}/{stem}"),
            last: None,
            number: 0,
            part: 0,
        }
    }

    fn of_many(folder: &str, stem: &str, last: &'a AtomicU32) -> Self {
        Self {
            last: Some(last),
            ..Self::of_one(folder, &format!("1-data/{stem}"))
        }
    }

    /// The next file's: of the same script, or, when `part` is 0, of the next.
    fn next(&mut self) -> String {
        if self.part == 0 {
            let last = self.last.map(|last| last.fetch_add(1, Ordering::Relaxed));
            self.number = last.unwrap_or_default() + 1;
        }
        self.part += 1;
        let number = match self.last {
            Some(_) => format!(".{:04}", self.number),
            None => String::new(),
        };
        match self.part {
            1 => format!("{}{number}.sql", self.stem),
            part => format!("{}{number}.part{part:04}.sql", self.stem),
        }
    }
}
