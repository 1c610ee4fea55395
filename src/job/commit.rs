//! The last step: a sealed archive becomes a backup.
//!
//! An archive that is whole in memory is put as one object, any other's parts are completed. From the
//! first of that on there is no way back but to the end: [`Sealed::commit`] consumes
//! the only handle and runs as a task of its own, which no signal, no watchdog and no dropped
//! future reaches; its own deadline ends it. It comes out in one of two states: the manifest is
//! there, or everything is gone, and where a store leaves open which of the two it is, nothing that
//! belongs to the backup is deleted.
//!
//! **The manifest** is put with the condition that no object has its key; that it is there is proven
//! by the reply and by a look (`store::retry`). A put that was never answered may still arrive, and
//! volumes under a manifest that may still come are not deleted.
//!
//! **A sign of life**: between the first completion and the manifest there are volumes without a
//! manifest, and S3 dates them by the begin of their uploads
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>): after a dump of two
//! days they look as if nobody had cared for them since. So after a long dump an upload is begun
//! under the manifest's key, whose own begin is fresh for `tapline cleanup`; it is aborted when the
//! manifest is there.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use jiff::Timestamp;

use super::{Destination, JobError, StoreEnd};
use crate::catalog::{BackupId, Manifest, manifest_key, signature_key};
use crate::deposit::{Content, Ledger, SealedVolume};
use crate::meter::{Meter, Step};
use crate::signature::Signer;
use crate::store::{ErrorKind, SharedStore, StoreError, Upload};

/// A commit ends after so long, whatever the store does: `cleanup` takes nothing away that is
/// younger than an hour, so a sealed volume is safe for as long.
const DEADLINE: Duration = Duration::from_mins(45);

/// Every part of an archive is in the store, the head too, and nothing exists yet. Made by
/// [`super::Dumping`] and by the staged upload, from a dump that is whole.
pub struct Sealed {
    /// Where it goes.
    pub to: Destination,
    /// What may be left there.
    pub ledger: Ledger,
    /// The archive.
    pub volumes: Vec<SealedVolume>,
    /// What it is.
    pub manifest: Manifest,
    /// The same as it is put.
    pub text: Bytes,
    /// What is put before it.
    pub signature: Option<Signature>,
    /// What the dump tool said although all went well.
    pub warnings: Vec<String>,
    /// Whether a warning is a failure.
    pub strict: bool,
}

/// Where a manifest's signature comes from.
pub enum Signature {
    /// It is signed now.
    By(Signer),
    /// It was signed before.
    Given(Bytes),
}

/// A backup that exists.
#[derive(Debug, Clone)]
pub struct Committed {
    /// What it is.
    pub manifest: Manifest,
    /// What the dump tool said although all went well.
    pub warnings: Vec<String>,
    /// What became of it in each of its stores.
    pub stores: Vec<StoreEnd>,
}

/// Why a commit has made no backup.
#[derive(Debug)]
pub(super) struct CommitError {
    pub error: JobError,
    /// The manifest may still arrive: nothing below its prefix may be deleted.
    pub may_still_come: bool,
}

impl Sealed {
    /// Completes the volumes in order and puts the manifest.
    pub(super) async fn commit(self) -> Result<Committed, CommitError> {
        let Destination { store, meter, .. } = &self.to;
        let mut putting = false;
        let work = complete_and_put(store, meter, &self, &mut putting);
        let work = AssertUnwindSafe(work).catch_unwind();
        match tokio::time::timeout(DEADLINE, work).await {
            Ok(Ok(Ok(()))) => Ok(Committed {
                manifest: self.manifest,
                warnings: self.warnings,
                stores: Vec::new(),
            }),
            // The program failed, and not the store; what there is of the backup goes all the same.
            Ok(Err(panic)) => Err(CommitError {
                error: JobError::panicked(&*panic),
                may_still_come: putting,
            }),
            Ok(Ok(Err(error))) => {
                let may_still_come = putting && error.unheard();
                Err(CommitError {
                    error: JobError::Commit(error),
                    may_still_come,
                })
            }
            Err(_) => {
                let why = format!("not committed within {} minutes", DEADLINE.as_secs() / 60);
                let error = JobError::Commit(StoreError::new(ErrorKind::Transient, why));
                Err(CommitError {
                    error,
                    may_still_come: putting,
                })
            }
        }
    }
}

async fn complete_and_put(
    store: &SharedStore,
    meter: &Meter,
    Sealed {
        to,
        ledger,
        volumes,
        manifest,
        text,
        signature,
        ..
    }: &Sealed,
    putting: &mut bool,
) -> Result<(), StoreError> {
    let key = manifest_key(&manifest.database, &manifest.backup_id);
    let age = Timestamp::now()
        .duration_since(manifest.started)
        .unsigned_abs();
    let sign_of_life = if age >= to.sign_of_life_after {
        Some(sign_of_life(store, ledger, &key, &manifest.backup_id).await?)
    } else {
        None
    };
    for SealedVolume {
        key,
        content,
        checksum,
        size,
        ..
    } in volumes
    {
        match content {
            Content::Uploaded(upload, receipts) => {
                let completed = store.complete_upload(upload, receipts, *checksum);
                meter.wait_for(Step::Upload, completed).await?;
                meter.wait_for(Step::Upload, store.lock_joined(key)).await?;
            }
            Content::InMemory(body) => {
                let start = Instant::now();
                ledger.put(key);
                let id = manifest.backup_id.as_str();
                let put = store.put_volume(key, id, body.clone(), *checksum);
                let put = meter.wait_for(Step::Upload, put).await;
                put.inspect_err(|error| {
                    // One that is there already may be this one, put by a try that got no answer.
                    if !error.unanswered() && error.kind() != ErrorKind::AlreadyExists {
                        ledger.refused(key);
                    }
                })?;
                meter.archive_is(*size);
                meter.was_busy(Step::Upload, start);
            }
        }
    }
    // Before the manifest: whoever sees that finds its signature.
    if let Some(signature) = signature {
        let Manifest {
            database,
            backup_id,
            ..
        } = manifest;
        let signature = match signature {
            Signature::Given(signature) => signature.clone(),
            Signature::By(signer) => {
                let made = signer.sign(text, &format!("tapline {database}@{backup_id}"));
                made.map_err(|why| StoreError::new(ErrorKind::Invalid, why))?
                    .into()
            }
        };
        let key = signature_key(database, backup_id);
        ledger.put(&key);
        let put = store.put(&key, signature);
        meter.wait_for(Step::Upload, put).await?;
    }
    *putting = true;
    let put = store.put(&key, text.clone());
    meter.wait_for(Step::Upload, put).await?;
    if let Some(upload) = sign_of_life
        && let Err(error) = store.abort_upload(&upload).await
    {
        let database = &manifest.database;
        tracing::info!(database, %error, "an empty upload stays open until `tapline cleanup`");
    }
    Ok(())
}

async fn sign_of_life(
    store: &SharedStore,
    ledger: &Ledger,
    key: &str,
    id: &BackupId,
) -> Result<Upload, StoreError> {
    let (store, key, id) = (store.clone(), key.to_owned(), id.to_string());
    ledger
        .begin(async move { store.create_upload(&key, &id).await })
        .await
}
