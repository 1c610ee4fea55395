//! Who is told how a run went: `[notify]` of the inventory, and `tapline notify --test`.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::exit::{Exit, Failure};
use super::{Session, console, report};
use crate::config::{Inventory, NotifySettings};
use crate::notify::{Event, LONGEST, Notice, failing, tell};
use crate::run::{RunReport, hostname};

/// Docker kills a container 10 seconds after its SIGTERM, and tidying up may have taken 8 of them.
const WHEN_STOPPED: Duration = Duration::from_millis(1500);

/// `tapline notify --test`: everybody is told that it is a test.
pub(super) async fn test(session: &mut Session) -> Result<Exit, Failure> {
    let inventory = session.inventory()?;
    if !inventory.notify.names_anybody() {
        let path = inventory.path.display();
        let why = "notify: nobody is to be told; add ping, webhook or command under [notify]";
        return Err(Failure::new(Exit::Config, format!("{path}: {why}")).step("inventory"));
    }
    let host = hostname();
    let words = format!("tapline on {host}: this is a test of its notices");
    let notice = Notice::new(Event::Test, host, &words);
    let work = async { Ok(tell(&inventory.notify, &notice).await) };
    let errors = Box::pin(session.signals.unless(work)).await?;
    for error in &errors {
        console::error(&Failure::new(Exit::Check, error).step("notify"));
    }
    if errors.is_empty() {
        console::remark("told\n");
        return Ok(Exit::Good);
    }
    Ok(Exit::Check)
}

/// Tells of one run: that it begins, and how it ended.
pub(super) struct Notifier {
    settings: NotifySettings,
    inventory: PathBuf,
    /// The begin is told while the run is under way.
    begun: JoinHandle<Vec<String>>,
}

impl Notifier {
    /// Tells that a run begins.
    pub fn begin(inventory: &Inventory) -> Self {
        let settings = inventory.notify.clone();
        let host = hostname();
        let words = format!("tapline on {host}: backup begins");
        let notice = Notice::new(Event::Start, host, &words);
        let begun = settings.clone();
        Self {
            settings,
            inventory: inventory.path.clone(),
            begun: tokio::spawn(async move { tell(&begun, &notice).await }),
        }
    }

    /// Tells how the run ended. What cannot be told is said, and changes nothing; a signal ends it.
    pub async fn end(self, session: &mut Session, ended: &Result<(RunReport, Exit), Failure>) {
        let report = ended.as_ref().ok().map(|(report, _)| report);
        let recovered = failing::note(&self.inventory, report).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            Vec::new()
        });
        let (notice, exit) = match ended {
            Ok((report, exit)) => {
                let words = report::text(report);
                (Notice::of_run(report, &words, recovered), *exit)
            }
            Err(failure) => {
                let host = hostname();
                let words = format!("tapline on {host}: backup failed: {}", failure.message);
                (Notice::new(Event::Failure, host, &words), failure.exit)
            }
        };
        let is_stopped = matches!(exit, Exit::HungUp | Exit::Interrupted | Exit::Terminated);
        let patience = if is_stopped {
            WHEN_STOPPED
        } else {
            2 * LONGEST
        };
        let told = async {
            // In order: a service takes what begins after it ended for one that still runs.
            let mut errors = self.begun.await.unwrap_or_default();
            errors.extend(tell(&self.settings, &notice).await);
            errors
        };
        let work = async { Ok(tokio::time::timeout(patience, told).await) };
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
}
