//! Buckets that keep versions and lock objects: what is said to be free is, and what is locked is
//! named with its date.

use std::sync::{Arc, Mutex};

use tapline::catalog::BackupId;
use tapline::store::s3::{LockMode, ObjectLock, S3Settings, S3Store};
use tapline::store::{Store, Version};
use tapline::upkeep::versions::{free_below, hidden};

use super::store_http::{Asked, Fixed, Server, error, reply};

const LONG_AGO: &str = "2001-02-03T04:05:06Z";

/// A version as a bucket has it: key, name, whether it is the latest, whether a mark.
type Held = (String, &'static str, bool, bool);

/// A bucket that lists its versions two at a time, and deletes all but those whose name is `locked`.
async fn bucket(held: Vec<Held>) -> (Server, Arc<Mutex<Vec<Held>>>) {
    let held = Arc::new(Mutex::new(held));
    let kept = held.clone();
    let server = Server::start(0, move |asked| {
        let mut kept = kept.lock().unwrap();
        match asked.method.as_str() {
            "GET" => page(asked, &kept),
            "HEAD" => reply(
                200,
                "x-amz-object-lock-mode: GOVERNANCE\r\n\
                 x-amz-object-lock-retain-until-date: 2031-02-03T04:05:06Z",
                "",
            ),
            _ if asked.path.contains("versionId=locked") => error(403, "AccessDenied"),
            _ => {
                let is_gone = |(_, id, ..): &Held| asked.path.contains(&format!("versionId={id}"));
                kept.retain(|version| !is_gone(version));
                reply(204, "", "")
            }
        }
    });
    (server.await, held)
}

fn page(asked: &Asked, held: &[Held]) -> String {
    let from = asked.path.split("version-id-marker=").nth(1);
    let from = from.map(|rest| rest.split('&').next().unwrap());
    let start = from.map_or(0, |id| held.iter().position(|one| one.1 == id).unwrap() + 1);
    let end = held.len().min(start + 2);
    let entries: Vec<String> = held[start..end]
        .iter()
        .map(|(key, id, is_latest, is_marker)| {
            let kind = if *is_marker { "DeleteMarker" } else { "Version" };
            format!(
                "<{kind}><Key>{key}</Key><VersionId>{id}</VersionId><IsLatest>{is_latest}</IsLatest>\
                 <Size>10</Size><LastModified>{LONG_AGO}</LastModified></{kind}>"
            )
        })
        .collect();
    let more = match held.get(end) {
        Some(_) => {
            let (key, id, ..) = &held[end - 1];
            format!(
                "<IsTruncated>true</IsTruncated><NextKeyMarker>{key}</NextKeyMarker>\
                 <NextVersionIdMarker>{id}</NextVersionIdMarker>"
            )
        }
        None => "<IsTruncated>false</IsTruncated>".into(),
    };
    let body = format!(
        "<ListVersionsResult>{more}{}</ListVersionsResult>",
        entries.concat()
    );
    reply(200, "", &body)
}

/// A backup of the database `x`, hidden by marks or not.
fn backup(id: &BackupId, ids: [&'static str; 4], is_hidden: bool) -> Vec<Held> {
    let below = |name: &str| format!("x/{id}/{name}");
    let (archive, manifest) = (below("x.tar.gz"), below("manifest.json"));
    let mut all = vec![
        (archive.clone(), ids[0], !is_hidden, false),
        (manifest.clone(), ids[1], !is_hidden, false),
    ];
    if is_hidden {
        all.push((archive, ids[2], true, true));
        all.push((manifest, ids[3], true, true));
    }
    all
}

#[tokio::test]
async fn what_is_said_to_be_free_is_and_a_lock_is_named_with_its_date() {
    let id = BackupId::now();
    let (server, held) = bucket(backup(&id, ["a", "locked", "c", "d"], true)).await;
    let freed = free_below(&server.store().await, &format!("x/{id}/")).await;
    // The mark stays with what it hides: half a backup would be in the list again.
    assert_eq!((freed.versions, freed.bytes), (2, 10));
    let [failure] = freed.failures.as_slice() else {
        panic!("{freed:?}");
    };
    assert!(failure.contains("version locked of x/"), "{failure}");
    let lock = "locked until 2031-02-03T04:05:06Z (governance)";
    assert!(failure.contains(lock), "{failure}");
    let left: Vec<_> = held.lock().unwrap().iter().map(|one| one.1).collect();
    assert_eq!(left, ["locked", "d"]);
    let deleted: Vec<String> = server
        .asked()
        .iter()
        .filter(|asked| asked.method == "DELETE")
        .filter_map(|asked| Some(asked.path.split_once("versionId=")?.1.into()))
        .collect();
    let at = |id: &str| deleted.iter().position(|path| path.starts_with(id));
    assert!(at("a") < at("c"), "{deleted:?}");
}

/// A delete that was refused must not be followed by the loss of what the backup is made of.
#[tokio::test]
async fn no_version_is_deleted_of_what_is_still_listed() {
    let id = BackupId::now();
    let (server, held) = bucket(backup(&id, ["a", "b", "c", "d"], false)).await;
    let freed = free_below(&server.store().await, &format!("x/{id}/")).await;
    assert_eq!((freed.versions, freed.failures.len()), (0, 1));
    assert!(freed.failures[0].contains("is still there"), "{freed:?}");
    assert_eq!(held.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn hidden_are_whole_backups_and_old_notes_and_nothing_that_is_listed() {
    let (living, gone) = (BackupId::now(), BackupId::now());
    let mut all = backup(&living, ["a", "b", "c", "d"], false);
    // A manifest that was hidden, put again: its backup lives.
    all.push((all[1].0.clone(), "earlier", false, false));
    all.extend(backup(&gone, ["e", "f", "g", "h"], true));
    all.push(("somebody/elses".into(), "i", false, false));
    let (server, _) = bucket(all).await;
    let store = server.store().await;
    let found = |before| {
        let store = &store;
        async move {
            let found: Vec<Version> = hidden(store, before).await.unwrap();
            let mut ids: Vec<String> = found.into_iter().map(|version| version.id).collect();
            ids.sort();
            ids
        }
    };
    assert_eq!(found(i64::MAX).await, ["e", "f", "g", "h"]);
    // What is younger may have been deleted a moment ago, and by mistake.
    assert_eq!(found(981_173_000).await, [""; 0]);
}

/// Ceph 16 and moto begin an upload with a lock, and join its parts without one.
#[tokio::test]
async fn a_volume_that_was_joined_without_its_lock_is_locked_and_one_that_cannot_be_is_told() {
    let locking = |status, locked: bool| {
        Server::start(0, move |asked| match asked.method.as_str() {
            "HEAD" if status == 403 => reply(403, "", ""),
            "HEAD" if locked => reply(
                200,
                "x-amz-object-lock-mode: GOVERNANCE\r\n\
                 x-amz-object-lock-retain-until-date: 2031-02-03T04:05:06Z",
                "",
            ),
            "HEAD" => reply(200, "", ""),
            _ if status == 501 => error(501, "NotImplemented"),
            _ => reply(200, "", ""),
        })
    };
    let key = format!("x/{}/x.tar.gz", BackupId::now());
    for (status, is_locked, puts) in [
        (200, true, 0),
        (200, false, 1),
        (403, false, 1),
        (501, false, 1),
    ] {
        let server = locking(status, is_locked).await;
        let settings = S3Settings {
            lock: Some(ObjectLock {
                mode: LockMode::Governance,
                days: 30,
            }),
            ..server.settings()
        };
        let keys = Some(Arc::new(Fixed) as _);
        let store = S3Store::open(&settings, keys).await.unwrap();
        let locked = store.lock_joined(&key).await;
        let asked = server.asked();
        let put: Vec<_> = asked.iter().filter(|asked| asked.method == "PUT").collect();
        assert_eq!(put.len(), puts, "{asked:?}");
        assert!(
            put.iter().all(|put| put.path.contains("?retention")),
            "{put:?}"
        );
        let words = "has not locked what object_lock asks";
        match locked {
            Ok(()) => assert_ne!(status, 501),
            Err(error) => assert!(
                status == 501 && error.to_string().contains(words),
                "{error}"
            ),
        }
        // What is replaced all the time, and what is not to be locked, is not even looked at.
        let asked_before = server.asked().len();
        store.lock_joined("~tapline/note").await.unwrap();
        server.store().await.lock_joined(&key).await.unwrap();
        assert_eq!(server.asked().len(), asked_before);
    }
}
