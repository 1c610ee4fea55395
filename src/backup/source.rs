//! The first step: a dump tool as a child process, read segment by segment.
//!
//! A child's failure is an error where the stream would end, so no caller can take a broken dump for a
//! whole one: [`Source::next`] gives [`Next::End`] only when stdout reached EOF, the process exited 0, and
//! the engine's end marker, where there is one, stood in the last bytes. [`DumpEnd`] is the proof.

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rustix::process::{Pid, Signal, kill_process_group};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdout};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::meter::Meter;
use crate::engine::{EndMarker, ToolCommand};

/// How much of a child's stderr is kept for its failure's message, in bytes.
const LAST_WORDS: usize = 4 << 10;
/// A larger pipe means fewer wake-ups; Linux allows this much to everybody.
const PIPE: usize = 1 << 20;
/// How long a child may take to end after SIGTERM before SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(3);
/// How long stderr may stay open after the child is gone: a grandchild may hold it.
const STDERR_GRACE: Duration = Duration::from_secs(1);

/// Why a dump is not whole.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The tool could not be started.
    #[error("cannot run {program}: {error}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        error: std::io::Error,
    },
    /// stdout could not be read.
    #[error("cannot read the dump: {0}")]
    Read(#[from] std::io::Error),
    /// The tool exited with something else than 0, or a signal ended it.
    #[error("{program} {how}{}", words(.last_words))]
    Failed {
        /// The program.
        program: String,
        /// `exited with status 1`, `was killed by signal 9 (SIGKILL)`.
        how: String,
        /// The end of its stderr.
        last_words: String,
    },
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

fn words(last_words: &str) -> String {
    if last_words.is_empty() { "; it said nothing".into() } else { format!("; its last words:\n{last_words}") }
}

/// Proof that a dump is whole, and what is known only then. Made by `Source::next` alone.
#[derive(Debug)]
pub struct DumpEnd {
    size: u64,
    sha256: [u8; 32],
}

impl DumpEnd {
    /// Size of the dump, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// SHA-256 of the dump.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
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
    program: String,
    child: Child,
    /// The child leads a group of this number; the group outlives it when it left processes behind.
    group: Option<Pid>,
    stdout: ChildStdout,
    stderr: JoinHandle<()>,
    last_words: Arc<Mutex<VecDeque<u8>>>,
    marker: Option<EndMarker>,
    exit_timeout: Duration,
    exited: Option<ExitStatus>,
    at_eof: bool,
    tail: BytesMut,
    size: u64,
    hash: JoinHandle<Sha256>,
}

impl Source {
    /// Starts the dump tool.
    ///
    /// # Errors
    /// [`DumpError::Spawn`].
    pub fn spawn(command: &ToolCommand, marker: Option<EndMarker>, exit_timeout: Duration) -> Result<Self, DumpError> {
        let program = command.program.display().to_string();
        let mut child = command
            .to_command()
            .and_then(|mut command| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn())
            .map_err(|error| DumpError::Spawn { program: program.clone(), error })?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        // Refused when the user's pipes have used up their quota; the default size works too.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE);
        let last_words = Arc::<Mutex<VecDeque<u8>>>::default();
        let stderr = tokio::spawn(drain(stderr, last_words.clone()));
        Ok(Self {
            program,
            group: child.id().and_then(|id| Pid::from_raw(id.cast_signed())),
            child,
            stdout,
            stderr,
            last_words,
            marker,
            exit_timeout,
            exited: None,
            at_eof: false,
            tail: BytesMut::new(),
            size: 0,
            hash: tokio::spawn(async { Sha256::new() }),
        })
    }

    /// Reads the next `segment` bytes, or fewer at the end; then, once, the end.
    ///
    /// # Errors
    /// Any [`DumpError`] but [`DumpError::Spawn`]. A child that fails is an error at once, whatever it
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
                status = self.child.wait(), if self.exited.is_none() => {
                    let status = status?;
                    self.exited = Some(status);
                    if !status.success() {
                        return Err(self.failed(status).await);
                    }
                }
            }
        }
        if bytes.is_empty() {
            return self.end().await.map(Next::End);
        }
        let bytes = bytes.freeze();
        self.size += bytes.len() as u64;
        if let Some(marker) = self.marker {
            self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(marker.within)..]);
            let surplus = self.tail.len().saturating_sub(marker.within);
            let _ = self.tail.split_to(surplus);
        }
        self.hash_next(bytes.clone()).await?;
        Ok(Next::Segment(bytes))
    }

    /// Hashes in the background while the next segment is read, one behind at most.
    async fn hash_next(&mut self, bytes: Bytes) -> Result<(), DumpError> {
        let mut hash = (&mut self.hash).await.map_err(std::io::Error::other)?;
        self.hash = spawn_blocking(move || {
            hash.update(&bytes);
            hash
        });
        Ok(())
    }

    async fn end(&mut self) -> Result<DumpEnd, DumpError> {
        let status = match self.exited {
            Some(status) => status,
            None => {
                if let Ok(status) = timeout(self.exit_timeout, self.child.wait()).await {
                    status?
                } else {
                    self.kill().await;
                    return Err(DumpError::Lingers {
                        program: self.program.clone(),
                        after: self.exit_timeout,
                        last_words: self.last_words().await,
                    });
                }
            }
        };
        self.exited = Some(status);
        if !status.success() {
            return Err(self.failed(status).await);
        }
        if let Some(marker) = self.marker
            && !self.tail.windows(marker.text.len()).any(|window| window == marker.text.as_bytes())
        {
            return Err(DumpError::NoEndMarker {
                program: self.program.clone(),
                marker: marker.text,
                last_words: self.last_words().await,
            });
        }
        let hash = (&mut self.hash).await.map_err(std::io::Error::other)?;
        Ok(DumpEnd { size: self.size, sha256: hash.finalize().into() })
    }

    async fn failed(&mut self, status: ExitStatus) -> DumpError {
        DumpError::Failed { program: self.program.clone(), how: how(status), last_words: self.last_words().await }
    }

    async fn last_words(&mut self) -> String {
        if timeout(STDERR_GRACE, &mut self.stderr).await.is_err() {
            self.stderr.abort();
        }
        let words = self.last_words.lock().expect("no holder panics");
        let bytes: Vec<u8> = words.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// Ends the child and every process of its group: SIGTERM, so that it can tell its server, then SIGKILL.
    pub async fn kill(&mut self) {
        let Some(group) = self.group else { return };
        let _ = kill_process_group(group, Signal::TERM);
        let _ = timeout(TERM_GRACE, self.child.wait()).await;
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait().await;
    }
}

/// How a process ended, in words.
pub fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}{}", signal_name(signal)),
        (None, None) => "ended in a way unknown".into(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        6 => " (SIGABRT)",
        9 => " (SIGKILL: perhaps the machine ran out of memory)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

/// Reads a child's stderr for as long as it lasts, so that the child never blocks on it, and keeps its end.
async fn drain(mut stderr: impl AsyncRead + Unpin, last_words: Arc<Mutex<VecDeque<u8>>>) {
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let mut words = last_words.lock().expect("no holder panics");
        words.extend(&buffer[..read]);
        let surplus = words.len().saturating_sub(LAST_WORDS);
        words.drain(..surplus);
    }
}
