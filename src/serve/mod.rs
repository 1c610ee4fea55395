//! tapline as a service with a clock of its own: what is due is done, by the same use cases that the
//! command line calls.
//!
//! | file | role |
//! |---|---|
//! | this | the loop: what ended, what is due, signals |
//! | [`agenda`] | what is due, and when: plain data |
//! | [`house`] | the inventory with its stores open, exchanged as a whole |
//! | [`marks`] | what the store knows of what was done last |
//! | [`work`] | a chore, from its begin to its outcome |
//! | [`page`] | what is served over HTTP |
//! | [`systemd`] | what the service manager is told |
//!
//! Nothing is kept here that matters: when a database was backed up last is in the store, and so is
//! who is at it now. A service that was killed goes on after its next start, and two of them on one
//! inventory divide the work.

pub mod agenda;
mod house;
mod marks;
mod page;
mod systemd;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::ConfigError;
use crate::job::Interruption;
use crate::run::RunReport;
use agenda::{Agenda, Chore, Due, Outcome, nap};
use house::House;
use page::Live;
pub use page::Page;
use systemd::Manager;

/// When the store did not tell what was done last, it is asked again after so long: after
/// `retry_for`, but within these.
const ASK_AGAIN: [Duration; 2] = [Duration::from_secs(2), Duration::from_mins(1)];

/// What the loop is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Read the inventory again.
    Reload,
}

/// How it is served.
pub struct ServeOptions {
    /// The inventory's file.
    pub config: PathBuf,
    /// A run's report, for people.
    pub words: fn(&RunReport) -> String,
    /// What is served over HTTP.
    pub page: Option<Page>,
}

/// What has ended in the background.
enum Ended {
    /// The store has told, or not, what was done last of these databases; of all when there are none.
    Marks(Vec<String>, Result<Vec<(Chore, Timestamp)>, String>),
    /// Chores are over.
    Chores(Vec<(Chore, Outcome)>),
    /// The inventory was read again.
    House(Result<Box<House>, ConfigError>),
}

struct Server {
    options: ServeOptions,
    house: Arc<House>,
    agenda: Agenda,
    /// What is under way.
    running: JoinSet<Ended>,
    /// What looks after backups does so one after the other.
    upkeep: Arc<Semaphore>,
    interruption: Interruption,
    /// Databases of which the store is to be asked, and not before when; of all when there are none.
    unknown: Option<(Vec<String>, Timestamp)>,
    manager: Manager,
    /// What somebody asked for by hand, and is under way.
    asked: BTreeSet<Chore>,
    live: Arc<Live>,
}

/// Does what is due, until `interruption` fires; what is under way then is ended as a run is.
///
/// # Errors
/// When the inventory makes no sense at the beginning; later ones are told, and the one before
/// stays.
pub async fn serve(
    mut options: ServeOptions,
    interruption: Interruption,
    mut wishes: tokio::sync::mpsc::Receiver<Wish>,
) -> Result<(), ConfigError> {
    let now = Timestamp::now();
    let house = House::open(&options.config).await?;
    let agenda = house.agenda()?;
    let house = Arc::new(house);
    let page = options.page.take();
    let (wish, mut by_hand) = tokio::sync::mpsc::channel(8);
    let can_act = page.as_ref().is_some_and(Page::can_act);
    let wish = can_act.then_some(wish);
    let live = Arc::new(Live::new(house.clone(), agenda.clone(), wish));
    let _page = page.map(|page| page.serve(live.clone()));
    let mut server = Server {
        options,
        house,
        agenda,
        running: JoinSet::new(),
        upkeep: Arc::new(Semaphore::new(1)),
        interruption,
        unknown: Some((Vec::new(), now)),
        manager: Manager::from_environment(),
        asked: BTreeSet::new(),
        live: live.clone(),
    };
    Manager::ready();
    tracing::info!("serving {}", server.options.config.display());
    loop {
        let now = Timestamp::now();
        server.ask(now);
        server.begin(now);
        live.tell(&server.house, &server.agenda);
        server.manager.alive(&server.say(now));
        let nap = nap(server.next(now), now).min(server.manager.longest_nap());
        tokio::select! {
            biased;
            () = server.interruption.cancel.cancelled() => break,
            wish = wishes.recv() => match wish {
                Some(Wish::Reload) => server.reload(),
                None => server.interruption.cancel.cancelled().await,
            },
            Some(chore) = by_hand.recv() => server.begin_at_once(chore, Timestamp::now()),
            Some(ended) = server.running.join_next() => server.end(ended, Timestamp::now()),
            // A chore that is due and cannot begin yet must not make this a busy loop.
            () = tokio::time::sleep(nap.max(Duration::from_millis(200))) => {}
        }
    }
    Manager::stopping();
    tracing::info!("stopping");
    while server.running.join_next().await.is_some() {}
    Ok(())
}

impl Server {
    /// When something is due, or a store is to be asked again.
    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let unknown = self.unknown.as_ref().map(|(_, after)| *after);
        self.agenda.next(now).into_iter().chain(unknown).min()
    }

    fn ask_again(&self, now: Timestamp) -> Timestamp {
        let [soonest, latest] = ASK_AGAIN;
        now + self.house.inventory.run.retry_for.clamp(soonest, latest)
    }

    /// Asks the store what was done last, where that is not known.
    fn ask(&mut self, now: Timestamp) {
        let Some((names, _)) = self.unknown.take_if(|(_, after)| *after <= now) else {
            return;
        };
        let (house, cancel) = (self.house.clone(), self.interruption.cancel.clone());
        self.running.spawn(async move {
            let asked = cancel.run_until_cancelled(marks::ask(&house, &names));
            let marks = asked.await.unwrap_or_else(|| Ok(Vec::new()));
            Ended::Marks(names, marks)
        });
    }

    /// Begins what is due: backups in one run, the rest one after the other.
    fn begin(&mut self, now: Timestamp) {
        let mut backups = BTreeMap::new();
        for Due { chore, since } in self.agenda.due(now) {
            let what = chore.describe();
            tracing::info!("due since {since}: {what}");
            if let Chore::Backup(name) = chore {
                backups.insert(name, since);
                continue;
            }
            self.look_after(chore);
        }
        if !backups.is_empty() {
            self.back_up(backups);
        }
    }

    fn look_after(&mut self, chore: Chore) {
        let (house, cancel) = (self.house.clone(), self.interruption.cancel.clone());
        let turn = self.upkeep.clone();
        self.running.spawn(async move {
            let _turn = turn.acquire_owned().await;
            let outcome = work::look_after(&house, &chore, &cancel).await;
            Ended::Chores(vec![(chore, outcome)])
        });
    }

    fn back_up(&mut self, due: BTreeMap<String, Timestamp>) {
        let (house, interruption) = (self.house.clone(), self.interruption.clone());
        let (words, live) = (self.options.words, self.live.clone());
        self.running.spawn(async move {
            Ended::Chores(work::back_up(&house, due, interruption, words, &live).await)
        });
    }

    /// Begins what somebody asked for, unless it is under way.
    fn begin_at_once(&mut self, chore: Chore, now: Timestamp) {
        if self.asked.contains(&chore) || !self.agenda.take_up(&chore, now) {
            tracing::info!("it is under way: {}", chore.describe());
            return;
        }
        self.asked.insert(chore.clone());
        match chore {
            Chore::Backup(name) => self.back_up(BTreeMap::from([(name, now)])),
            chore => self.look_after(chore),
        }
    }

    fn end(&mut self, ended: Result<Ended, tokio::task::JoinError>, now: Timestamp) {
        match ended {
            Ok(Ended::Marks(names, Ok(marks))) => {
                for (chore, mark) in marks {
                    self.agenda.learn(&chore, mark, now);
                }
                let left = self.agenda.without_mark().next().is_some();
                if left && self.unknown.is_none() {
                    self.unknown = Some((names, self.ask_again(now)));
                }
            }
            Ok(Ended::Marks(names, Err(why))) => {
                tracing::warn!("what was done last is not known, asking again: {why}");
                self.unknown = Some((names, self.ask_again(now)));
            }
            Ok(Ended::Chores(over)) => {
                for (chore, outcome) in over {
                    let what = chore.describe();
                    tracing::debug!("{what}: {outcome:?}");
                    self.agenda.end(&chore, outcome, now);
                    self.asked.remove(&chore);
                    self.live.forget();
                    if let (Outcome::Busy, Chore::Backup(name)) = (outcome, chore) {
                        // Before it is tried again: it may have been done.
                        let names = self
                            .unknown
                            .take()
                            .map_or_else(Vec::new, |(names, _)| names);
                        self.unknown = Some(([names, vec![name]].concat(), now));
                    }
                }
            }
            Ok(Ended::House(house)) => self.move_in(house, now),
            // What can panic in a job is caught there; whatever this was, it is begun anew.
            Err(error) => {
                tracing::error!("the service broke down in the background: {error}");
                self.interruption.cancel.cancel();
            }
        }
    }

    fn reload(&mut self) {
        Manager::reloading();
        let config = self.options.config.clone();
        self.running
            .spawn(async move { Ended::House(House::open(&config).await.map(Box::new)) });
    }

    /// Exchanges the inventory, unless the new one is wrong. What is under way goes on with the one
    /// that it began with.
    fn move_in(&mut self, house: Result<Box<House>, ConfigError>, now: Timestamp) {
        let moved = house.and_then(|house| Ok((house.agenda()?, house)));
        match moved {
            Ok((mut agenda, house)) => {
                agenda.follow(&self.agenda);
                self.agenda = agenda;
                self.house = Arc::from(house);
                self.unknown = Some((Vec::new(), now));
                tracing::info!("the inventory was read again");
            }
            Err(error) => {
                tracing::error!("the inventory is wrong, the one before is kept: {error}");
            }
        }
        Manager::ready();
    }

    /// For the service manager's status line.
    fn say(&self, now: Timestamp) -> String {
        let next = self.agenda.next(now);
        match (self.running.len(), next) {
            (0, None) => "waiting for the store".into(),
            (0, Some(next)) => format!("next at {}", next.strftime("%Y-%m-%d %H:%M:%S UTC")),
            (running, _) => format!("{running} under way"),
        }
    }
}
