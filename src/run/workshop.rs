//! What runs share that go on at the same time: so many jobs at once, so many on one server, and the
//! cores.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::archive::Cores;
use crate::config::{Database, RunSettings, Selection};
use crate::job::places::Places;

/// Places and cores.
#[derive(Clone)]
pub struct Workshop {
    pub(super) cores: Cores,
    pub(super) places: Places,
    pub(super) hosts: Arc<Hosts>,
}

impl Workshop {
    /// A workshop for `at_once` jobs.
    pub fn new(settings: &RunSettings, at_once: usize) -> Self {
        Self {
            cores: Cores::all(),
            places: Places::new(at_once),
            hosts: Arc::new(Hosts::new(settings.jobs_per_host)),
        }
    }
}

/// How many jobs a server bears at once.
pub(super) struct Hosts {
    each: usize,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Hosts {
    pub fn new(each: usize) -> Self {
        Self {
            each: each.min(Semaphore::MAX_PERMITS),
            hosts: Mutex::default(),
        }
    }

    /// The gate of the entry's server; `None` where there is no server.
    pub fn of(&self, entry: &Database) -> Option<Arc<Semaphore>> {
        if entry.database == Selection::Whole {
            return None;
        }
        let socket = || entry.socket.as_ref().map(|path| path.display().to_string());
        let host = entry
            .host
            .clone()
            .or_else(socket)
            .unwrap_or_else(|| "localhost".into());
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = hosts
            .entry(host)
            .or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        Some(gate.clone())
    }

    /// How many of a server's jobs the entry's counts as: as many as it has sessions that read, and
    /// all of them where it has more.
    pub fn taken_by(&self, entry: &Database) -> u32 {
        u32::try_from(entry.parallel.min(self.each)).unwrap_or(u32::MAX)
    }
}
