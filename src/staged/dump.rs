//! Step A: the dump tool's output as files in a folder.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::disk;
use crate::dump::{DumpEnd, DumpShape, Next, Source};
use crate::engine::{StagedDump, file_stem};
use crate::job::{Job, JobError, stalled};
use crate::scratch::{check_free, sum};

/// How often the size of a folder that a tool fills is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A line that is longer is no comment of a dump tool.
const LONGEST_CUT: usize = 512;

/// A dump that is whole, as files.
pub struct Dumped {
    /// In the order in which they are restored.
    pub files: Vec<DumpedFile>,
    /// The proof.
    pub end: DumpEnd,
}

/// One file of a dump.
pub struct DumpedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its name in the archive.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
}

/// Runs the dump tool into `folder`.
pub async fn dump(
    job: &Job,
    dump: &StagedDump,
    folder: &Path,
    cancel: &CancellationToken,
) -> Result<Dumped, JobError> {
    let database = &job.database;
    check_free(
        folder,
        job.layout.expected.unwrap_or(0),
        &format!("the dump of {database} (expected_size corrects that)"),
    )
    .map_err(disk(folder))?;
    let folder = folder.join("dump");
    let (command, shape) = match dump {
        StagedDump::Stdout(command) | StagedDump::Tables { command, .. } => {
            (command.clone(), job.dump_shape)
        }
        StagedDump::Folder { command, option } => (
            command
                .clone()
                .args([format!("{option}{}", folder.display())]),
            DumpShape::NOTHING,
        ),
    };
    if !matches!(dump, StagedDump::Folder { .. }) {
        std::fs::create_dir(&folder).map_err(disk(&folder))?;
    }
    let mut source = Source::spawn(&command, shape, job.exit_timeout)?;
    let stem = job.file_name.strip_suffix(".sql").unwrap_or(&job.file_name);
    // With a table's name behind it, it must still fit a tar header.
    let stem = &stem[..stem.floor_char_boundary(100)];
    let work = async {
        match dump {
            StagedDump::Stdout(_) => {
                write(job, &mut source, Files::one(&folder, job.file_name.clone())).await
            }
            StagedDump::Tables { cuts, .. } => {
                write(job, &mut source, Files::cut(&folder, stem, cuts)).await
            }
            StagedDump::Folder { .. } => fill(job, &mut source, &folder, stem).await,
        }
    };
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(JobError::Cancelled),
        stalled = stalled(job) => Err(stalled),
        result = work => result,
    };
    if result.is_err() {
        source.kill().await;
    }
    result
}

/// The tool fills the folder by itself.
async fn fill(
    job: &Job,
    source: &mut Source,
    folder: &Path,
    stem: &str,
) -> Result<Dumped, JobError> {
    let mut seen = 0;
    let mut look = || {
        let size = sum(folder, &std::fs::Metadata::len);
        job.meter.add_dump(size.saturating_sub(seen));
        seen = seen.max(size);
    };
    let end = {
        let mut nothing = Vec::with_capacity(1);
        let mut done = std::pin::pin!(source.next(&mut nothing, &job.meter));
        loop {
            match tokio::time::timeout(LOOK, &mut done).await {
                Ok(next) => match next? {
                    Next::End(end) => break end,
                    Next::Segment => {
                        let why = format!(
                            "{} writes to stdout, and not only into its folder",
                            job.tool
                        );
                        return Err(JobError::Disk(why));
                    }
                },
                Err(_) => look(),
            }
        }
    };
    look();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(disk(folder))? {
        let entry = entry.map_err(disk(folder))?;
        let name = format!("{stem}/{}", entry.file_name().to_string_lossy());
        let size = entry.metadata().map_err(disk(&entry.path()))?.len();
        files.push(DumpedFile {
            path: entry.path(),
            name,
            size,
        });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Dumped { files, end })
}

/// The tool's stdout goes into one file, or one for each table.
async fn write(job: &Job, source: &mut Source, mut files: Files) -> Result<Dumped, JobError> {
    let mut segment = Vec::with_capacity(job.layout.segment);
    loop {
        match source.next(&mut segment, &job.meter).await? {
            Next::Segment => {
                let folder = files.folder.clone();
                let write = move || files.take(&segment).map(|()| (files, segment));
                let written = spawn_blocking(write).await.map_err(std::io::Error::other)?;
                (files, segment) = written.map_err(disk(&folder))?;
                segment.clear();
            }
            Next::End(end) => {
                let folder = files.folder.clone();
                return Ok(Dumped {
                    files: files.finish().map_err(disk(&folder))?,
                    end,
                });
            }
        }
    }
}

/// The files that a stream is cut into, at the beginnings of lines that name a table.
///
/// Wherever it is cut, the files joined in their order are the stream: a line in a routine's body
/// that looks like such a comment does no harm.
struct Files {
    folder: PathBuf,
    stem: Option<String>,
    cuts: &'static [&'static str],
    /// The beginning of a line that may become a cut.
    pending: Vec<u8>,
    open: Option<File>,
    made: Vec<DumpedFile>,
}

impl Files {
    fn one(folder: &Path, name: String) -> Self {
        let made = vec![DumpedFile {
            path: folder.join("0"),
            name,
            size: 0,
        }];
        Self {
            folder: folder.to_owned(),
            stem: None,
            cuts: &[],
            pending: Vec::new(),
            open: None,
            made,
        }
    }

    fn cut(folder: &Path, stem: &str, cuts: &'static [&'static str]) -> Self {
        let made = vec![DumpedFile {
            path: folder.join("0"),
            name: format!("{stem}/0000-schema.sql"),
            size: 0,
        }];
        let folder = folder.to_owned();
        Self {
            folder,
            stem: Some(stem.to_owned()),
            cuts,
            pending: Vec::new(),
            open: None,
            made,
        }
    }

    fn take(&mut self, segment: &[u8]) -> std::io::Result<()> {
        if self.stem.is_none() {
            return self.append(segment);
        }
        let mut rest = segment;
        if !self.pending.is_empty() {
            // Complete the line that the last segment ended in.
            let line = rest
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(rest.len(), |at| at + 1);
            self.pending.extend_from_slice(&rest[..line]);
            rest = &rest[line..];
            if rest.is_empty() && self.pending.len() < LONGEST_CUT && !self.pending.ends_with(b"\n")
            {
                return Ok(());
            }
            let pending = std::mem::take(&mut self.pending);
            self.begin_if_cut(&pending)?;
            self.append(&pending)?;
        }
        let mut from = 0;
        for start in line_starts(rest) {
            let line = &rest[start..];
            if !line.starts_with(b"-- ") && !b"-- ".starts_with(line) {
                continue;
            }
            let complete = line.iter().take(LONGEST_CUT).any(|byte| *byte == b'\n');
            if !complete && line.len() < LONGEST_CUT {
                self.append(&rest[from..start])?;
                self.pending = line.to_vec();
                return Ok(());
            }
            if self.cuts.iter().any(|cut| line.starts_with(cut.as_bytes())) {
                self.append(&rest[from..start])?;
                self.begin_if_cut(line)?;
                from = start;
            }
        }
        self.append(&rest[from..])
    }

    /// Begins a new file when `line` begins with one of the cuts; a table's name follows in
    /// backquotes.
    fn begin_if_cut(&mut self, line: &[u8]) -> std::io::Result<()> {
        let (Some(stem), Some(cut)) = (
            &self.stem,
            self.cuts
                .iter()
                .find(|cut| line.starts_with(cut.as_bytes())),
        ) else {
            return Ok(());
        };
        let line = &line[cut.len()..line.len().min(LONGEST_CUT)];
        let line =
            String::from_utf8_lossy(line.split(|byte| *byte == b'\n').next().unwrap_or_default());
        let table = if cut.ends_with('`') {
            line.trim_end_matches('`')
        } else {
            "rest"
        };
        let mut table = file_stem(table);
        table.truncate(table.floor_char_boundary(100));
        let number = self.made.len();
        let name = format!("{stem}/{number:04}-{table}.sql");
        // Also a file that nothing went into is there.
        self.append(&[])?;
        self.open = None;
        self.made.push(DumpedFile {
            path: self.folder.join(number.to_string()),
            name,
            size: 0,
        });
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let current = self.made.last_mut().expect("begun with one");
        let file = match &mut self.open {
            Some(file) => file,
            none => none.insert(File::create(&current.path)?),
        };
        file.write_all(bytes)?;
        current.size += bytes.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> std::io::Result<Vec<DumpedFile>> {
        let pending = std::mem::take(&mut self.pending);
        self.append(&pending)?;
        Ok(self.made)
    }
}

/// Where lines begin in `bytes`, which begins with one.
fn line_starts(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let first = (!bytes.is_empty()).then_some(0);
    first.into_iter().chain(
        memchr::memchr_iter(b'\n', bytes)
            .map(|at| at + 1)
            .filter(|at| *at < bytes.len()),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CUTS: &[&str] = &["-- Table structure for table `", "-- Dumping routines for"];

    fn cut(segments: &[&[u8]]) -> Vec<(String, Vec<u8>)> {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::cut(folder.path(), "shop", CUTS);
        for segment in segments {
            files.take(segment).unwrap();
        }
        let made = files.finish().unwrap();
        made.into_iter()
            .map(|file| (file.name, std::fs::read(&file.path).unwrap()))
            .collect()
    }

    #[test]
    fn a_dump_is_cut_at_its_tables() {
        let text = b"head\n--\n-- Table structure for table `a/b`\n--\ncreate\n-- Table structure for table `c`\nx\n\
                     -- Dumping routines for database 'd'\nend\n";
        for at in 0..text.len() {
            let files = cut(&[&text[..at], &text[at..]]);
            let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(
                names,
                [
                    "shop/0000-schema.sql",
                    "shop/0001-a_b.sql",
                    "shop/0002-c.sql",
                    "shop/0003-rest.sql"
                ],
                "{at}"
            );
            assert_eq!(
                files
                    .iter()
                    .flat_map(|(_, bytes)| bytes.clone())
                    .collect::<Vec<u8>>(),
                text
            );
        }
    }

    proptest! {
        #[test]
        fn the_files_joined_are_the_stream(
            pieces in proptest::collection::vec(prop_oneof![
                Just("\n".to_owned()), Just("-- ".to_owned()), Just("-- Table structure for table `t`".to_owned()), Just("-- Dumping".to_owned()),
                "[a-z`]{0,9}", Just("x".repeat(600)),
            ], 0..40),
            at in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let text = pieces.concat().into_bytes();
            let mut at: Vec<usize> = at.iter().map(|index| index.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let segments: Vec<&[u8]> = at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let joined: Vec<u8> = cut(&segments).into_iter().flat_map(|(_, bytes)| bytes).collect();
            prop_assert_eq!(joined, text);
        }
    }
}
