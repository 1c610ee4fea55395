//! Taking away what a failed job has put into its store.
//!
//! What is there is **looked up** and not remembered: replies get lost, and what they told of with
//! them. A backup's id is its own, so all below `NAME/BACKUP-ID/` is the job's. It is deleted until
//! a listing shows nothing. A key that may not list takes away what the job remembers.
//!
//! The manifest goes first: objects must outlive it, or a listing shows a backup that is none. A
//! manifest that cannot be taken away keeps its volumes, and nothing else.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use crate::catalog::{BackupId, backup_prefix, manifest_key};
use crate::deposit::Ledger;
use crate::store::{ErrorKind, SharedStore, StoreError, Upload, list_all, list_all_uploads};

/// How often what is there is looked up: parts and requests that were on their way may still
/// arrive after they were taken away once.
const ROUNDS: u32 = 5;
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(300);
/// How long a good backup may take to look for uploads that were left beside it.
const STRAYS: Duration = Duration::from_secs(10);
/// Requests at once.
const AT_ONCE: usize = 16;

/// Whose traces are to be erased, and how long that may take.
pub struct Traces<'a> {
    /// Where they are.
    pub store: &'a SharedStore,
    /// Name of the store in the inventory, for the command that removes what is left.
    pub store_name: &'a str,
    /// The database.
    pub database: &'a str,
    /// The backup that is none.
    pub id: &'a BackupId,
    /// What the job remembers.
    pub ledger: &'a Ledger,
}

/// Takes away all below the backup's prefix, within a time. Returns what is left, in words, with
/// the command that removes it.
pub async fn erase(traces: Traces<'_>, within: Duration) -> Option<String> {
    let start = tokio::time::Instant::now();
    // A request that was given up half way may still take effect: wait for it, but not for ever.
    let settled = traces.ledger.settle(within / 2).await;
    // A store that has taken nothing (wrong keys, no such bucket, nobody there) has nothing of it.
    if settled && traces.ledger.is_blank() {
        return None;
    }
    let rest = within.saturating_sub(start.elapsed());
    let left = match tokio::time::timeout(rest, traces.rounds(settled)).await {
        Ok(None) => return None,
        Ok(Some(left)) => left,
        Err(_) => format!("the store did not answer within {} s", within.as_secs()),
    };
    let Traces {
        store,
        store_name,
        database,
        id,
        ..
    } = traces;
    let (address, prefix) = (store.address(), backup_prefix(database, id));
    Some(format!(
        "something may be left under {address}/{prefix}: {left}; \
         `tapline cleanup --store {store_name} --older-than 1h --confirm` removes it in an hour"
    ))
}

/// Ends the uploads that a backup has left beside it: one whose begin was answered to nobody and
/// tried again has two. Without this they stay, and cost, until somebody runs `cleanup`; so what
/// does not work is no failure.
pub async fn abort_strays(store: &SharedStore, database: &str, id: &BackupId) {
    let strays = async {
        let open = list_all_uploads(&**store, &backup_prefix(database, id)).await?;
        for open in open {
            let upload = Upload {
                key: open.key,
                id: open.id,
                backup_id: id.to_string(),
                has_twin: false,
            };
            store.abort_upload(&upload).await?;
        }
        Ok::<_, StoreError>(())
    };
    match tokio::time::timeout(STRAYS, strays).await {
        Ok(Ok(())) => {}
        // A key that may only write is a usual protection.
        Ok(Err(error)) if error.kind() == ErrorKind::Denied => {}
        Ok(Err(error)) => tracing::info!(database, %error, "an empty upload may have been left"),
        Err(_) => tracing::info!(database, "an empty upload may have been left"),
    }
}

impl Traces<'_> {
    async fn rounds(&self, settled: bool) -> Option<String> {
        let mut clean = 0;
        let mut left = String::new();
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match self.round().await {
                Round::Clean => clean += 1,
                Round::Removed => clean = 0,
                Round::Left(why) => {
                    clean = 0;
                    left = why;
                }
                Round::CannotList(why) => return self.by_memory(&why).await,
            }
            // Where a request was given up, one clean look is not enough.
            if clean > u32::from(!settled) {
                return None;
            }
        }
        Some(if left.is_empty() {
            "parts keep arriving".into()
        } else {
            left
        })
    }

    /// Looks up what is there and takes it away.
    async fn round(&self) -> Round {
        let prefix = backup_prefix(self.database, self.id);
        let uploads = match list_all_uploads(&**self.store, &prefix).await {
            Ok(open) => open.into_iter().map(|open| (open.key, open.id)).collect(),
            Err(error) => return Round::CannotList(error),
        };
        let objects: Vec<String> = match list_all(&**self.store, &prefix).await {
            Ok(objects) => objects.into_iter().map(|object| object.key).collect(),
            Err(error) => return Round::CannotList(error),
        };
        let was_clean = objects.is_empty() && Vec::is_empty(&uploads);
        match self.remove(uploads, objects).await {
            None if was_clean => Round::Clean,
            None => Round::Removed,
            Some(left) => Round::Left(left),
        }
    }

    /// Without a listing: the uploads that the job has begun, and the objects that they became.
    async fn by_memory(&self, cannot: &StoreError) -> Option<String> {
        if !matches!(cannot.kind(), ErrorKind::Denied | ErrorKind::Unsupported) {
            return Some(cannot.to_string());
        }
        let begun = self.ledger.uploads();
        let objects = begun.iter().map(|upload| upload.key.clone());
        let objects = objects.chain(self.ledger.objects());
        let objects = objects
            .chain([manifest_key(self.database, self.id)])
            .collect();
        let uploads = begun
            .into_iter()
            .map(|upload| (upload.key, upload.id))
            .collect();
        let left = self.remove(uploads, objects).await;
        // What was begun without an answer is not remembered, and was not looked for.
        Some(
            left.unwrap_or_else(|| {
                format!("it could not be looked up whether all is gone: {cannot}")
            }),
        )
    }

    /// Aborts and deletes; tells what could not be. One that is refused does not keep the others.
    async fn remove(
        &self,
        uploads: Vec<(String, String)>,
        mut objects: Vec<String>,
    ) -> Option<String> {
        let aborts = uploads.into_iter().map(|(key, id)| async {
            let upload = Upload {
                key,
                id,
                backup_id: self.id.to_string(),
                has_twin: false,
            };
            let aborted = self.store.abort_upload(&upload).await;
            aborted.map_err(|error| format!("an upload of {}: {error}", upload.key))
        });
        let aborts: Vec<_> = aborts.collect();
        let mut left: Vec<String> = gather(aborts).await;

        let manifest = manifest_key(self.database, self.id);
        let manifests = objects.extract_if(.., |key| *key == manifest).count();
        if manifests > 0
            && let Err(error) = self.store.delete(&manifest).await
        {
            left.push(format!(
                "{manifest}, and therefore all of its volumes: {error}"
            ));
            return Some(left.join("; "));
        }
        let deletes = objects.into_iter().map(|key| async move {
            let deleted = self.store.delete(&key).await;
            deleted.map_err(|error| format!("{key}: {error}"))
        });
        let deletes: Vec<_> = deletes.collect();
        left.extend(gather(deletes).await);
        (!left.is_empty()).then(|| left.join("; "))
    }
}

/// Carries out several removals at once and tells those that failed.
async fn gather(removals: Vec<impl Future<Output = Result<(), String>>>) -> Vec<String> {
    let failed = stream::iter(removals).buffer_unordered(AT_ONCE);
    failed
        .filter_map(async |removed| removed.err())
        .collect()
        .await
}

/// What one look at the prefix came to.
enum Round {
    /// Nothing was there.
    Clean,
    /// What was there was taken away.
    Removed,
    /// Some of it could not be, in words.
    Left(String),
    /// It cannot be looked up.
    CannotList(StoreError),
}
