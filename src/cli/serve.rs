//! `tapline serve`: the service in the foreground. SIGHUP reads the inventory again.

use std::net::SocketAddr;
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::exit::{Exit, Failure};
use super::{Session, report};
use crate::job::Interruption;
use crate::serve::{Page, ServeOptions, Wish, serve as run};

pub(super) async fn serve(
    session: &mut Session,
    listen: Option<SocketAddr>,
    token_file: Option<&Path>,
    allow_actions: bool,
) -> Result<Exit, Failure> {
    let page = match listen {
        Some(address) => {
            let page = Page::bind(address, token_file, allow_actions).await;
            let wrong = |why| Failure::new(Exit::Usage, format!("--listen {address}: {why}"));
            Some(page.map_err(|why| wrong(why).step("listen"))?)
        }
        None => None,
    };
    session.signals.leave_hangup();
    let mut hangups = signal(SignalKind::hangup())?;
    let (wish, wishes) = mpsc::channel(1);
    let _hangups = AbortOnDropHandle::new(tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            // One that is waiting is enough.
            let _ = wish.try_send(Wish::Reload);
        }
    }));
    let options = ServeOptions {
        config: session.config.clone(),
        words: report::text,
        page,
    };
    let interruption = Interruption::default();
    let (cancel, commits) = (interruption.cancel.clone(), interruption.commits.clone());
    let work = Box::pin(run(options, interruption, wishes));
    let display = session.display.clone();
    let committing = || !commits.is_empty();
    let stopping = "ending what is under way";
    let (served, _) = session
        .signals
        .tidy(&display, stopping, &cancel, committing, work)
        .await?;
    // Being ended is how a service ends well.
    Ok(served.map(|()| Exit::Good)?)
}
