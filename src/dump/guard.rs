//! A process beside this one, which ends the tools when this one is killed.
//!
//! Whoever is killed by SIGKILL, or for want of memory, ends nothing himself: a `pg_dump` behind a
//! lock would stay in the server's queue. The guard reads a pipe whose other end this process
//! holds; when that closes without a word, the process is gone, however it went. The kernel's own
//! `PR_SET_PDEATHSIG` would reach the tool alone and not its group, is forgotten at a set-uid
//! program, and is sent when the *thread* ends that started the tool.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

/// The hidden subcommand that calls [`stand`].
pub const SUBCOMMAND: &str = "__guard";

/// How long tools may take to end after SIGTERM before SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

static ARMED: AtomicBool = AtomicBool::new(false);
static PIPE: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// From now on a guard is started with the first tool. For a program that knows [`SUBCOMMAND`].
pub fn arm() {
    ARMED.store(true, Ordering::Relaxed);
}

/// Starts the guard if there is none yet. Before a tool is started, so that the time in which it is
/// not watched is that of one write.
pub(super) fn be_ready() {
    if !ARMED.load(Ordering::Relaxed) {
        return;
    }
    let mut pipe = PIPE.lock().expect("no holder panics");
    if pipe.is_none() {
        match start() {
            Ok(stdin) => *pipe = Some(stdin),
            Err(error) => {
                ARMED.store(false, Ordering::Relaxed);
                tracing::debug!("no guard: {error}");
            }
        }
    }
}

/// A tool's group is to end with this process.
pub(super) fn watch(group: Pid) {
    tell(&mut PIPE.lock().expect("no holder panics"), '+', group);
}

/// A tool is about to be reaped: its number may soon be another's.
pub(super) fn release(group: Pid) {
    tell(&mut PIPE.lock().expect("no holder panics"), '-', group);
}

fn tell(pipe: &mut Option<ChildStdin>, sign: char, group: Pid) {
    if let Some(stdin) = pipe {
        // One write, so that a line is whole or not there. A guard that is gone is no reason to
        // end a backup.
        let _ = stdin.write_all(format!("{sign}{}\n", group.as_raw_nonzero()).as_bytes());
    }
}

fn start() -> std::io::Result<ChildStdin> {
    let mut guard = Command::new("/proc/self/exe")
        .arg(SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        // Not in the terminal's foreground group: Ctrl-C is not for it.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // It ends with this process, and is reaped by the system.
    let stdin = guard.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    // A guard that is held up must not hold up a backup.
    rustix::io::ioctl_fionbio(&stdin, true)?;
    Ok(stdin)
}

/// The guard itself: returns when whoever started it is gone, and all that it left behind is ended.
pub fn stand() {
    // A descriptor of the leader itself tells it from a later process of the same number.
    let mut groups: HashMap<i32, OwnedFd> = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Some((sign, Ok(number))) = line.split_at_checked(1).map(|(s, n)| (s, n.parse())) else {
            continue;
        };
        if sign == "-" {
            groups.remove(&number);
        } else if let Some(pid) = Pid::from_raw(number)
            && let Ok(leader) = pidfd_open(pid, PidfdFlags::empty())
        {
            groups.insert(number, leader);
        }
    }
    signal(&groups, Signal::TERM);
    let deadline = Instant::now() + GRACE;
    while !groups.is_empty() && Instant::now() < deadline {
        groups.retain(|_, leader| !has_ended(leader));
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(&groups, Signal::KILL);
}

fn signal(groups: &HashMap<i32, OwnedFd>, signal: Signal) {
    for (number, leader) in groups {
        // While there is a leader, its number is its group's and nobody else's.
        if pidfd_send_signal(leader, signal).is_ok()
            && let Some(group) = Pid::from_raw(*number)
        {
            let _ = kill_process_group(group, signal);
        }
    }
}

fn has_ended(leader: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(leader, PollFlags::IN)];
    matches!(
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0
            })
        ),
        Ok(1..)
    )
}
