//! What the loop tells the page, and what the page knows of the stores.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::mpsc;

use super::cache::Cache;
use crate::catalog::{BackupId, Found, find};
use crate::meter::{Phase, Step};
use crate::run::{Board, RunReport};
use crate::serve::agenda::{Agenda, Chore};
use crate::serve::house::House;
use crate::upkeep::prune::{self, Verdict};
use crate::upkeep::status::{Status, status};

/// The stores are asked how the databases stand no more often than this, however often the page is
/// loaded.
const FRESH: Duration = Duration::from_secs(15);
/// And for all that they hold: a hundred requests for 100,000 objects.
const FRESH_CATALOG: Duration = Duration::from_mins(5);
/// And what the rules would remove of one database: a request for each of its backups.
const FRESH_VERDICTS: Duration = Duration::from_mins(1);
/// So many runs are remembered.
const REMEMBERED: usize = 10;

/// What is shared with the page.
pub struct Live {
    house: Mutex<Arc<House>>,
    agenda: Mutex<Agenda>,
    told: Mutex<Instant>,
    boards: Mutex<Vec<Weak<Board>>>,
    ended: Mutex<VecDeque<Arc<RunReport>>>,
    status: Arc<Cache<Status>>,
    catalog: Arc<Cache<Catalog>>,
    verdicts: Mutex<BTreeMap<String, Arc<Cache<Verdicts>>>>,
    /// Where wishes go; nowhere when nothing may be changed through the page.
    wishes: Option<mpsc::Sender<Chore>>,
}

/// What the stores hold, by database: of each backup its id and the bytes of its objects.
pub type Catalog = BTreeMap<String, Vec<Stored>>;

/// One backup of a [`Catalog`].
#[derive(Debug, Clone, Serialize)]
pub struct Stored {
    /// Its id.
    pub backup_id: BackupId,
    /// The store that has it.
    pub store: Arc<str>,
    /// What it takes there.
    pub bytes: u64,
}

/// What is to become of each backup of one database, in words.
pub type Verdicts = BTreeMap<BackupId, String>;

/// A job that is under way.
#[derive(Debug, Serialize)]
pub struct LiveJob {
    /// Its database.
    pub database: String,
    /// Where it is.
    pub phase: Phase,
    /// Dump bytes read so far.
    pub dump_bytes: u64,
    /// Archive bytes stored so far.
    pub archive_bytes: u64,
    /// About how many bytes the dump will have.
    pub expected_bytes: Option<u64>,
    /// What bounds it at this moment.
    pub waiting_for: Option<Step>,
}

impl Live {
    pub fn new(house: Arc<House>, agenda: Agenda, wishes: Option<mpsc::Sender<Chore>>) -> Self {
        Self {
            house: Mutex::new(house),
            agenda: Mutex::new(agenda),
            told: Mutex::new(Instant::now()),
            boards: Mutex::default(),
            ended: Mutex::default(),
            status: Arc::default(),
            catalog: Arc::default(),
            verdicts: Mutex::default(),
            wishes,
        }
    }

    /// How the loop stands.
    pub fn tell(&self, house: &Arc<House>, agenda: &Agenda) {
        let before = std::mem::replace(&mut *lock(&self.house), house.clone());
        if !Arc::ptr_eq(&before, house) {
            self.forget();
        }
        *lock(&self.agenda) = agenda.clone();
        *lock(&self.told) = Instant::now();
    }

    /// A run begins.
    pub fn watch(&self, board: &Arc<Board>) {
        let mut boards = lock(&self.boards);
        boards.retain(|board| board.strong_count() > 0);
        boards.push(Arc::downgrade(board));
    }

    /// A run is over, and the stores have changed.
    pub fn remember(&self, report: &RunReport) {
        if !report.jobs.is_empty() {
            let mut ended = lock(&self.ended);
            ended.push_front(Arc::new(report.clone()));
            ended.truncate(REMEMBERED);
        }
        self.forget();
    }

    /// What is known of the stores is old.
    pub fn forget(&self) {
        self.status.age();
        self.catalog.age();
        lock(&self.verdicts).clear();
    }

    /// How long ago the loop has looked at its clock.
    pub fn quiet(&self) -> Duration {
        lock(&self.told).elapsed()
    }

    pub fn house(&self) -> Arc<House> {
        lock(&self.house).clone()
    }

    pub fn agenda(&self) -> Agenda {
        lock(&self.agenda).clone()
    }

    pub fn ended(&self) -> Vec<Arc<RunReport>> {
        lock(&self.ended).iter().cloned().collect()
    }

    /// Whether something can be wished for.
    pub fn can_act(&self) -> bool {
        self.wishes.is_some()
    }

    /// Asks the loop for a chore; whether it will look at it.
    pub fn wish(&self, chore: Chore) -> bool {
        let sent = self.wishes.as_ref().map(|wishes| wishes.try_send(chore));
        matches!(sent, Some(Ok(())))
    }

    /// The jobs that are under way.
    pub fn jobs(&self) -> Vec<LiveJob> {
        let boards: Vec<Arc<Board>> = lock(&self.boards)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        let jobs = boards.iter().flat_map(|board| board.jobs());
        let running = jobs.filter(|job| job.meter.phase() != Phase::Done);
        let each = running.map(|job| LiveJob {
            phase: job.meter.phase(),
            dump_bytes: job.meter.dump_bytes(),
            archive_bytes: job.meter.archive_bytes(),
            expected_bytes: job.meter.expected(),
            waiting_for: job.meter.waiting_for(),
            database: job.database,
        });
        each.collect()
    }

    /// How the databases stand: asked once for all who want to know at the time.
    pub async fn status(&self) -> Result<Arc<Status>, String> {
        let house = self.house();
        let ask = async move {
            let now = Timestamp::now();
            let found = status(&house.inventory, &house.stores, &[], None, now).await;
            found.map_err(|error| error.to_string())
        };
        self.status.get(FRESH, ask).await
    }

    /// What the stores hold.
    pub async fn catalog(&self) -> Result<Arc<Catalog>, String> {
        let house = self.house();
        let ask = async move {
            let mut catalog = Catalog::new();
            for (name, store) in &house.stores {
                let (called, found) = (Arc::<str>::from(name.as_str()), find(&**store, None).await);
                let found = found.map_err(|error| format!("store {name}: {error}"))?;
                for one in found.into_iter().filter(Found::is_committed) {
                    let stored = Stored {
                        bytes: one.size(),
                        backup_id: one.id,
                        store: called.clone(),
                    };
                    catalog.entry(one.database).or_default().push(stored);
                }
            }
            for backups in catalog.values_mut() {
                backups.sort_by(|a, b| a.backup_id.as_str().cmp(b.backup_id.as_str()));
            }
            Ok(catalog)
        };
        self.catalog.get(FRESH_CATALOG, ask).await
    }

    /// What the rules make of the backups of a database of the inventory.
    pub async fn verdicts(&self, database: &str) -> Result<Arc<Verdicts>, String> {
        let (house, name) = (self.house(), database.to_owned());
        let cache = lock(&self.verdicts)
            .entry(name.clone())
            .or_default()
            .clone();
        let ask = async move {
            let plan = prune::plan(&house.inventory, &house.stores, &[name], None, None).await;
            let plan = plan.map_err(|error| error.to_string())?;
            let each = plan.considered().map(|considered| {
                let words = match &considered.verdict {
                    Verdict::Keep(rules) => {
                        let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
                        format!("stays: {}", rules.join(", "))
                    }
                    Verdict::Remove => "goes with the next prune".to_owned(),
                    Verdict::Broken(why) => format!("broken: {why}"),
                    Verdict::SeveralSources(why) => format!("stays: {why}"),
                };
                (considered.found.id.clone(), words)
            });
            Ok(each.collect::<Verdicts>())
        };
        cache.get(FRESH_VERDICTS, ask).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
