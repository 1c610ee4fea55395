//! The first step: a dump tool as a child process, read segment by segment.
//!
//! A child's failure is an error where the stream would end, so no caller can take a broken dump
//! for a whole one: [`Source::next`] gives [`Next::End`] only when stdout reached EOF, the process
//! exited 0, and the dump looks as a whole one does. [`DumpEnd`] is the proof.

use std::time::Duration;

use bytes::BytesMut;

use super::output::Output;
use super::{Child, ChildError, ToolCommand, ToolError, words};
use crate::meter::Meter;

/// Why a dump is not whole.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The tool could not be started, exited with something else than 0, or was ended by a signal.
    #[error(transparent)]
    Tool(#[from] ChildError),
    /// stdout could not be read.
    #[error("cannot read the dump of {program}: {error}")]
    Read {
        /// The program.
        program: String,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The tool exited 0, and its dump is not what a whole one is.
    #[error("{program} exited 0, but {flaw}{}", words(.last_words))]
    Flawed {
        /// The program.
        program: String,
        /// What is wrong with the dump.
        flaw: Flaw,
        /// The end of its stderr.
        last_words: String,
    },
    /// The tool closed its stdout and stayed.
    #[error("{program} closed its stdout but did not exit within {after:?} (exit_timeout){}", words(.last_words))]
    Lingers {
        /// The program.
        program: String,
        /// How long it was given.
        after: Duration,
        /// The end of its stderr.
        last_words: String,
    },
    /// A dump by several children could not be begun.
    #[error(transparent)]
    Begin(#[from] ToolError),
    /// The tool exited 0, and somebody else holds its stdout.
    #[error("{program} exited 0, but a process that it left behind holds its stdout open and wrote nothing for {after:?} (exit_timeout){}", words(.last_words))]
    Held {
        /// The program.
        program: String,
        /// How long nothing came.
        after: Duration,
        /// The end of its stderr.
        last_words: String,
    },
}

/// What a dump lacks although its tool exited 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// There is not a byte.
    #[error("its dump is empty (allow_empty = true takes it for a good one)")]
    Empty,
    /// It begins as another kind of file does.
    #[error("its dump does not begin with {0:?}: it is not of the format that was asked for")]
    Beginning(&'static str),
    /// Its last words are missing.
    #[error("its dump does not end with {0:?}: it is not whole")]
    EndMarker(&'static str),
}

/// What one dump's end looks like, for engines whose tools write a marker last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndMarker {
    /// The marker.
    pub text: &'static str,
    /// In how many of the dump's last bytes it must be found.
    pub within: usize,
}

/// What a whole dump looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DumpShape {
    /// What it begins with.
    pub beginning: Option<&'static str>,
    /// What it ends with.
    pub end_marker: Option<EndMarker>,
    /// Whether no bytes at all are a dump, too.
    pub may_be_empty: bool,
}

impl DumpShape {
    /// Of a tool whose stdout is not its dump.
    pub const NOTHING: Self = Self {
        beginning: None,
        end_marker: None,
        may_be_empty: true,
    };

    fn flaw(&self, size: u64, first: &[u8], last: &[u8]) -> Option<Flaw> {
        if size == 0 {
            return (!self.may_be_empty).then_some(Flaw::Empty);
        }
        if let Some(text) = self.beginning
            && !first.starts_with(text.as_bytes())
        {
            return Some(Flaw::Beginning(text));
        }
        let EndMarker { text, .. } = self.end_marker?;
        let is_there = memchr::memmem::find(last, text.as_bytes()).is_some();
        (!is_there).then_some(Flaw::EndMarker(text))
    }
}

/// Proof that a dump is whole, and what is known only then. Made by [`Source::next`], and of those
/// of several by [`DumpEnd::of_all`], alone.
#[derive(Debug)]
pub struct DumpEnd {
    size: u64,
    warnings: Vec<String>,
}

impl DumpEnd {
    /// One dump of several children: the ends of all tools, and what else there was to be heard.
    pub fn of_all(
        size: u64,
        ends: impl IntoIterator<Item = Self>,
        clients: Vec<Vec<String>>,
    ) -> Self {
        let mut warnings: Vec<String> = Vec::new();
        for said in ends.into_iter().map(|end| end.warnings).chain(clients) {
            for line in said {
                // What is about the database is said by each of them.
                if !warnings.contains(&line) {
                    warnings.push(line);
                }
            }
        }
        Self { size, warnings }
    }

    /// Bytes that the tool wrote to its stdout.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What the tool said on its stderr although it exited 0, a line each; when it was much, the
    /// first and the last lines.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// What comes next from a source.
#[derive(Debug)]
pub enum Next {
    /// The next bytes of the dump are in the segment; only the last one is not filled.
    Segment,
    /// The dump is whole.
    End(DumpEnd),
}

/// A running dump.
pub struct Source {
    output: Output,
    shape: DumpShape,
    exit_timeout: Duration,
    at_eof: bool,
    /// Bytes that were read before anybody wanted them.
    early: Vec<u8>,
    /// As many of the dump's first bytes as its shape is about.
    first: BytesMut,
    /// The same of its last.
    last: BytesMut,
    size: u64,
}

impl Source {
    /// Starts the dump tool.
    ///
    /// # Errors
    /// [`DumpError::Tool`].
    pub fn spawn(
        command: &ToolCommand,
        shape: DumpShape,
        exit_timeout: Duration,
    ) -> Result<Self, DumpError> {
        let (child, stdout) = Child::reading(command)?;
        Ok(Self {
            output: Output::new(child, stdout)?,
            shape,
            exit_timeout,
            at_eof: false,
            early: Vec::new(),
            first: BytesMut::new(),
            last: BytesMut::new(),
            size: 0,
        })
    }

    /// Fills an empty `segment` up to its capacity, or less at the end; then, once, the end.
    ///
    /// # Errors
    /// Any [`DumpError`]. A child that fails is an error at once, whatever it
    /// wrote before.
    pub async fn next(&mut self, segment: &mut Vec<u8>, meter: &Meter) -> Result<Next, DumpError> {
        let capacity = segment.capacity();
        self.fill(segment, capacity, meter).await
    }

    /// Waits for the dump's first bytes: what the tool does before, such as taking locks, is done.
    ///
    /// # Errors
    /// As for [`Source::next`], but for an empty dump, which is no error yet.
    pub async fn begun(&mut self, meter: &Meter) -> Result<(), DumpError> {
        let mut early = Vec::with_capacity(1);
        self.read(&mut early, 1, meter).await?;
        self.early = early;
        Ok(())
    }

    /// Fills `segment` from where it ends up to `limit` bytes, or less at the dump's end; then, once,
    /// the end. The segment has room for so many.
    ///
    /// # Errors
    /// As for [`Source::next`].
    pub async fn fill(
        &mut self,
        segment: &mut Vec<u8>,
        limit: usize,
        meter: &Meter,
    ) -> Result<Next, DumpError> {
        let start = segment.len();
        let early = self.early.len().min(limit.saturating_sub(start));
        segment.extend(self.early.drain(..early));
        self.read(segment, limit, meter).await?;
        if segment.len() == start {
            return self.end().await.map(Next::End);
        }
        self.look_at(&segment[start..]);
        Ok(Next::Segment)
    }

    /// Reads until there are `limit` bytes, or no more.
    async fn read(
        &mut self,
        segment: &mut Vec<u8>,
        limit: usize,
        meter: &Meter,
    ) -> Result<(), DumpError> {
        while !self.at_eof && segment.len() < limit {
            let read = self.output.read(segment, limit, self.exit_timeout, meter);
            self.at_eof = read.await? == 0;
        }
        Ok(())
    }

    fn look_at(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if let Some(text) = self.shape.beginning {
            let missing = text.len().saturating_sub(self.first.len());
            self.first
                .extend_from_slice(&bytes[..missing.min(bytes.len())]);
        }
        if let Some(marker) = self.shape.end_marker {
            self.last
                .extend_from_slice(&bytes[bytes.len().saturating_sub(marker.within)..]);
            let surplus = self.last.len().saturating_sub(marker.within);
            let _ = self.last.split_to(surplus);
        }
    }

    async fn end(&mut self) -> Result<DumpEnd, DumpError> {
        let warnings = self.output.end(self.exit_timeout).await?;
        if let Some(flaw) = self.shape.flaw(self.size, &self.first, &self.last) {
            return Err(DumpError::Flawed {
                program: self.output.child.program().to_owned(),
                flaw,
                last_words: warnings.join("\n"),
            });
        }
        Ok(DumpEnd {
            size: self.size,
            warnings,
        })
    }

    /// Ends the tool and every process of its group.
    pub async fn kill(&mut self) {
        self.output.child.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const SHAPE: DumpShape = DumpShape {
        beginning: Some("begin"),
        end_marker: Some(EndMarker {
            text: "end",
            within: 8,
        }),
        may_be_empty: false,
    };

    async fn dump(script: &str, segment: usize) -> Result<DumpEnd, DumpError> {
        let command = ToolCommand::new("sh").args(["-c", script]);
        let mut source = Source::spawn(&command, SHAPE, Duration::from_secs(5))?;
        let meter = Meter::new(Instant::now());
        let mut segment = Vec::with_capacity(segment);
        loop {
            if let Next::End(end) = source.next(&mut segment, &meter).await? {
                return Ok(end);
            }
            segment.clear();
        }
    }

    #[tokio::test]
    async fn a_dump_looks_like_one_whatever_its_segments_are() {
        for segment in [1, 2, 3, 7, 100] {
            let end = dump(
                "echo begin and end; echo careful >&2; echo now >&2",
                segment,
            );
            let end = end.await.unwrap();
            assert_eq!(end.size(), 14);
            assert_eq!(end.warnings(), ["careful", "now"]);
            for (script, flaw) in [
                ("true", Flaw::Empty),
                ("echo bigin and end", Flaw::Beginning("begin")),
                ("echo begin and", Flaw::EndMarker("end")),
                ("echo begin end and more", Flaw::EndMarker("end")),
            ] {
                match dump(script, segment).await {
                    Err(DumpError::Flawed { flaw: found, .. }) => assert_eq!(found, flaw),
                    other => panic!("{script}: {other:?}"),
                }
            }
        }
    }
}
