//! SIGHUP, SIGINT and SIGTERM: the first asks for an orderly end, which has a bound; the second
//! does not wait for it.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::console;
use super::exit::{Exit, Failure};
use super::progress::Display;

/// How long tidying may take. Docker and Kubernetes kill a container 10 and 30 seconds after its
/// SIGTERM; what is said in this time is still read.
const TIDYING: Duration = Duration::from_secs(8);
/// How often a bound that is over is looked at again while a backup is being committed.
const LOOK: Duration = Duration::from_millis(100);

/// The signals that end this program. While it exists, none of them ends the process by itself.
pub(super) struct Signals {
    signals: Vec<(Signal, Exit)>,
    /// A file that may grow no more (`ulimit -f`) is an error of the write, and no end.
    _file_size: Signal,
}

impl Signals {
    /// Catches the signals from now on. One that was ignored from the start stays so: `nohup`, and
    /// a shell that puts a job into the background, mean it.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn catch() -> std::io::Result<Self> {
        let ignored = ignored();
        let mut signals = Vec::new();
        for (kind, exit) in [
            (SignalKind::hangup(), Exit::HungUp),
            (SignalKind::interrupt(), Exit::Interrupted),
            (SignalKind::terminate(), Exit::Terminated),
        ] {
            if ignored & (1 << (kind.as_raw_value() - 1)) == 0 {
                signals.push((signal(kind)?, exit));
            }
        }
        let file_size = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        Ok(Self {
            signals,
            _file_size: signal(file_size)?,
        })
    }

    /// Leaves SIGHUP to whoever has another use for it.
    pub fn leave_hangup(&mut self) {
        self.signals.retain(|(_, exit)| *exit != Exit::HungUp);
    }

    /// Does `work`, which leaves nothing behind: the first signal drops it.
    ///
    /// # Errors
    /// Those of `work`, and the signal.
    pub async fn unless<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            exit = self.next() => Err(Failure::new(exit, "stopped")),
            done = work => done,
        }
    }

    /// Does `work` to its end. The first signal fires `cancel` and says `stopping`; `work` is then
    /// to end within [`TIDYING`], unless it is `committing`: what is beyond recall is waited for.
    /// Returns what it gave, and the exit code that the signal asks for, if there was one.
    ///
    /// # Errors
    /// At the second signal, and when tidying takes too long.
    pub async fn tidy<T>(
        &mut self,
        display: &Display,
        stopping: &str,
        cancel: &CancellationToken,
        committing: impl Fn() -> bool,
        work: impl Future<Output = T>,
    ) -> Result<(T, Option<Exit>), Failure> {
        let mut work = std::pin::pin!(work);
        let exit = tokio::select! {
            done = &mut work => return Ok((done, None)),
            exit = self.next() => exit,
        };
        display.suspend(|| {
            console::notice(format_args!("stopping: {stopping} (again to quit at once)"));
        });
        cancel.cancel();
        let bound = async {
            tokio::time::sleep(TIDYING).await;
            while committing() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let left = "`tapline cleanup` shows what is left of it";
        tokio::select! {
            biased;
            done = &mut work => Ok((done, Some(exit))),
            second = async {
                let second = self.next().await;
                if committing() {
                    display.suspend(|| {
                        console::notice(format_args!(
                            "a backup is being committed, which has to end by itself"
                        ));
                    });
                }
                while committing() {
                    tokio::time::sleep(LOOK).await;
                }
                second
            } => Err(Failure::new(
                second,
                format!("stopped at once, before all could be tidied up; {left}"),
            )),
            () = bound => Err(Failure::new(
                exit,
                format!("tidying up took more than {} s and was given up; {left}", TIDYING.as_secs()),
            )),
        }
    }

    /// The next signal; waits for ever when all of them are ignored.
    async fn next(&mut self) -> Exit {
        poll_fn(|context| {
            let mut signals = self.signals.iter_mut();
            let came = signals
                .find_map(|(signal, exit)| signal.poll_recv(context).is_ready().then_some(*exit));
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// The signals that this process was started to ignore, as a mask: `SigIgn` of proc(5).
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}
