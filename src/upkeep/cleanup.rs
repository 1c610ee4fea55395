//! Taking away what never became a backup: volumes without a manifest, open uploads, leases of runs
//! that were killed, and what `tapline check` left behind.
//!
//! A backup that runs looks just the same, but for its age. So everything is grouped by the backup
//! that it belongs to, and a backup's **last sign of life** is the youngest of
//!
//! - the begin of each of its uploads, and the newest part of each,
//! - the last change of each of its objects.
//!
//! Only when that is older than the limit, its objects and uploads are leftovers. A backup may so
//! run for days: whenever a part arrives, all of it is young. Between its last part and its
//! manifest an upload that is begun for the purpose is the sign (see `backup::commit`). When its
//! manifest is there, its objects are no leftovers at any age; uploads beside them are.
//!
//! The times are the store's, and so is the present: by the `Date` of its replies. This machine's
//! clock may be hours off, for the SDK corrects its signatures and goes on. What the store gives no
//! time for counts as young.
//!
//! The order of the questions matters, because backups go on meanwhile: objects, then uploads, then
//! their parts, and the manifest once more before anything is deleted. A volume that is seen
//! without its manifest was completed before the uploads were listed, so either the sign of life is
//! among them, or the manifest is there in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::catalog::{BackupId, is_check_key, is_lease_key, locate, locate_record, manifest_key};
use crate::store::{
    ObjectInfo, OpenUpload, Store, StoreError, Upload, UploadInfo, objects, uploads,
};

/// No younger than this is ever a leftover.
pub const SHORTEST_LIMIT: Duration = Duration::from_hours(1);
/// A clock that is so many seconds off is said to be.
const WORTH_A_WORD: i64 = 60;
/// Requests at once.
const AT_ONCE: usize = 16;

/// What is to be taken away, and what is left alone.
#[derive(Debug, Default)]
pub struct Plan {
    /// Leftovers, by what they belong to.
    pub leftovers: Vec<Leftovers>,
    /// Objects and uploads of backups without a manifest that are too young, because they may still
    /// become one.
    pub young: usize,
    /// Objects and uploads whose keys are not ours.
    pub foreign: usize,
    /// Backups and others that could not be looked at closely, and why: all of each is left alone.
    pub unread: Vec<String>,
}

/// All that is left of one backup, or of one check.
#[derive(Debug)]
pub struct Leftovers {
    /// Objects, by key.
    pub objects: Vec<ObjectInfo>,
    /// Uploads, and what they hold.
    pub uploads: Vec<(OpenUpload, UploadInfo)>,
    /// Seconds since the last sign of life.
    pub age: i64,
    /// The key of the manifest that would make it a backup; a check and a lease have none.
    manifest: Option<String>,
}

/// What objects and uploads belong to.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Backup(String, BackupId),
    /// What belongs to no backup and is nothing once it is old: by its key.
    Passing(String),
}

#[derive(Debug, Default)]
struct Traces {
    objects: Vec<ObjectInfo>,
    uploads: Vec<OpenUpload>,
}

/// Looks for leftovers whose last sign of life is more than `limit` before `now`, in seconds since
/// the Unix epoch.
///
/// # Errors
/// When the store cannot be listed.
pub async fn plan(store: &dyn Store, limit: Duration, now: i64) -> Result<Plan, StoreError> {
    let limit = i64::try_from(limit.max(SHORTEST_LIMIT).as_secs()).unwrap_or(i64::MAX);
    let mut by_owner = BTreeMap::<Owner, Traces>::new();
    let mut plan = Plan::default();
    let mut objects = objects(store, "");
    while let Some(object) = objects.try_next().await? {
        match owner(&object.key) {
            Some(owner) => by_owner.entry(owner).or_default().objects.push(object),
            None if locate_record(&object.key).is_some() => {}
            None => plan.foreign += 1,
        }
    }
    let mut uploads = uploads(store, "");
    while let Some(upload) = uploads.try_next().await? {
        match owner(&upload.key) {
            Some(owner) => by_owner.entry(owner).or_default().uploads.push(upload),
            None => plan.foreign += 1,
        }
    }
    let now = now + skew(store);
    let mut old = Vec::new();
    for (
        owner,
        Traces {
            mut objects,
            uploads,
        },
    ) in by_owner
    {
        // A lease says by itself of whom it is, and is none of a backup's objects.
        let is_lease = matches!(&owner, Owner::Passing(key) if is_lease_key(key));
        let manifest = match owner {
            Owner::Backup(database, id) => Some(manifest_key(&database, &id)),
            Owner::Passing(_) => None,
        };
        let moments = objects
            .iter()
            .map(|object| object.modified)
            .chain(uploads.iter().map(|upload| upload.initiated));
        let seen = youngest(moments, now);
        if objects
            .iter()
            .any(|object| Some(&object.key) == manifest.as_ref())
        {
            objects.clear();
        }
        if now - seen > limit {
            old.push(look_closer(store, manifest, objects, uploads, (seen, now)));
        } else if !is_lease {
            plan.young += objects.len() + uploads.len();
        }
    }
    let mut looked_at = stream::iter(old).buffered(AT_ONCE);
    while let Some(looked_at) = looked_at.next().await {
        let leftovers = match looked_at {
            Ok(leftovers) => leftovers,
            Err(why) => {
                plan.unread.push(why);
                continue;
            }
        };
        let count = leftovers.objects.len() + leftovers.uploads.len();
        if leftovers.age <= limit {
            plan.young += count;
        } else if count > 0 {
            plan.leftovers.push(leftovers);
        }
    }
    Ok(plan)
}

/// By how much the store's clock is ahead of this machine's. The listings have told it.
fn skew(store: &dyn Store) -> i64 {
    let offset = store.clock_offset().unwrap_or_default();
    if offset.abs() > WORTH_A_WORD {
        let store = store.address();
        tracing::warn!(
            store,
            "this machine's clock is {offset} s off the store's; ages are told by the store's"
        );
    }
    offset
}

fn owner(key: &str) -> Option<Owner> {
    match locate(key) {
        Some(located) => Some(Owner::Backup(located.database, located.id)),
        None => (is_check_key(key) || is_lease_key(key)).then(|| Owner::Passing(key.to_owned())),
    }
}

/// The youngest of `moments`; a moment that is not known is now.
fn youngest(moments: impl Iterator<Item = i64>, now: i64) -> i64 {
    moments
        .map(|moment| if moment == 0 { now } else { moment })
        .max()
        .unwrap_or(now)
}

/// Asks for the parts of each upload.
async fn look_closer(
    store: &dyn Store,
    manifest: Option<String>,
    objects: Vec<ObjectInfo>,
    open: Vec<OpenUpload>,
    (mut seen, now): (i64, i64),
) -> Result<Leftovers, String> {
    let mut uploads = Vec::with_capacity(open.len());
    for upload in open {
        let info = store.upload_info(&upload.key, &upload.id).await;
        let info = info.map_err(|error| {
            let (key, id) = (&upload.key, &upload.id);
            format!("the upload {id} of {key} was left alone, for its parts are not known: {error}")
        })?;
        if info.parts > 0 {
            seen = seen.max(youngest([info.newest].into_iter(), now));
        }
        uploads.push((upload, info));
    }
    Ok(Leftovers {
        objects,
        uploads,
        age: now - seen,
        manifest,
    })
}

/// Takes the leftovers away and tells what could not be.
pub async fn remove(store: &dyn Store, leftovers: &[Leftovers]) -> Vec<String> {
    let removals: Vec<_> = leftovers
        .iter()
        .map(|leftovers| remove_one(store, leftovers))
        .collect();
    let failures = stream::iter(removals).buffer_unordered(AT_ONCE);
    failures
        .filter_map(async |result| result.err())
        .collect()
        .await
}

async fn remove_one(store: &dyn Store, leftovers: &Leftovers) -> Result<(), String> {
    for (OpenUpload { key, id, .. }, _) in &leftovers.uploads {
        let upload = Upload {
            key: key.clone(),
            id: id.clone(),
            ..Upload::default()
        };
        let aborted = store.abort_upload(&upload).await;
        aborted.map_err(|error| format!("the upload {id} of {key} was not aborted: {error}"))?;
    }
    if let (Some(manifest), [_, ..]) = (&leftovers.manifest, leftovers.objects.as_slice()) {
        match store.head(manifest).await {
            Ok(None) => {}
            Ok(Some(_)) => {
                return Err(format!(
                    "{manifest} is there now, so its volumes were left alone"
                ));
            }
            Err(error) => {
                return Err(format!(
                    "{manifest} may be there, so its volumes were left alone: {error}"
                ));
            }
        }
    }
    for ObjectInfo { key, .. } in &leftovers.objects {
        store
            .delete(key)
            .await
            .map_err(|error| format!("{key} was not deleted: {error}"))?;
    }
    Ok(())
}
