//! SIGINT and SIGTERM: the first asks for an orderly end, the second does not wait for it.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use super::progress::Display;

/// Does `work` to its end. The first signal fires `cancel` and says `stopping`; `work` is then to
/// end soon. Returns what it gave, and the exit code that the signal asks for, if there was one.
///
/// # Errors
/// At the second signal.
pub(super) async fn interruptible<T>(
    display: &Display,
    stopping: &str,
    cancel: CancellationToken,
    work: impl Future<Output = T>,
) -> Result<(T, Option<Exit>), Failure> {
    let mut signals = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    ];
    let mut interrupted = None;
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok((done, interrupted)),
            exit = next(&mut signals) => {
                if interrupted.is_some() {
                    return Err(Failure::new(exit, "stopped at once, before all could be tidied up"));
                }
                interrupted = Some(exit);
                display.suspend(|| eprintln!("tapline: stopping: {stopping} (again to quit at once)"));
                cancel.cancel();
            }
        }
    }
}

async fn next([interrupt, terminate]: &mut [Signal; 2]) -> Exit {
    tokio::select! {
        _ = interrupt.recv() => Exit::Interrupted,
        _ = terminate.recv() => Exit::Terminated,
    }
}
