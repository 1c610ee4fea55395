//! What the service manager is told, where there is one: `Type=notify` and `WatchdogSec=`.

use std::time::Duration;

use sd_notify::{NotifyState, notify, watchdog_enabled};

/// systemd, or nobody.
#[derive(Debug)]
pub(super) struct Manager {
    /// How long it waits for a sign of life.
    watchdog: Option<Duration>,
    said: String,
}

impl Manager {
    pub fn from_environment() -> Self {
        Self {
            watchdog: watchdog_enabled(),
            said: String::new(),
        }
    }

    /// The loop gives a sign of life at least so often: twice in the time that is waited for one.
    pub fn longest_nap(&self) -> Duration {
        self.watchdog.map_or(Duration::MAX, |limit| limit / 2)
    }

    pub fn ready() {
        tell(&[NotifyState::Ready]);
    }

    pub fn reloading() {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
    }

    pub fn stopping() {
        tell(&[NotifyState::Stopping]);
    }

    /// The loop goes on, and this is how it stands.
    pub fn alive(&mut self, status: &str) {
        if self.watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
        if self.said != status {
            tell(&[NotifyState::Status(status)]);
            status.clone_into(&mut self.said);
        }
    }
}

/// Where nobody listens, nothing is said.
fn tell(state: &[NotifyState]) {
    if let Err(error) = notify(state) {
        tracing::debug!("the service manager was not told: {error}");
    }
}
