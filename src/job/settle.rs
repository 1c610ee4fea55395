//! The two ends of a job in its stores: there is a backup, or nothing is left of it. Each store
//! comes to its own, whatever becomes of the others.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::commit::{CommitError, Committed, Sealed};
use super::erase::{Traces, abort_strays, erase};
use super::{Failure, Interruption, Job, JobError, WholeDump};
use crate::archive::Compression;
use crate::catalog::{BackupId, backup_prefix};
use crate::deposit::{Landed, Ledger, Lost, Route};
use crate::meter::Meter;
use crate::store::SharedStore;
use crate::store::retry::Hurry;

/// How long a failed job tries to take away what it has put into a store.
const ERASE_TIMEOUT: Duration = Duration::from_mins(1);
/// A store that others have no patience with is asked for so long all the same: one request that is
/// not answered does not keep what is left.
const ERASE_AT_LEAST: Duration = Duration::from_secs(10);
/// How long one does whose run is interrupted: container engines kill after 10 seconds.
const ERASE_WHEN_INTERRUPTED: Duration = Duration::from_secs(7);

/// Where a backup goes, and all that its end there needs to know.
#[derive(Clone)]
pub struct Destination {
    /// Where it goes.
    pub store: SharedStore,
    /// What the inventory calls that, for messages.
    pub store_name: String,
    /// Name of the database.
    pub database: String,
    /// What is counted.
    pub meter: Arc<Meter>,
    /// A volume that was begun longer ago needs a sign of life beside it while it is committed.
    pub sign_of_life_after: Duration,
    /// How long others may wait for it.
    pub patience: Duration,
    /// Says so to the store when others wait for it.
    pub hurry: Hurry,
}

/// What became of a backup in one of its stores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreEnd {
    /// What the inventory calls the store.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Why the backup is not there; absent when it is.
    pub failure: Option<Failure>,
}

/// An archive of a whole dump that is in its stores, and is no backup yet.
pub struct Stowed {
    id: BackupId,
    /// With the numbers of their routes, like those that it is not in.
    sealed: Vec<(usize, Sealed)>,
    lost: Vec<(usize, Destination, Ledger, JobError)>,
}

impl Stowed {
    /// `container` is the archive's kind and how it is compressed as a whole.
    pub fn new(
        job: &Job,
        id: &BackupId,
        routes: &[Route],
        started: Timestamp,
        whole: &WholeDump,
        container: (&str, Compression),
        Landed { volumes, lost }: Landed,
    ) -> Self {
        // One backup: what its manifests say is the same, and that of its volumes mostly, too.
        let times = (started, Timestamp::now());
        let to = job.destinations();
        let sealed = volumes.into_iter().map(|(at, volumes)| {
            let place = (to[at].clone(), routes[at].ledger.clone());
            let sealed = Sealed::new(job, id.clone(), place, times, whole, container, volumes);
            (at, sealed)
        });
        let lost = lost.into_iter().map(|Lost { route: at, error }| {
            let ledger = routes[at].ledger.clone();
            (at, to[at].clone(), ledger, JobError::Upload(error))
        });
        Self {
            id: id.clone(),
            sealed: sealed.collect(),
            lost: lost.collect(),
        }
    }

    /// To the end in every store. When one has the backup, each other has its patience left.
    ///
    /// # Errors
    /// No store has it.
    pub async fn settle(self, interruption: &Interruption) -> Result<Committed, Failure> {
        let all: Vec<Destination> = self.sealed.iter().map(|(_, one)| one.to.clone()).collect();
        let good = self.sealed.into_iter().map(|(at, sealed)| {
            let (to, all) = (sealed.to.clone(), &all);
            async move {
                let settled = settle(sealed, interruption).await;
                if settled.is_ok() {
                    for one in all {
                        one.hurry.within(one.patience);
                    }
                }
                (at, to, settled)
            }
        });
        let bad = self.lost.into_iter().map(|(at, to, ledger, error)| {
            let id = self.id.clone();
            async move {
                let failure = give_up(&to, &id, &ledger, error, interruption).await;
                (at, to, Err(failure))
            }
        });
        let (mut ends, bad) = tokio::join!(join_all(good), join_all(bad));
        ends.extend(bad);
        ends.sort_by_key(|(at, ..)| *at);
        one_end(ends)
    }
}

type Settled = (usize, Destination, Result<Committed, Failure>);

/// What the ends in all stores come to.
fn one_end(ends: Vec<Settled>) -> Result<Committed, Failure> {
    let several = ends.len() > 1;
    let (mut stores, mut committed, mut failures) = (Vec::new(), None, Vec::new());
    for (_, to, settled) in ends {
        let failure = match settled {
            Ok(one) => {
                committed.get_or_insert(one);
                None
            }
            Err(failure) => Some(failure),
        };
        stores.push(StoreEnd {
            name: to.store_name.clone(),
            address: to.store.address(),
            failure: failure.clone(),
        });
        failures.extend(failure.map(|failure| (to.store_name, failure)));
    }
    if let Some(committed) = committed {
        return Ok(Committed {
            stores,
            ..committed
        });
    }
    let message = |(store, failure): &(String, Failure)| format!("{store}: {}", failure.message);
    let words: Vec<String> = failures.iter().map(message).collect();
    let left: Vec<String> = failures
        .iter()
        .filter_map(|(_, one)| one.left.clone())
        .collect();
    let first = failures.into_iter().next().map(|(_, failure)| failure);
    let Some(mut failure) = first else {
        return Err(JobError::Panicked("a backup that goes to no store".into()).describe(None));
    };
    if several {
        failure.message = words.join("; ");
        failure.left = (!left.is_empty()).then(|| left.join("\n"));
    }
    Err(failure)
}

/// From a sealed archive to one of two ends: there is a backup, or nothing is left of it. Runs as a
/// task of its own that goes on when the caller is gone.
///
/// # Errors
/// There is no backup.
pub async fn settle(sealed: Sealed, interruption: &Interruption) -> Result<Committed, Failure> {
    if sealed.strict && !sealed.warnings.is_empty() {
        let (to, id) = (&sealed.to, &sealed.manifest.backup_id);
        let error = JobError::Warned(sealed.warnings.clone());
        return Err(give_up(to, id, &sealed.ledger, error, interruption).await);
    }
    let tidy_up = interruption.clone();
    let committing = interruption.commits.spawn(async move {
        let (to, ledger) = (sealed.to.clone(), sealed.ledger.clone());
        let (id, address) = (sealed.manifest.backup_id.clone(), to.store.address());
        match sealed.commit().await {
            Ok(committed) => {
                if ledger.uploads().iter().any(|upload| upload.has_twin) {
                    abort_strays(&to.store, &to.database, &id).await;
                }
                Ok(committed)
            }
            Err(CommitError {
                error,
                may_still_come: true,
            }) => {
                let prefix = backup_prefix(&to.database, &id);
                let store = &to.store_name;
                Err(error.describe(Some(format!(
                    "the manifest's put was never answered, so what is under {address}/{prefix} \
                     was left: should it arrive, `tapline verify {}@{id}` tells that the backup is \
                     whole; should it not, `tapline cleanup --store {store} --older-than 1h \
                     --confirm` removes the rest",
                    to.database
                ))))
            }
            Err(CommitError { error, .. }) => {
                Err(give_up(&to, &id, &ledger, error, &tidy_up).await)
            }
        }
    });
    match committing.await {
        Ok(settled) => settled,
        Err(error) => {
            let left = "the commit broke down: whether there is a backup `tapline list` tells";
            Err(JobError::Panicked(error.to_string()).describe(Some(left.into())))
        }
    }
}

/// There is no backup in this store: takes away what there is of it.
pub async fn give_up(
    to: &Destination,
    id: &BackupId,
    ledger: &Ledger,
    error: JobError,
    interruption: &Interruption,
) -> Failure {
    let left = take_away(to, id, ledger, &error, interruption).await;
    error.describe(left)
}

/// The same in all of them.
pub async fn give_up_all(
    all: Vec<(Destination, Ledger)>,
    id: &BackupId,
    error: JobError,
    interruption: &Interruption,
) -> Failure {
    let each = all
        .iter()
        .map(|(to, ledger)| take_away(to, id, ledger, &error, interruption));
    let left: Vec<String> = join_all(each).await.into_iter().flatten().collect();
    error.describe((!left.is_empty()).then(|| left.join("\n")))
}

async fn take_away(
    to: &Destination,
    id: &BackupId,
    ledger: &Ledger,
    error: &JobError,
    interruption: &Interruption,
) -> Option<String> {
    let Destination {
        store,
        store_name,
        database,
        patience,
        hurry,
        ..
    } = to;
    // Taking away has a time of its own.
    hurry.end();
    let within = match error {
        JobError::Cancelled => ERASE_WHEN_INTERRUPTED,
        _ => ERASE_TIMEOUT.min(ERASE_AT_LEAST.max(*patience)),
    };
    let interrupted = async {
        interruption.cancel.cancelled().await;
        tokio::time::sleep(ERASE_WHEN_INTERRUPTED).await;
    };
    let left = tokio::select! {
        left = erase(Traces { store, store_name, database, id, ledger }, within) => left,
        () = interrupted => Some(format!(
            "interrupted while it was taken away: something may be left under {}/{}; \
             `tapline cleanup --store {store_name} --older-than 1h --confirm` removes it",
            store.address(),
            backup_prefix(database, id),
        )),
    };
    if let Some(left) = &left {
        tracing::error!(database, %id, store = store.address(), %error, "{left}");
    }
    left
}
