//! What a child writes to its stdout, and how it ends, for whoever reads one to its end.

use std::time::Duration;

use tokio::process::ChildStdout;
use tokio::time::{sleep, timeout};

use super::pipe::Pipe;
use super::source::DumpError;
use super::{Child, ChildError};
use crate::meter::Meter;

/// A child and its stdout.
pub(super) struct Output {
    pub child: Child,
    stdout: Pipe,
}

impl Output {
    /// # Errors
    /// [`ChildError::Spawn`].
    pub fn new(child: Child, stdout: ChildStdout) -> Result<Self, ChildError> {
        match Pipe::new(stdout) {
            Ok(stdout) => Ok(Self { child, stdout }),
            Err(error) => Err(ChildError::Spawn {
                program: child.program().to_owned(),
                error,
            }),
        }
    }

    /// Reads once behind what `segment` holds, up to `limit` bytes in all: how many more there are,
    /// 0 at the end. Once the child has exited 0 nothing may be silent for longer than `silence`.
    ///
    /// # Errors
    /// When stdout cannot be read, the child has failed, or what it left behind holds its stdout.
    pub async fn read(
        &mut self,
        segment: &mut Vec<u8>,
        limit: usize,
        silence: Duration,
        meter: &Meter,
    ) -> Result<usize, DumpError> {
        let room = limit.saturating_sub(segment.len());
        loop {
            let exited_well = self.child.has_exited_well();
            tokio::select! {
                read = self.stdout.read(segment, room) => {
                    let read = read.map_err(|error| DumpError::Read {
                        program: self.child.program().to_owned(),
                        error,
                    })?;
                    meter.add_dump(read as u64);
                    return Ok(read);
                }
                // A child that failed may leave its stdout open in a process of its own.
                ended = self.child.wait(), if !exited_well => ended?,
                // So may one that did not fail: what it left behind may go on, but not be silent.
                () = sleep(silence), if exited_well => return Err(self.held(silence).await),
            }
        }
    }

    async fn held(&mut self, after: Duration) -> DumpError {
        self.child.kill().await;
        DumpError::Held {
            program: self.child.program().to_owned(),
            after,
            last_words: self.child.last_words().await,
        }
    }

    /// Behind the end of its stdout: the child must exit 0 `within` a time. What it said on its
    /// stderr, a line each.
    ///
    /// # Errors
    /// When it does not.
    pub async fn end(&mut self, within: Duration) -> Result<Vec<String>, DumpError> {
        let Ok(ended) = timeout(within, self.child.wait()).await else {
            self.child.kill().await;
            return Err(DumpError::Lingers {
                program: self.child.program().to_owned(),
                after: within,
                last_words: self.child.last_words().await,
            });
        };
        ended?;
        let said = self.child.said().await;
        // All is read and said. Whatever becomes of the job, there is nothing to be ended any more.
        self.child.reap();
        Ok(said)
    }
}
