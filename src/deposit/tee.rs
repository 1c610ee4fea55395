//! One archive into several stores at once. The dump, its encoding and its parts are there once;
//! each store has its own window, and its own end.
//!
//! A store that fails is **dropped**, and the others go on; the archive fails with the last one. A
//! store that is slow, or does not answer, holds the others up: their windows are empty, and they
//! wait for the part that it has no slot for. What it costs them is added up, and when that is more
//! than its route's `patience`, the store is dropped. Time in which every store has something to do is nobody's:
//! an outage of all of them is waited for as one of a single store is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, select_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cut::{Cutter, End, SharedPart};
use super::{Deposit, Route, SealedVolume, Window};
use crate::archive::Piece;
use crate::meter::{Meter, Step};
use crate::store::{ChecksumKind, ErrorKind, Result, SharedStore, StoreError};

/// How often it is looked who holds whom up.
const LOOK: Duration = Duration::from_millis(100);

/// Cuts an archive into parts and uploads them to its stores.
pub struct Tee {
    cutter: Cutter,
    arms: Arms,
}

/// The stores.
struct Arms {
    left: Vec<Arm>,
    lost: Vec<Lost>,
    meter: Arc<Meter>,
}

/// A store that the archive is on its way to.
struct Arm {
    /// Its number among the routes.
    route: usize,
    deposit: Deposit,
    /// How long the others have waited for it.
    cost: Cost,
}

/// A store that the archive does not go to any more.
#[derive(Debug, Clone)]
pub struct Lost {
    /// Its number among the routes.
    pub route: usize,
    /// Why.
    pub error: StoreError,
}

/// The archive is in these stores, and lacks nothing but its completion.
pub struct Landed {
    /// With the numbers of their routes.
    pub volumes: Vec<(usize, Vec<SealedVolume>)>,
    /// The others.
    pub lost: Vec<Lost>,
}

/// What a store costs the others.
struct Cost {
    slots: Arc<Semaphore>,
    window: usize,
    limit: Duration,
    time: Duration,
}

impl Cost {
    /// Whether nothing is on its way to the store.
    fn is_idle(&self) -> bool {
        self.slots.available_permits() >= self.window
    }
}

/// The checksums that these stores keep, in one: CRC-64 is computed in any case.
pub fn kept_by<'a>(stores: impl Iterator<Item = &'a SharedStore>) -> Option<ChecksumKind> {
    let kinds: Vec<ChecksumKind> = stores.filter_map(|store| store.checksum_kind()).collect();
    let crc32 = kinds.iter().find(|kind| **kind == ChecksumKind::Crc32);
    crc32.or(kinds.first()).copied()
}

impl Tee {
    /// For an archive at the key and of the backup `names`, with a head of so many bytes; one
    /// without is sent from its first part on. Nothing is asked of the stores yet.
    ///
    /// # Errors
    /// When a part has no room for the head.
    pub fn new(
        routes: &[Route],
        meter: &Arc<Meter>,
        window: Window,
        names: &(String, String),
        head: Option<usize>,
    ) -> Result<Self> {
        let kept = kept_by(routes.iter().map(|route| &route.store));
        let arms = routes.iter().cloned().enumerate().map(|(number, route)| {
            let (meter, holds) = (meter.clone(), head.is_some());
            let deposit = Deposit::new(route, meter, window, holds, names.clone());
            let cost = Cost {
                slots: deposit.slots.clone(),
                window: window.in_flight,
                limit: deposit.route.patience,
                time: Duration::ZERO,
            };
            Arm {
                route: number,
                deposit,
                cost,
            }
        });
        Ok(Self {
            cutter: Cutter::new(&window, head, kept)?,
            arms: Arms {
                left: arms.collect(),
                lost: Vec::new(),
                meter: meter.clone(),
            },
        })
    }

    /// Begins the uploads. Returns when a store has accepted: the others may take their time.
    ///
    /// # Errors
    /// When none does.
    pub async fn begin(&mut self) -> Result<()> {
        let meter = self.arms.meter.clone();
        loop {
            let asked = self.arms.left.iter_mut();
            let asked = asked.map(|arm| Box::pin(arm.deposit.accepted()));
            let (answer, at, _) = meter.wait_for(Step::Upload, select_all(asked)).await;
            match answer {
                Ok(()) => return Ok(()),
                Err(error) => self.arms.lose(at, error)?,
            }
        }
    }

    /// Takes the next bytes of the archive; waits while a window is full.
    ///
    /// # Errors
    /// When no store is left.
    pub async fn push(&mut self, mut piece: Piece) -> Result<()> {
        while !piece.is_empty() {
            if let Some(part) = self.cutter.take(&mut piece) {
                self.arms.send(part).await?;
            }
        }
        Ok(())
    }

    /// Returns when no store is left, and never otherwise: to be awaited while the archive's next
    /// bytes are, which a slow dump may not have for hours.
    pub async fn failure(&mut self) -> StoreError {
        loop {
            let failures = self.arms.left.iter_mut();
            let failures = failures.map(|arm| Box::pin(arm.deposit.failure()));
            let (error, at, _) = select_all(failures).await;
            if let Err(error) = self.arms.lose(at, error) {
                return error;
            }
        }
    }

    /// Uploads what is left, and last of all part 1 with the `head`, which only a whole dump has.
    ///
    /// # Errors
    /// When no store is left, or the receipts do not add up to what was pushed.
    pub async fn seal(self, head: Bytes) -> Result<Landed> {
        let Self { cutter, mut arms } = self;
        let End { last, first } = cutter.end(head)?;
        if let Some(part) = last {
            arms.send(part).await?;
        }
        let volumes = arms.each(|deposit| deposit.seal(first.clone()).boxed());
        let volumes = volumes.await?;
        let lost = arms.lost;
        Ok(Landed { volumes, lost })
    }
}

impl Arms {
    async fn send(&mut self, part: SharedPart) -> Result<()> {
        let sent = self.each(|deposit| deposit.send(part.clone()).boxed());
        sent.await.map(drop)
    }

    /// A store is dropped.
    ///
    /// # Errors
    /// Its error, or that of the store that is named first, when it was the last one.
    fn lose(&mut self, at: usize, error: StoreError) -> Result<()> {
        let Arm { route, deposit, .. } = self.left.remove(at);
        let Route {
            store, store_name, ..
        } = &deposit.route;
        if !self.left.is_empty() {
            let address = store.address();
            tracing::error!(
                store = store_name,
                address,
                "the backup does not go to this store any more, and goes on without it: {error}"
            );
        }
        self.lost.push(Lost { route, error });
        if !self.left.is_empty() {
            return Ok(());
        }
        let first = self.lost.iter().min_by_key(|lost| lost.route);
        Err(first.map_or_else(nobody, |lost| lost.error.clone()))
    }

    /// Does `work` with every deposit at once, and waits for all of them; those that fail, or that
    /// cost the others too much, are dropped.
    ///
    /// # Errors
    /// When none is left.
    async fn each<T: Send>(
        &mut self,
        work: impl for<'d> Fn(&'d mut Deposit) -> BoxFuture<'d, Result<T>>,
    ) -> Result<Vec<(usize, T)>> {
        let meter = self.meter.clone();
        let (mut bills, mut running) = (Vec::new(), FuturesUnordered::new());
        for (at, Arm { deposit, cost, .. }) in self.left.iter_mut().enumerate() {
            let dropped = CancellationToken::new();
            let (work, until) = (work(deposit), dropped.clone());
            running.push(async move { (at, until.run_until_cancelled(work).await) });
            bills.push(Bill {
                cost,
                dropped,
                is_done: false,
                was_idle: false,
            });
        }
        let mut results: Vec<Option<Result<T>>> = Vec::new();
        results.resize_with(bills.len(), || None);
        let mut since = Instant::now();
        let all = async {
            loop {
                let look = tokio::time::sleep_until(since + LOOK);
                let next = tokio::select! {
                    biased;
                    next = running.next() => Some(next),
                    () = look, if bills.len() > 1 => None,
                };
                charge(&mut bills, &mut since);
                match next {
                    None => {}
                    Some(None) => return,
                    Some(Some((at, result))) => {
                        bills[at].is_done = matches!(result, Some(Ok(_)));
                        let limit = bills[at].cost.limit;
                        results[at] = Some(result.unwrap_or_else(|| Err(too_slow(limit))));
                    }
                }
            }
        };
        meter.wait_for(Step::Upload, all).await;
        drop(running);
        let mut good = Vec::new();
        let mut at = 0;
        for result in results {
            match result.unwrap_or_else(|| Err(nobody())) {
                Ok(result) => {
                    good.push((self.left[at].route, result));
                    at += 1;
                }
                Err(error) => self.lose(at, error)?,
            }
        }
        Ok(good)
    }
}

/// Who pays while all deposits are at the same work.
struct Bill<'a> {
    cost: &'a mut Cost,
    dropped: CancellationToken,
    /// It has done the work.
    is_done: bool,
    /// It had nothing to do at the last look.
    was_idle: bool,
}

/// Adds the time since the last look to what those cost that are still at it, if another one had
/// nothing to do meanwhile.
fn charge(bills: &mut [Bill<'_>], since: &mut Instant) {
    let time = since.elapsed();
    *since += time;
    let mut is_held_up = false;
    for bill in &mut *bills {
        let is_idle = bill.is_done && bill.cost.is_idle();
        is_held_up |= is_idle && bill.was_idle;
        bill.was_idle = is_idle;
    }
    let late = bills.iter_mut().filter(|bill| !bill.is_done && is_held_up);
    for bill in late {
        bill.cost.time += time;
        if bill.cost.time > bill.cost.limit {
            bill.dropped.cancel();
        }
    }
}

fn too_slow(patience: Duration) -> StoreError {
    let why = format!(
        "it is too slow, or does not answer: the backup has waited for it for more than \
         {patience:?} (run.wait_for_store, and no longer than 10s once the run has dropped it) \
         while another store had nothing to do"
    );
    StoreError::new(ErrorKind::Transient, why)
}

fn nobody() -> StoreError {
    StoreError::new(ErrorKind::Invalid, "the archive goes to no store")
}
