//! One real backup of a few bytes, under keys that no backup has: every request that a backup makes,
//! and then those of the other commands. What is refused is told with the permission that gives it
//! and with what does not work without it.
//!
//! ```text
//! put, begin, part, complete    a backup's own; without one of them there is none
//! head, read, list              what restore and verify look with
//! uploads, abort, delete        how what failed, or is no longer kept, is taken away
//! versions, order, lifecycle    what the bucket and the server make of all that
//! ```

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{Finding, Outcome};
use crate::access::OpenStore;
use crate::catalog::{BackupId, check_key};
use crate::store::s3::{S3Store, is_about_keys};
use crate::store::{
    Checksum, ErrorKind, PartBody, PartReceipt, SharedStore, Store, StoreError, Upload, get_small,
    list_all, list_all_uploads,
};

/// What is put into a store and taken away again.
const PROBE: &[u8] = b"tapline check";

/// A request, the permission that it takes, and what does not work without it.
struct Step {
    what: &'static str,
    permission: &'static str,
    /// Nothing: without it there are no backups.
    without: Option<&'static str>,
}

const fn needed(what: &'static str) -> Step {
    Step {
        what,
        permission: "s3:PutObject",
        without: None,
    }
}

const fn wanted(what: &'static str, permission: &'static str, without: &'static str) -> Step {
    Step {
        what,
        permission,
        without: Some(without),
    }
}

const PUT: Step = needed("put");
const BEGIN: Step = needed("begin");
const PART: Step = needed("part");
const COMPLETE: Step = needed("complete");
const HEAD: Step = wanted(
    "head",
    "s3:GetObject",
    "a backup rests on the store's replies alone, and there is no verify and no prune from here",
);
const READ: Step = wanted(
    "read",
    "s3:GetObject",
    "there is no restore, verify or prune from here",
);
const LIST: Step = wanted(
    "list",
    "s3:ListBucket",
    "there is no list, verify, prune or cleanup from here, and no restore",
);
const UPLOADS: Step = wanted(
    "uploads",
    "s3:ListBucketMultipartUploads and s3:ListMultipartUploadParts",
    "there is no cleanup from here, and a backup that fails takes away only what it remembers",
);
const ABORT: Step = wanted(
    "abort",
    "s3:AbortMultipartUpload",
    "the parts of a backup that fails stay until cleanup or a rule of the bucket removes them",
);
const DELETE: Step = wanted(
    "delete",
    "s3:DeleteObject",
    "there is no prune or cleanup from here, and what this check has stored stays",
);

/// Tries everything with the store that the inventory calls `name`.
pub(super) async fn check_store(name: &str, opened: &OpenStore, say: &mut dyn FnMut(Finding)) {
    let keys = [check_key(&BackupId::now()), check_key(&BackupId::now())];
    let mut check = StoreCheck {
        name,
        opened,
        store: opened.shared(),
        say,
    };
    let (stored, answers) = check.write(&keys).await;
    if let Some(key) = stored.last() {
        check.look(key).await;
        check.take_away(&stored).await;
    }
    if let OpenStore::S3(store) = opened
        && answers
    {
        check.circumstances(store).await;
    }
}

struct StoreCheck<'a> {
    name: &'a str,
    opened: &'a OpenStore,
    store: SharedStore,
    say: &'a mut dyn FnMut(Finding),
}

impl StoreCheck<'_> {
    /// As a backup does: a small object, as its manifest, and one in parts with checksums, completed
    /// on the condition that no object has the key. Returns what is there now, and whether there is
    /// a server that knows what it was asked for: nothing more is asked of any other.
    async fn write(&mut self, [small, joined]: &[String; 2]) -> (Vec<String>, bool) {
        let store = self.store.clone();
        let put = store.put(small, PROBE.into()).await;
        let answers = put.as_ref().err().is_none_or(|error| {
            matches!(self.opened, OpenStore::Folder(_)) || error.code().is_some()
        });
        let there = self.tried(&PUT, put, |_| store.address()).is_some();
        let mut stored: Vec<_> = there.then(|| small.clone()).into_iter().collect();
        if !answers {
            return (stored, false);
        }
        let begun = store.create_upload(joined, "check").await;
        if let Some(upload) = self.tried(&BEGIN, begun, |_| "works".into())
            && self.join(&upload).await
        {
            stored.push(joined.clone());
        }
        (stored, true)
    }

    async fn join(&mut self, upload: &Upload) -> bool {
        let store = self.store.clone();
        let checksum = checksum(&*store);
        let body = PartBody::from(Bytes::from_static(PROBE));
        let put = store.put_part(upload, 1, body, checksum).await;
        let joined = match self.tried(&PART, put, |_| "works".into()) {
            Some(receipt) => self.complete(upload, receipt, checksum).await,
            None => false,
        };
        if !joined {
            // The failure is what is told; an upload that stays is `cleanup`'s.
            let _ = store.abort_upload(upload).await;
        }
        joined
    }

    async fn complete(
        &mut self,
        upload: &Upload,
        receipt: PartReceipt,
        checksum: Option<Checksum>,
    ) -> bool {
        let done = self
            .store
            .complete_upload(upload, &[receipt], checksum)
            .await;
        self.tried(&COMPLETE, done, |written| {
            match (checksum, written.checksum) {
                (Some(_), None) => "works; the reply confirms no checksum".into(),
                (Some(_), Some(_)) => "works, the reply confirms the checksum".into(),
                (None, _) => "works, without a checksum (checksum = \"none\")".into(),
            }
        })
        .is_some()
    }

    /// As a restore and `verify` do.
    async fn look(&mut self, key: &str) {
        let head = self.head(key).await;
        self.tried(&HEAD, head, Clone::clone);
        let read = self.read(key).await;
        self.tried(&READ, read, |()| "works, a range too".into());
        let listed = list_all(&*self.store, key).await.and_then(|found| {
            if found.iter().any(|object| object.key == key) {
                Ok(())
            } else {
                Err(invalid("what was put a moment ago is not listed"))
            }
        });
        self.tried(&LIST, listed, |()| "works".into());
    }

    async fn head(&self, key: &str) -> Result<String, StoreError> {
        let found = self.store.head(key).await?;
        let info = found.ok_or_else(|| invalid("what was put a moment ago is not there"))?;
        if info.size != PROBE.len() as u64 {
            let (said, is) = (info.size, PROBE.len());
            return Err(invalid(format!(
                "{said} bytes are said of an object of {is}"
            )));
        }
        match (checksum(&*self.store), info.checksum) {
            (Some(sent), Some(said)) if sent != said => {
                let (said, sent) = (said.to_base64(), sent.to_base64());
                Err(invalid(format!("{said} is said for the checksum {sent}")))
            }
            (Some(_), None) => Ok("works; no checksum, so verify --quick has sizes alone".into()),
            _ => Ok("works".into()),
        }
    }

    /// A whole object, and a range of one.
    async fn read(&self, key: &str) -> Result<(), StoreError> {
        let whole = get_small(&*self.store, key, 2 * PROBE.len()).await?;
        let range = self.store.get(key, Some(2..5)).await?;
        let range: Vec<Bytes> = range.try_collect().await?;
        if whole != PROBE || range.concat() != PROBE[2..5] {
            return Err(invalid("what comes back is not what was put"));
        }
        Ok(())
    }

    /// As a backup that fails, `prune` and `cleanup` do.
    async fn take_away(&mut self, stored: &[String]) {
        let store = self.store.clone();
        // A backup that may only write was tried already.
        let key = check_key(&BackupId::now());
        if let Ok(upload) = store.create_upload(&key, "check").await {
            let seen = async {
                let open = list_all_uploads(&*store, &key).await?;
                store.upload_info(&key, &upload.id).await?;
                if open.iter().any(|open| open.id == upload.id) {
                    Ok(())
                } else {
                    Err(invalid("an upload that was begun is not listed"))
                }
            };
            let seen = seen.await;
            self.tried(&UPLOADS, seen, |()| "works".into());
            let aborted = store.abort_upload(&upload).await;
            self.tried(&ABORT, aborted, |()| "works".into());
        }
        let gone = async {
            for key in stored {
                store.delete(key).await?;
            }
            for key in stored {
                match list_all(&*store, key).await {
                    Ok(left) if left.is_empty() => {}
                    Ok(_) => return Err(invalid("what was deleted is still listed")),
                    // That was told.
                    Err(error) if error.kind() == ErrorKind::Denied => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        let gone = gone.await;
        self.tried(&DELETE, gone, |()| "works".into());
    }

    /// What the bucket and the server do that is to be known.
    async fn circumstances(&mut self, store: &S3Store) {
        let profile = store.profile();
        let consequences = profile.consequences();
        let detail = match (profile.name, consequences.is_empty()) {
            ("other", _) => "not known; what it cannot do is learned from its answers".into(),
            (name, true) => format!("{name}; nothing is done otherwise than with AWS"),
            (name, false) => format!("{name}; {}", consequences.join("; ")),
        };
        self.found("provider", Outcome::Ok, detail);
        if store.keeps_versions().await == Some(true) {
            let detail = "the bucket keeps versions: what prune and cleanup delete is hidden, and \
                          is free with --versions, or by a rule of the bucket for noncurrent versions";
            self.found("versions", Outcome::Warn, detail.into());
        }
        if let Some(days) = store.lock_days() {
            let (result, detail) = match store.locks_objects().await {
                Some(true) => (
                    Outcome::Ok,
                    format!("what a backup stores is locked for {days} days"),
                ),
                Some(false) => (
                    Outcome::Fail,
                    "object_lock is set, and the bucket was made without object lock: it refuses \
                     every backup"
                        .into(),
                ),
                None => (
                    Outcome::Warn,
                    "the bucket does not say whether it locks objects \
                     (s3:GetBucketObjectLockConfiguration)"
                        .into(),
                ),
            };
            self.found("lock", result, detail);
        }
        if store.limits().in_order {
            let detail = "the server takes parts in order: an archive of more than one part has \
                          two volumes";
            self.found("order", Outcome::Ok, detail.into());
        }
        let (result, detail) = match store.aborts_incomplete_uploads().await {
            Some(true) => (Outcome::Ok, "aborts incomplete uploads"),
            Some(false) => (
                Outcome::Warn,
                "no rule aborts incomplete uploads below this prefix; after a crash they cost money \
                 until they are aborted",
            ),
            None => (
                Outcome::Warn,
                "the bucket does not say whether incomplete uploads are aborted \
                 (s3:GetLifecycleConfiguration)",
            ),
        };
        self.found("lifecycle", result, detail.into());
    }

    /// Tells how a step went; what it gave, when it went well.
    fn tried<T>(
        &mut self,
        step: &Step,
        result: Result<T, StoreError>,
        words: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let Step {
            what,
            permission,
            without,
        } = step;
        let error = match result {
            Ok(given) => {
                let words = words(&given);
                self.found(what, Outcome::Ok, words);
                return Some(given);
            }
            Err(error) => error,
        };
        let (permission, is_known) = match self.opened {
            OpenStore::S3(_) => (*permission, !is_about_keys(&error)),
            OpenStore::Folder(_) => ("the right to read and write the folder", true),
        };
        let (result, detail) = match (without, error.kind()) {
            (Some(without), ErrorKind::Denied) => (
                Outcome::Warn,
                format!(
                    "these credentials may not, which takes {permission}: backups work, and \
                     {without}: {error}"
                ),
            ),
            // Who is not known is not told what it may not.
            (None, ErrorKind::Denied) if is_known => (
                Outcome::Fail,
                format!("no backup without it, which takes {permission}: {error}"),
            ),
            (Some(without), ErrorKind::Unsupported) => (
                Outcome::Warn,
                format!("the server cannot do it: backups work, and {without}: {error}"),
            ),
            _ => (Outcome::Fail, error.to_string()),
        };
        self.found(what, result, detail);
        None
    }

    fn found(&mut self, what: &'static str, result: Outcome, detail: String) {
        (self.say)(Finding {
            subject: format!("store {}", self.name),
            what,
            result,
            detail,
        });
    }
}

fn checksum(store: &dyn Store) -> Option<Checksum> {
    store.checksum_kind().map(|kind| Checksum::of(kind, PROBE))
}

fn invalid(why: impl Into<String>) -> StoreError {
    StoreError::new(ErrorKind::Invalid, why)
}
