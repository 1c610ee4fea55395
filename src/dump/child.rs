//! A tool's process, from its start to its end: its stderr is drained all the while, and its whole
//! process group ends with it.

use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::tool::ToolCommand;

/// How much of a child's stderr is kept for its failure's message, in bytes.
const LAST_WORDS: usize = 4 << 10;
/// A larger pipe means fewer wake-ups; Linux allows this much to everybody.
const PIPE: usize = 1 << 20;
/// How long a child may take to end after SIGTERM before SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(3);
/// How long stderr may stay open after the child is gone: a grandchild may hold it.
const STDERR_GRACE: Duration = Duration::from_secs(1);

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started.
    #[error("cannot run {program}: {error}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// It exited with something else than 0, or a signal ended it.
    #[error("{program} {how}{}", words(.last_words))]
    Failed {
        /// The program.
        program: String,
        /// `exited with status 1`, `was killed by signal 9 (SIGKILL)`.
        how: String,
        /// The end of its stderr.
        last_words: String,
    },
    /// The system would not say how it ended.
    #[error("cannot wait for a child process: {0}")]
    Wait(#[from] io::Error),
}

/// A tool's last words as they follow a message.
pub fn words(last_words: &str) -> String {
    if last_words.is_empty() {
        "; it said nothing".into()
    } else {
        format!("; its last words:\n{last_words}")
    }
}

/// A running tool.
pub struct Child {
    program: String,
    process: tokio::process::Child,
    /// The child leads a group of this number; the group outlives it when it left processes behind.
    group: Option<Pid>,
    stderr: JoinHandle<()>,
    last_words: Arc<Mutex<VecDeque<u8>>>,
    exited: Option<ExitStatus>,
}

impl Child {
    /// Starts `command`, its stdout read through the pipe that is returned.
    ///
    /// # Errors
    /// [`ChildError::Spawn`].
    pub fn reading(command: &ToolCommand) -> Result<(Self, ChildStdout), ChildError> {
        let mut child = Self::spawn(command, Stdio::null(), Stdio::piped())?;
        let stdout = child.process.stdout.take().expect("stdout is piped");
        // Refused when the user's pipes have used up their quota; the default size works too.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE);
        Ok((child, stdout))
    }

    /// Starts `command`, its stdin written through the pipe that is returned; its stdout goes
    /// nowhere.
    ///
    /// # Errors
    /// [`ChildError::Spawn`].
    pub fn writing(command: &ToolCommand) -> Result<(Self, ChildStdin), ChildError> {
        let mut child = Self::spawn(command, Stdio::piped(), Stdio::null())?;
        let stdin = child.process.stdin.take().expect("stdin is piped");
        let _ = rustix::pipe::fcntl_setpipe_size(&stdin, PIPE);
        Ok((child, stdin))
    }

    fn spawn(command: &ToolCommand, stdin: Stdio, stdout: Stdio) -> Result<Self, ChildError> {
        let program = command.program.display().to_string();
        let mut process = command
            .to_command()
            .and_then(|mut command| {
                command
                    .stdin(stdin)
                    .stdout(stdout)
                    .stderr(Stdio::piped())
                    .spawn()
            })
            .map_err(|error| ChildError::Spawn {
                program: program.clone(),
                error,
            })?;
        let stderr = process.stderr.take().expect("stderr is piped");
        let last_words = Arc::<Mutex<VecDeque<u8>>>::default();
        Ok(Self {
            program,
            group: process.id().and_then(|id| Pid::from_raw(id.cast_signed())),
            process,
            stderr: tokio::spawn(drain(stderr, last_words.clone())),
            last_words,
            exited: None,
        })
    }

    /// The program, as it was named.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Whether it is known to have exited with 0; then there is nothing to wait for.
    pub fn has_exited_well(&self) -> bool {
        self.exited.is_some_and(|status| status.success())
    }

    /// Waits for its end. May be called again, and given up and called again.
    ///
    /// # Errors
    /// [`ChildError::Failed`] with its last words when it did not exit with 0.
    pub async fn wait(&mut self) -> Result<(), ChildError> {
        let status = match self.exited {
            Some(status) => status,
            None => self.process.wait().await?,
        };
        self.exited = Some(status);
        if status.success() {
            return Ok(());
        }
        let last_words = self.last_words().await;
        Err(ChildError::Failed {
            program: self.program.clone(),
            how: how(status),
            last_words,
        })
    }

    /// The end of what it said on stderr; to be asked when it has ended.
    pub async fn last_words(&mut self) -> String {
        if !self.stderr.is_finished() && timeout(STDERR_GRACE, &mut self.stderr).await.is_err() {
            self.stderr.abort();
        }
        let words = self.last_words.lock().expect("no holder panics");
        let bytes: Vec<u8> = words.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// Ends it and every process of its group: SIGTERM, so that it can tell its server, then
    /// SIGKILL.
    pub async fn kill(&mut self) {
        let Some(group) = self.group else { return };
        let _ = kill_process_group(group, Signal::TERM);
        let _ = timeout(TERM_GRACE, self.process.wait()).await;
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.process.wait().await;
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

/// Reads a child's stderr for as long as it lasts, so that the child never blocks on it, and keeps
/// its end.
async fn drain(mut stderr: impl AsyncRead + Unpin, last_words: Arc<Mutex<VecDeque<u8>>>) {
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let mut words = last_words.lock().expect("no holder panics");
        words.extend(&buffer[..read]);
        let surplus = words.len().saturating_sub(LAST_WORDS);
        words.drain(..surplus);
    }
}
