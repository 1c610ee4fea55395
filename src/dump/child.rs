//! A tool's process, from its start to its end: its stderr is drained all the while, and its whole
//! process group ends with it.
//!
//! A process that has exited keeps its number, and its group's, until it is reaped. So it is reaped
//! last: as long as there may be something to end in its group, the group is certainly its own.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::signal::unix::SignalKind;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::guard;
use super::stderr::{Complaints, Matching, drain};
use super::tool::ToolCommand;

/// A larger pipe means fewer wake-ups; Linux allows this much to everybody.
const PIPE: usize = 1 << 20;
/// How long a child may take to end after SIGTERM before SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(3);
/// How long it is waited for after SIGKILL: a process that waits for a dead disk does not end, and
/// another user's (`sudo`) cannot be ended.
const KILL_GRACE: Duration = Duration::from_secs(3);
/// How long stderr may stay open after the child is gone: a grandchild may hold it.
const STDERR_GRACE: Duration = Duration::from_secs(1);

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started.
    #[error("cannot run {program}: {error}{}", super::tool::package(program))]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It exited with something else than 0, or a signal ended it.
    #[error("{program} {ending}{}", words(.last_words))]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        ending: Ending,
        /// The end of its stderr.
        last_words: String,
    },
    /// The system would not say how it ended.
    #[error("cannot wait for {program}: {error}")]
    Wait {
        /// The program.
        program: String,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With this exit status.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Self {
        status.signal().map_or_else(
            || Ending::Exit(status.code().unwrap_or_default()),
            Ending::Signal,
        )
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exit(status) => write!(f, "exited with status {status}"),
            Ending::Signal(signal) => {
                write!(f, "was killed by signal {signal}{}", signal_name(*signal))
            }
        }
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
    /// `None` only while it is being dropped.
    process: Option<std::process::Child>,
    /// The child leads a group of this number, until it is reaped.
    group: Option<Pid>,
    /// Wakes when any child of this program changes its state.
    changes: tokio::signal::unix::Signal,
    ended: Option<Ending>,
    stderr: JoinHandle<()>,
    heard: Arc<Mutex<Complaints>>,
}

impl Child {
    /// Starts `command`, its stdout read through the pipe that is returned.
    ///
    /// # Errors
    /// [`ChildError::Spawn`].
    pub fn reading(command: &ToolCommand) -> Result<(Self, ChildStdout), ChildError> {
        Self::spawn(command, Stdio::null(), Stdio::piped(), |process| {
            let stdout = ChildStdout::from_std(process.stdout.take().expect("stdout is piped"))?;
            // Refused when the user's pipes have used up their quota; the default size works too.
            let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE);
            Ok(stdout)
        })
    }

    /// Starts `command`, its stdin written through the pipe that is returned; its stdout goes
    /// nowhere.
    ///
    /// # Errors
    /// [`ChildError::Spawn`].
    pub fn writing(command: &ToolCommand) -> Result<(Self, ChildStdin), ChildError> {
        Self::spawn(command, Stdio::piped(), Stdio::null(), |process| {
            let stdin = ChildStdin::from_std(process.stdin.take().expect("stdin is piped"))?;
            let _ = rustix::pipe::fcntl_setpipe_size(&stdin, PIPE);
            Ok(stdin)
        })
    }

    /// Starts `command`, spoken to through the pipes that are returned.
    ///
    /// # Errors
    /// [`ChildError::Spawn`].
    pub fn talking(command: &ToolCommand) -> Result<(Self, ChildStdin, ChildStdout), ChildError> {
        let talk = Self::spawn(command, Stdio::piped(), Stdio::piped(), |process| {
            let stdin = ChildStdin::from_std(process.stdin.take().expect("stdin is piped"))?;
            let stdout = ChildStdout::from_std(process.stdout.take().expect("stdout is piped"))?;
            for pipe in [stdin.as_fd(), stdout.as_fd()] {
                let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE);
            }
            Ok((stdin, stdout))
        });
        talk.map(|(child, (stdin, stdout))| (child, stdin, stdout))
    }

    fn spawn<P>(
        command: &ToolCommand,
        stdin: Stdio,
        stdout: Stdio,
        pipe: impl FnOnce(&mut std::process::Child) -> io::Result<P>,
    ) -> Result<(Self, P), ChildError> {
        let program = command.title();
        let start = || {
            // Before there is a child whose end it could miss.
            let changes = tokio::signal::unix::signal(SignalKind::child())?;
            guard::be_ready();
            let mut process = command
                .to_command()?
                .stdin(stdin)
                .stdout(stdout)
                .stderr(Stdio::piped())
                .spawn()?;
            let group = Pid::from_child(&process);
            guard::watch(group);
            let pipe = pipe(&mut process)?;
            let stderr = ChildStderr::from_std(process.stderr.take().expect("stderr is piped"))?;
            let heard = Arc::<Mutex<Complaints>>::default();
            let child = Self {
                program: program.clone(),
                process: Some(process),
                group: Some(group),
                changes,
                ended: None,
                stderr: tokio::spawn(drain(stderr, heard.clone())),
                heard,
            };
            Ok((child, pipe))
        };
        start().map_err(|error| ChildError::Spawn {
            program: program.clone(),
            error,
        })
    }

    /// The program, as messages name it.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Whether it is known to have exited with 0; then there is nothing to wait for.
    pub fn has_exited_well(&self) -> bool {
        self.ended == Some(Ending::Exit(0))
    }

    /// Counts the lines of its stderr for which `matters` holds, over all that it says and not only
    /// what is kept; to be called before it is given work.
    pub fn watch_for(&self, matters: fn(&str) -> bool) {
        self.heard.lock().expect("no holder panics").watch(matters);
    }

    /// The lines that were watched for; to be asked when it has ended.
    pub async fn matching(&mut self) -> Matching {
        self.hear_out().await;
        self.heard.lock().expect("no holder panics").matching()
    }

    /// Waits for its end. May be called again, and given up and called again.
    ///
    /// # Errors
    /// [`ChildError::Failed`] with its last words when it did not exit with 0.
    pub async fn wait(&mut self) -> Result<(), ChildError> {
        match self.ending().await {
            Ok(Ending::Exit(0)) => Ok(()),
            Ok(ending) => Err(ChildError::Failed {
                last_words: self.last_words().await,
                program: self.program.clone(),
                ending,
            }),
            Err(error) => Err(ChildError::Wait {
                program: self.program.clone(),
                error,
            }),
        }
    }

    /// Waits for its end and leaves it to be reaped.
    async fn ending(&mut self) -> io::Result<Ending> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        loop {
            if let Some(ending) = self.ended {
                return Ok(ending);
            }
            let group = self.group.ok_or(io::ErrorKind::NotFound)?;
            if let Some(status) = waitid(WaitId::Pid(group), options)? {
                let signal = status.terminating_signal().map(Ending::Signal);
                let exit = Ending::Exit(status.exit_status().unwrap_or_default());
                self.ended = Some(signal.unwrap_or(exit));
            } else {
                self.changes.recv().await;
            }
        }
    }

    /// The end of what it said on stderr; to be asked when it has ended.
    pub async fn last_words(&mut self) -> String {
        self.said().await.join("\n")
    }

    /// What it said on stderr, a line each, with the middle left out when it was much; to be asked
    /// when it has ended.
    pub async fn said(&mut self) -> Vec<String> {
        self.hear_out().await;
        self.heard.lock().expect("no holder panics").lines()
    }

    async fn hear_out(&mut self) {
        if !self.stderr.is_finished() && timeout(STDERR_GRACE, &mut self.stderr).await.is_err() {
            self.stderr.abort();
        }
    }

    /// Ends it and every process of its group: SIGTERM, so that it can tell its server, then
    /// SIGKILL. One that does not even end then is left alone, and the log says so.
    pub async fn kill(&mut self) {
        let Some(group) = self.group else { return };
        let _ = kill_process_group(group, Signal::TERM);
        let _ = timeout(TERM_GRACE, self.ending()).await;
        // What it has left behind in its group goes, too.
        let _ = kill_process_group(group, Signal::KILL);
        if timeout(KILL_GRACE, self.ending()).await.is_err() {
            let (program, pid) = (&self.program, group.as_raw_nonzero());
            tracing::warn!(
                "{program} (process {pid}) cannot be ended: it waits for a disk, or is another user's"
            );
        }
        self.reap();
    }

    /// Lets go of a child that has ended: from now on its number may be another process's, and
    /// nothing is signalled any more.
    pub fn reap(&mut self) {
        let (Some(group), Some(process)) = (self.group, &mut self.process) else {
            return;
        };
        if self.ended.is_some() && process.try_wait().is_ok_and(|status| status.is_some()) {
            guard::release(group);
            self.group = None;
        }
    }
}

/// Whoever gives a child up without a word still ends it, as far as that can be done without
/// waiting.
impl Drop for Child {
    fn drop(&mut self) {
        if let Some(group) = self.group
            && !self.has_exited_well()
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.reap();
        if let (Some(group), Some(mut process)) = (self.group, self.process.take()) {
            let reap = move || {
                let _ = process.wait();
                guard::release(group);
            };
            let _ = std::thread::Builder::new().name("reap".into()).spawn(reap);
        }
    }
}
