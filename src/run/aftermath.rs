//! What follows a job: its failure is kept in the store, and after a success what no rule keeps is
//! removed.

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::report::{self, JobOutcome, JobReport, Pruned};
use super::{Run, hostname};
use crate::catalog::{self, Record, RecordKind, Retention};
use crate::config::Database;
use crate::job::{Committed, FailedStep, FailureKind, StoreEnd};
use crate::store::retry::{PatientStore, RetryPolicy};
use crate::upkeep;

impl Run {
    /// Keeps a failure in the store, for `status` on any host.
    pub(super) async fn keep_failure(&self, entry: &Database, report: &JobReport) {
        let Some(failure) = &report.failure else {
            return;
        };
        // A store that did not answer just now does not take notes.
        let passed_over = [
            FailureKind::Interrupted,
            FailureKind::Busy,
            FailureKind::StoreUnreachable,
        ];
        if passed_over.contains(&failure.kind) {
            return;
        }
        let began = report.started.unwrap_or_else(Timestamp::now);
        let record = Record {
            ended: Timestamp::now(),
            good: false,
            reason: Some(report::name_of(&failure.kind)),
            message: failure.message.clone(),
            ..Record::new(RecordKind::Failure, &entry.name, hostname(), began)
        };
        let record = match entry.encryption {
            None => record,
            Some(_) => record.without_words(),
        };
        let stores = entry
            .stores
            .iter()
            .filter_map(|name| self.plan.stores.get(name));
        join_all(stores.map(|store| catalog::keep(&**store, record.clone()))).await;
    }

    /// A store that others have waited for in vain is left out by the jobs to come.
    pub(super) fn note_dropped(&self, entry: &Database, outcome: &JobOutcome) {
        let Ok(Committed { stores, .. }) = &outcome.result else {
            return;
        };
        for StoreEnd { name, failure, .. } in stores {
            let dropped = &self.plan.dropped;
            match (failure, self.plan.stores.get(name)) {
                (None, _) => dropped.is_good(name),
                // What was left out from the start tells nothing new.
                (Some(failure), Some(store))
                    if failure.kind == FailureKind::StoreUnreachable
                        && failure.step != FailedStep::Plan =>
                {
                    dropped.drop_out(name, store, &entry.name);
                }
                (Some(_), _) => {}
            }
        }
    }

    /// After a success: removes what no rule keeps, in each store that has the new backup.
    pub(super) async fn prune(&self, entry: &Database, mut outcome: JobOutcome) -> JobOutcome {
        let (true, Ok(Committed { stores, .. })) =
            (self.plan.settings.prune_after_backup, &outcome.result)
        else {
            return outcome;
        };
        let mut pruned = Pruned::default();
        for StoreEnd { name, failure, .. } in stores {
            let rules = self.plan.retention(entry, name);
            if failure.is_some() || rules.is_empty() {
                continue;
            }
            match self.prune_store(entry, name, &rules).await {
                Ok(backups) => pruned.backups += backups,
                Err(error) => {
                    let before = pruned.error.take().map(|before| before + "; ");
                    pruned.error = Some(before.unwrap_or_default() + &error);
                }
            }
        }
        outcome.pruned = pruned;
        outcome
    }

    async fn prune_store(
        &self,
        entry: &Database,
        name: &str,
        rules: &Retention,
    ) -> Result<usize, String> {
        let store = self.plan.stores.get(name);
        let store = store.ok_or_else(|| format!("the store {name} is not open"))?;
        let retry = RetryPolicy::lasting(self.plan.settings.retry_for);
        let store = PatientStore::new(store.clone(), retry, Arc::new(|| ()));
        let trusted = &self.plan.signatures.trusted;
        let work = upkeep::prune::prune(&store, &entry.name, rules, &entry.formerly, trusted);
        match self.interruption.cancel.run_until_cancelled(work).await {
            None => Err("interrupted before it was over".into()),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(removed)) if removed.failures.is_empty() => Ok(removed.backups),
            Some(Ok(removed)) => Err(removed.failures.join("; ")),
        }
    }
}
