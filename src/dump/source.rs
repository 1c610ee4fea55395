//! The first step: a dump tool as a child process, read segment by segment.
//!
//! A child's failure is an error where the stream would end, so no caller can take a broken dump
//! for a whole one: [`Source::next`] gives [`Next::End`] only when stdout reached EOF, the process
//! exited 0, and the engine's end marker, where there is one, stood in the last bytes. [`DumpEnd`]
//! is the proof.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::process::ChildStdout;
use tokio::time::timeout;

use super::{Child, ChildError, ToolCommand, words};
use crate::meter::Meter;

/// Why a dump is not whole.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The tool could not be started, exited with something else than 0, or was ended by a signal.
    #[error(transparent)]
    Tool(#[from] ChildError),
    /// stdout could not be read.
    #[error("cannot read the dump: {0}")]
    Read(#[from] std::io::Error),
    /// The tool exited 0 but its dump does not end as a whole one does.
    #[error("{program} exited 0, but its dump does not end with {marker:?}: it is not whole{}", words(.last_words))]
    NoEndMarker {
        /// The program.
        program: String,
        /// What was missing.
        marker: &'static str,
        /// The end of its stderr.
        last_words: String,
    },
    /// The tool closed its stdout and stayed.
    #[error("{program} closed its stdout but did not exit within {after:?}{}", words(.last_words))]
    Lingers {
        /// The program.
        program: String,
        /// How long it was given.
        after: Duration,
        /// The end of its stderr.
        last_words: String,
    },
}

/// What one dump's end looks like, for engines whose tools write a marker last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndMarker {
    /// The marker.
    pub text: &'static str,
    /// In how many of the dump's last bytes it must be found.
    pub within: usize,
}

/// Proof that a dump is whole, and what is known only then. Made by [`Source::next`] alone.
#[derive(Debug)]
pub struct DumpEnd {
    size: u64,
}

impl DumpEnd {
    /// Bytes that the tool wrote to its stdout.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// What comes next from a source.
#[derive(Debug)]
pub enum Next {
    /// The next bytes of the dump; only the last segment is shorter than asked for.
    Segment(Bytes),
    /// The dump is whole.
    End(DumpEnd),
}

/// A running dump.
pub struct Source {
    child: Child,
    stdout: ChildStdout,
    marker: Option<EndMarker>,
    exit_timeout: Duration,
    at_eof: bool,
    tail: BytesMut,
    size: u64,
}

impl Source {
    /// Starts the dump tool.
    ///
    /// # Errors
    /// [`DumpError::Tool`].
    pub fn spawn(
        command: &ToolCommand,
        marker: Option<EndMarker>,
        exit_timeout: Duration,
    ) -> Result<Self, DumpError> {
        let (child, stdout) = Child::reading(command)?;
        Ok(Self {
            child,
            stdout,
            marker,
            exit_timeout,
            at_eof: false,
            tail: BytesMut::new(),
            size: 0,
        })
    }

    /// Reads the next `segment` bytes, or fewer at the end; then, once, the end.
    ///
    /// # Errors
    /// Any [`DumpError`]. A child that fails is an error at once, whatever it
    /// wrote before.
    pub async fn next(&mut self, segment: usize, meter: &Meter) -> Result<Next, DumpError> {
        let mut bytes = BytesMut::with_capacity(segment);
        while !self.at_eof && bytes.len() < segment {
            let room = segment - bytes.len();
            let mut limited = (&mut bytes).limit(room);
            tokio::select! {
                read = self.stdout.read_buf(&mut limited) => {
                    let read = read?;
                    self.at_eof = read == 0;
                    meter.add_dump(read as u64);
                }
                // A child that failed may leave its stdout open in a process of its own.
                ended = self.child.wait(), if !self.child.has_exited_well() => ended?,
            }
        }
        if bytes.is_empty() {
            return self.end().await.map(Next::End);
        }
        let bytes = bytes.freeze();
        self.size += bytes.len() as u64;
        if let Some(marker) = self.marker {
            self.tail
                .extend_from_slice(&bytes[bytes.len().saturating_sub(marker.within)..]);
            let surplus = self.tail.len().saturating_sub(marker.within);
            let _ = self.tail.split_to(surplus);
        }
        Ok(Next::Segment(bytes))
    }

    async fn end(&mut self) -> Result<DumpEnd, DumpError> {
        let Ok(ended) = timeout(self.exit_timeout, self.child.wait()).await else {
            self.child.kill().await;
            return Err(DumpError::Lingers {
                program: self.child.program().to_owned(),
                after: self.exit_timeout,
                last_words: self.child.last_words().await,
            });
        };
        ended?;
        if let Some(marker) = self.marker
            && !self
                .tail
                .windows(marker.text.len())
                .any(|window| window == marker.text.as_bytes())
        {
            return Err(DumpError::NoEndMarker {
                program: self.child.program().to_owned(),
                marker: marker.text,
                last_words: self.child.last_words().await,
            });
        }
        Ok(DumpEnd { size: self.size })
    }

    /// Ends the tool and every process of its group.
    pub async fn kill(&mut self) {
        self.child.kill().await;
    }
}
