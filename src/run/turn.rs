//! A job's turn at its database.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use super::Run;
use super::lease::{Lease, NoLease};
use crate::catalog::BackupId;
use crate::hooks::{self, HookPoint};
use crate::job::{
    Committed, Failure, FailureKind, Interruption, Job, JobError, JobStore, StoreEnd,
};

/// Of several stores, one that has not given a lease by then is passed over: three requests, and the
/// 13 s that the race with another run may take.
const AT_ONCE: Duration = Duration::from_secs(15);

/// A job's turn at its database: the lease in each of its stores, and an interruption that fires for
/// this job when one is lost.
pub(super) struct Turn {
    pub interruption: Interruption,
    leases: Vec<Lease>,
    watches: Vec<AbortOnDropHandle<()>>,
    /// The stores that it is done without.
    pub left_out: Vec<StoreEnd>,
    /// What the hook after it is told, once the one before was called.
    pub after: Option<Value>,
}

impl Turn {
    pub fn new(run: &Interruption) -> Self {
        let interruption = Interruption {
            cancel: run.cancel.child_token(),
            commits: run.commits.clone(),
        };
        Self {
            interruption,
            leases: Vec::new(),
            watches: Vec::new(),
            left_out: Vec::new(),
            after: None,
        }
    }

    /// Takes the lease in each store, in the order in which all runs take them, so that no two wait
    /// for each other. Of several stores one that does not answer at once is passed over: what
    /// another holds is enough. One that takes no such object is a warning. Returns those that have
    /// answered.
    ///
    /// # Errors
    /// When another run has the database, or no store answers.
    pub async fn take_leases<'j>(
        &mut self,
        job: &'j Job,
        id: &BackupId,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<&'j JobStore>, JobError> {
        let limit = match job.stores.as_slice() {
            [_] => Duration::MAX,
            _ => AT_ONCE,
        };
        let (mut answered, mut passed_over) = (Vec::new(), None);
        for one in &job.stores {
            let lease = Lease::wanted(one.store.clone(), &job.database, id);
            if self.take(lease, limit, &job.database, warnings).await? {
                answered.push(one);
            } else {
                passed_over.get_or_insert(one);
                tracing::warn!(store = one.name, "the store does not answer");
            }
        }
        match passed_over {
            // Nobody answers: as patient as with one store.
            Some(first) if answered.is_empty() => {
                let lease = Lease::wanted(first.store.clone(), &job.database, id);
                let taken = self.take(lease, Duration::MAX, &job.database, warnings);
                taken.await.map(|_| vec![first])
            }
            _ => Ok(answered),
        }
    }

    /// Takes one; whether the store has answered.
    async fn take(
        &mut self,
        lease: Lease,
        limit: Duration,
        database: &str,
        warnings: &mut Vec<String>,
    ) -> Result<bool, JobError> {
        // It is to be let go whatever becomes of it.
        self.leases.push(lease);
        let Some(lease) = self.leases.last_mut() else {
            return Ok(false);
        };
        match tokio::time::timeout(limit, lease.take()).await {
            Ok(Ok(())) => {
                let (lost, cancel) = (lease.lost().clone(), self.interruption.cancel.clone());
                // From now on the job ends when its lease is lost.
                self.watches
                    .push(AbortOnDropHandle::new(tokio::spawn(async move {
                        lost.cancelled().await;
                        cancel.cancel();
                    })));
                Ok(true)
            }
            Ok(Err(NoLease::Taken(message))) => {
                let kind = FailureKind::Busy;
                Err(JobError::Plan { kind, message })
            }
            Ok(Err(NoLease::Refused(error))) => {
                warnings.push(format!(
                    "another run of {database} at the same time would not be noticed: {error}"
                ));
                Ok(true)
            }
            Ok(Err(NoLease::Store(error))) if limit == Duration::MAX => Err(error.into()),
            Ok(Err(NoLease::Store(_))) | Err(_) => Ok(false),
        }
    }

    /// Calls the hook after it, and gives the lease back. A job that ended because it was lost says
    /// so.
    pub async fn end(
        self,
        run: &Run,
        mut result: Result<Committed, Failure>,
    ) -> Result<Committed, Failure> {
        if let Ok(Committed { stores, .. }) = &mut result {
            stores.extend(self.left_out);
        }
        if let Some(mut about) = self.after {
            match &result {
                Ok(Committed {
                    manifest, stores, ..
                }) => {
                    let is_missing = stores.iter().any(|one| one.failure.is_some());
                    about["result"] = if is_missing { "copy_missing" } else { "stored" }.into();
                    about["dump_bytes"] = manifest.dump_size().into();
                    about["archive_bytes"] = manifest.archive.size.into();
                }
                Err(failure) => {
                    let is_ended = failure.kind == FailureKind::Interrupted;
                    about["result"] = if is_ended { "cancelled" } else { "failed" }.into();
                    about["error"] = failure.message.as_str().into();
                }
            }
            let called = hooks::call(&run.plan.hooks, HookPoint::After, about, run.for_hooks());
            if let Err(error) = called.await {
                tracing::warn!("{error}");
            }
        }
        let is_lost = self.leases.iter().any(|lease| lease.lost().is_cancelled());
        drop(self.watches);
        join_all(self.leases.into_iter().map(Lease::let_go)).await;
        match result {
            Err(failure) if is_lost && failure.kind == FailureKind::Interrupted => Err(Failure {
                kind: FailureKind::Busy,
                message: "ended, because another backup of it was begun while the store was away"
                    .into(),
                ..failure
            }),
            result => result,
        }
    }
}
