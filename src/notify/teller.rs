//! Tells of one run: that it begins, and how it ended.

use std::path::PathBuf;

use tokio::task::JoinHandle;

use super::{Event, Notice, failing, tell};
use crate::config::{Inventory, NotifySettings};
use crate::run::{RunReport, hostname};

/// Tells of one run.
pub struct Teller {
    settings: NotifySettings,
    inventory: PathBuf,
    /// The begin is told while the run is under way.
    begun: JoinHandle<Vec<String>>,
}

/// How a run ended.
pub enum RunEnd<'a> {
    /// With a report, and the same in words.
    Report(&'a RunReport, String),
    /// It did not come as far as its jobs, and why.
    Nothing(&'a str),
}

impl Teller {
    /// Tells that a run begins, when anybody is to be told.
    pub fn begin(inventory: &Inventory) -> Option<Self> {
        if !inventory.notify.names_anybody() {
            return None;
        }
        let settings = inventory.notify.clone();
        let host = hostname();
        let words = format!("tapline on {host}: backup begins");
        let notice = Notice::new(Event::Start, host, &words);
        let begun = settings.clone();
        Some(Self {
            settings,
            inventory: inventory.path.clone(),
            begun: tokio::spawn(async move { tell(&begun, &notice).await }),
        })
    }

    /// Tells how the run ended; returns what could not be told.
    pub async fn end(self, end: &RunEnd<'_>) -> Vec<String> {
        let report = match end {
            RunEnd::Report(report, _) => Some(*report),
            RunEnd::Nothing(_) => None,
        };
        let recovered = failing::note(&self.inventory, report).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            Vec::new()
        });
        let notice = match end {
            RunEnd::Report(report, words) => Notice::of_run(report, words, recovered),
            RunEnd::Nothing(why) => {
                let host = hostname();
                let words = format!("tapline on {host}: backup failed\n\n{why}");
                Notice::new(Event::Failure, host, &words)
            }
        };
        // In order: a service takes what begins after it ended for one that still runs.
        let mut errors = self.begun.await.unwrap_or_default();
        errors.extend(tell(&self.settings, &notice).await);
        errors
    }
}
