//! Who is told how a run went: `[notify]` of the inventory, and `tapline notify --test`.

use std::time::Duration;

use super::exit::{Exit, Failure};
use super::{Session, console, report};
use crate::notify::{Event, LONGEST, Notice, RunEnd, Teller, Told, tell_each};
use crate::run::{RunReport, hostname};

/// Docker kills a container 10 seconds after its SIGTERM, and tidying up may have taken 8 of them.
const WHEN_STOPPED: Duration = Duration::from_millis(1500);

/// `tapline notify --test`: everybody is told that it is a test.
pub(super) async fn test(session: &mut Session) -> Result<Exit, Failure> {
    let inventory = session.inventory()?;
    if !inventory.notify.names_anybody() {
        let path = inventory.path.display();
        let why =
            "notify: nobody is to be told; add ping, webhook, email or command under [notify]";
        return Err(Failure::new(Exit::Config, format!("{path}: {why}")).step("inventory"));
    }
    let host = hostname();
    let words =
        format!("tapline on {host}: this is a test of its notices\n\nNothing has happened.");
    let notice = Notice::new(Event::Test, host, &words);
    let work = async { Ok(tell_each(&inventory.notify, &notice).await) };
    let all = Box::pin(session.signals.unless(work)).await?;
    let mut exit = Exit::Good;
    for Told { whom, result } in all {
        match result {
            Ok(said) => console::remark(&format!("ok    {whom}: {said}\n")),
            Err(why) => {
                exit = Exit::Check;
                let failure = Failure::new(exit, format!("{whom}: {why}"));
                console::error(&failure.step("notify"));
            }
        }
    }
    Ok(exit)
}

/// Tells how a run ended. What cannot be told is said, and changes nothing; a signal ends it.
pub(super) async fn end(
    teller: Teller,
    session: &mut Session,
    ended: &Result<(RunReport, Exit), Failure>,
) {
    let (end, exit) = match ended {
        Ok((report, exit)) => (RunEnd::Report(report, report::text(report)), *exit),
        Err(failure) => (RunEnd::Nothing(&failure.message), failure.exit),
    };
    let is_stopped = matches!(exit, Exit::HungUp | Exit::Interrupted | Exit::Terminated);
    let patience = if is_stopped {
        WHEN_STOPPED
    } else {
        2 * LONGEST
    };
    let work = async { Ok(tokio::time::timeout(patience, teller.end(&end)).await) };
    // Three requests are much for a future, and a run is over when they begin.
    let late = "notify: stopped before all were told how the run ended".to_owned();
    let errors = match Box::pin(session.signals.unless(work)).await {
        Ok(Ok(errors)) => errors,
        Ok(Err(_)) | Err(_) => vec![late],
    };
    for error in errors {
        tracing::warn!("{error}");
    }
}
