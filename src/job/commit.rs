//! The last step: a sealed archive becomes a backup.
//!
//! [`commit`] takes [`Sealed`], which only exists when the dump is whole ([`DumpEnd`]) and every
//! part has its receipt; so nothing can be completed before that. The volumes are completed in
//! order, then the manifest is put; before the manifest there is no backup, after it there is one.
//!
//! In between there are volumes without a manifest, and S3 dates them by the begin of their uploads
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>): after a dump of
//! two days they look as if nobody had cared for them since. So an upload is begun before, under
//! the manifest's key, whose own begin is a fresh sign of life for [`crate::upkeep::cleanup`]; it
//! is aborted when the manifest is there.

use crate::catalog::{Archive, Entry, Manifest, Volume, manifest_key};
use crate::deposit::{Sealed, SealedVolume, SharedFootprint};
use crate::dump::DumpEnd;
use crate::meter::{Meter, Step};
use crate::store::{ErrorKind, Store, StoreError, get_small};

/// Proof that what is in an archive is a whole dump, and what it is.
#[derive(Debug)]
pub struct Whole {
    entries: Vec<Entry>,
}

impl Whole {
    /// The files of an archive that was made of the dump that has ended so.
    pub fn new(_end: DumpEnd, entries: Vec<Entry>) -> Self {
        Self { entries }
    }
}

/// What a manifest says that is known before the dump: everything but the entries and the archive's
/// volumes.
pub type Facts = Manifest;

/// Completes the volumes and puts the manifest. `facts` is filled in with what the archive has
/// become.
///
/// # Errors
/// The first that failed; the footprint then says what is in the store.
pub async fn commit(
    store: &dyn Store,
    meter: &Meter,
    footprint: &SharedFootprint,
    sealed: Sealed,
    mut facts: Facts,
) -> Result<Manifest, StoreError> {
    let key = manifest_key(&facts.database, &facts.backup_id);
    let sign_of_life = store.create_upload(&key, facts.backup_id.as_str());
    let sign_of_life = meter.wait_for(Step::Upload, sign_of_life).await?;
    footprint
        .lock()
        .expect("no holder panics")
        .begun(&sign_of_life);
    for volume in &sealed.volumes {
        let complete = complete(store, volume);
        meter.wait_for(Step::Upload, complete).await?;
        footprint
            .lock()
            .expect("no holder panics")
            .completed(&volume.upload);
    }
    facts.entries = sealed.whole.entries;
    facts.archive = Archive {
        size: sealed.volumes.iter().map(|volume| volume.size).sum(),
        volumes: sealed.volumes.iter().map(describe).collect(),
        ..facts.archive
    };
    facts.finished = jiff::Timestamp::now();
    footprint.lock().expect("no holder panics").manifest(&key);
    meter
        .wait_for(Step::Upload, put_manifest(store, &key, &facts))
        .await?;
    if let Err(error) = meter
        .wait_for(Step::Upload, store.abort_upload(&sign_of_life))
        .await
    {
        tracing::warn!(database = facts.database, %error, "an empty upload stays open, for `tapline cleanup` to abort");
    }
    Ok(facts)
}

async fn complete(store: &dyn Store, volume: &SealedVolume) -> Result<(), StoreError> {
    store
        .complete_upload(&volume.upload, &volume.receipts, volume.checksum)
        .await?;
    Ok(())
}

fn describe(volume: &SealedVolume) -> Volume {
    let key = &volume.upload.key;
    Volume {
        name: key
            .rsplit_once('/')
            .map_or(key.as_str(), |(_, name)| name)
            .to_owned(),
        size: volume.size,
        parts: u32::try_from(volume.receipts.len()).expect("part numbers are 32 bits"),
        crc64nvme: volume.crc64nvme.to_base64(),
    }
}

/// Puts the manifest; one that is there already is ours when it says the same, its reply was lost.
async fn put_manifest(store: &dyn Store, key: &str, manifest: &Manifest) -> Result<(), StoreError> {
    let text = manifest.to_json();
    let limit = text.len();
    match store.put(key, text.clone().into()).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            match get_small(store, key, limit).await {
                Ok(stored) if stored == text => Ok(()),
                _ => Err(error),
            }
        }
        result => result.map(drop),
    }
    .map_err(|error| error.context(format!("putting {key}")))
}
