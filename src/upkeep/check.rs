//! Trying everything without dumping: tools, logins, what the inventory promises, and all that a
//! backup will ask of its store, so that it is found out now and not after ten hours.

use std::path::PathBuf;

use bytes::Bytes;
use serde::Serialize;

use super::UpkeepError;
use crate::access::{access, open_stores};
use crate::catalog::{BackupId, check_key};
use crate::config::{Database, Inventory, Selection};
use crate::engine::{self, Engine};
use crate::run::prepare::PreparedJob;
use crate::run::{self, Plan};
use crate::store::s3::S3Store;
use crate::store::{Checksum, ErrorKind, PartBody, SharedStore, Store, StoreError, get_small};
use crate::units::size;

/// What is put into a store and taken away again.
const PROBE: &[u8] = b"tapline check";

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Of what: `database shop`, `store main`.
    pub subject: String,
    /// What: `tool`, `login`, `put`.
    pub what: &'static str,
    /// How it went.
    pub result: Outcome,
    /// What was found, or why it does not work.
    pub detail: String,
}

/// How something that was tried went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It works.
    Ok,
    /// Backups will work, something else may not.
    Warn,
    /// Backups will fail.
    Fail,
}

/// Tries the databases called `names` (all when empty) and the stores that they go to (all when
/// empty), and says each finding as it is made.
///
/// # Errors
/// When the inventory has no such database, or a store's secret is missing.
pub async fn check(
    inventory: &Inventory,
    names: &[String],
    say: &mut dyn FnMut(Finding),
) -> Result<(), UpkeepError> {
    let databases = inventory.select(names)?;
    let mut reached = Vec::new();
    for database in &databases {
        if check_database(inventory, database, say).await {
            reached.push(database.name.clone());
        }
    }
    let mut stores: Vec<_> = open_stores(inventory).await?.into_iter().collect();
    if !reached.is_empty() {
        let shared = stores.iter().map(|(name, store)| {
            let store: SharedStore = store.clone();
            (name.clone(), store)
        });
        let mut plan = Plan::new(inventory, shared.collect(), &[], own_binary())?;
        plan.entries.retain(|entry| reached.contains(&entry.name));
        check_plan(&plan, say).await;
    }
    stores.sort_by(|(a, _), (b, _)| a.cmp(b));
    stores.retain(|(name, _)| {
        names.is_empty() || databases.iter().any(|database| database.store == *name)
    });
    for (name, store) in &stores {
        StoreCheck { name, store, say }.run().await;
    }
    Ok(())
}

fn own_binary() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| "tapline".into())
}

/// Prepares every job of a run as the run itself does: its options, its memory.
async fn check_plan(plan: &Plan, say: &mut dyn FnMut(Finding)) {
    for (entry, prepared) in run::dry_run(plan).await {
        let (result, detail) = match prepared {
            Ok(PreparedJob { job, .. }) => {
                let layout = &job.layout;
                let expected = layout.expected.map_or("unknown".into(), size);
                let memory = size(layout.memory);
                (Outcome::Ok, format!("dump {expected}, memory {memory}"))
            }
            Err(error) => (Outcome::Fail, error.to_string()),
        };
        say(Finding {
            subject: format!("database {}", entry.name),
            what: "plan",
            result,
            detail,
        });
    }
}

/// Tries the tool and the login; whether the server can be asked for more.
async fn check_database(
    inventory: &Inventory,
    database: &Database,
    say: &mut dyn FnMut(Finding),
) -> bool {
    let mut found = |what, result, detail| {
        say(Finding {
            subject: format!("database {}", database.name),
            what,
            result,
            detail,
        });
    };
    let engine = match access(database, &inventory.run, own_binary()).await {
        Ok(access) => engine::open(database, access),
        Err(error) => {
            found("secrets", Outcome::Fail, error.to_string());
            return false;
        }
    };
    match engine.version().await {
        Ok(version) => found("tool", Outcome::Ok, version),
        // The plan would say the same once more.
        Err(error) => {
            found("tool", Outcome::Fail, error.to_string());
            return false;
        }
    }
    match engine.check_login().await {
        Ok(()) => found("login", Outcome::Ok, "works".into()),
        // What follows asks the server, too, and would say the same once more.
        Err(error) => {
            found("login", Outcome::Fail, error.to_string());
            return false;
        }
    }
    match engine.check_dump().await {
        Ok(said) => {
            for said in said {
                found("dump", Outcome::Warn, said);
            }
        }
        Err(error) => found("dump", Outcome::Fail, error.to_string()),
    }
    if let Selection::All { exclude } = &database.database {
        let (result, detail) = discovered(&*engine, exclude).await;
        found("databases", result, detail);
    }
    true
}

/// What `database = "*"` stands for, and whether each pattern of `exclude` means something.
async fn discovered(engine: &dyn Engine, exclude: &[String]) -> (Outcome, String) {
    let known = match engine.discover().await {
        Ok(known) => known.unwrap_or_default(),
        Err(error) => return (Outcome::Fail, format!("cannot list the databases: {error}")),
    };
    let matches = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    };
    let left = known
        .iter()
        .filter(|name| !exclude.iter().any(|pattern| matches(pattern, name)));
    let left: Vec<&str> = left.map(String::as_str).collect();
    if left.is_empty() {
        return (Outcome::Fail, "`exclude` leaves none of them".into());
    }
    let idle: Vec<&str> = exclude
        .iter()
        .filter(|pattern| !known.iter().any(|name| matches(pattern, name)))
        .map(String::as_str)
        .collect();
    let found = format!("{} of {}: {}", left.len(), known.len(), left.join(", "));
    if idle.is_empty() {
        (Outcome::Ok, found)
    } else {
        let idle = idle.join("\", \"");
        (
            Outcome::Warn,
            format!("{found}; `exclude` has \"{idle}\", which fits none"),
        )
    }
}

/// Everything that a backup asks of its store, and then what the other commands do, under keys that
/// no backup has.
struct StoreCheck<'a> {
    name: &'a str,
    store: &'a S3Store,
    say: &'a mut dyn FnMut(Finding),
}

impl StoreCheck<'_> {
    async fn run(mut self) {
        let store = self.store;
        let (put, joined) = (check_key(&BackupId::now()), check_key(&BackupId::now()));
        let address = store.address();
        let there = self.needed("put", store.put(&put, PROBE.into()).await.map(|_| address));
        let uploaded = self.needed("multipart upload", self.upload(&joined).await);
        if there || uploaded {
            let key = if uploaded { &joined } else { &put };
            self.wanted("head", self.head(key).await);
            self.wanted("read", self.read(key).await);
        }
        let listed = store.list(&put, None).await;
        self.wanted("list", listed.map(|_| "works".into()));
        for key in [(there, &put), (uploaded, &joined)] {
            if let (true, key) = key
                && !self.wanted("delete", store.delete(key).await.map(|()| "works".into()))
            {
                break;
            }
        }
        let (result, detail) = match store.aborts_incomplete_uploads().await {
            Some(true) => (Outcome::Ok, "aborts incomplete uploads"),
            Some(false) => (
                Outcome::Warn,
                "no rule aborts incomplete uploads; after a crash they cost money until they are aborted",
            ),
            None => (
                Outcome::Warn,
                "the bucket does not say whether incomplete uploads are aborted",
            ),
        };
        self.found("lifecycle", result, detail.into());
    }

    /// One whole upload of one part, as a backup makes it: begun, with checksums, completed on the
    /// condition that no object has the key.
    async fn upload(&self, key: &str) -> Result<String, StoreError> {
        let store = self.store;
        let checksum = store.checksum_kind().map(|kind| Checksum::of(kind, PROBE));
        let upload = store.create_upload(key, "check").await?;
        let completed = async {
            let body = PartBody::from(Bytes::from_static(PROBE));
            let receipt = store.put_part(&upload, 1, body, checksum).await?;
            store.complete_upload(&upload, &[receipt], checksum).await
        };
        match completed.await {
            Ok(_) => Ok("begins, takes a part, completes".into()),
            Err(error) => {
                // The failure is what is told; an upload that stays is `cleanup`'s.
                let _ = store.abort_upload(&upload).await;
                Err(error)
            }
        }
    }

    async fn head(&self, key: &str) -> Result<String, StoreError> {
        match self.store.head(key).await? {
            Some(info) if info.size == PROBE.len() as u64 => Ok("works".into()),
            Some(info) => Err(invalid(format!(
                "the store says {} bytes of an object of {}",
                info.size,
                PROBE.len()
            ))),
            None => Err(invalid("what was put a moment ago is not there".into())),
        }
    }

    /// A whole object, and a range of one, as a restore reads.
    async fn read(&self, key: &str) -> Result<String, StoreError> {
        use futures_util::TryStreamExt;
        let whole = get_small(self.store, key, 2 * PROBE.len()).await?;
        let range = self.store.get(key, Some(2..5)).await?;
        let range: Vec<Bytes> = range.try_collect().await?;
        if whole != PROBE || range.concat() != PROBE[2..5] {
            return Err(invalid("what comes back is not what was put".into()));
        }
        Ok("works, a range too".into())
    }

    /// Without this there is no backup.
    fn needed(&mut self, what: &'static str, result: Result<String, StoreError>) -> bool {
        let good = result.is_ok();
        match result {
            Ok(detail) => self.found(what, Outcome::Ok, detail),
            Err(error) => self.found(what, Outcome::Fail, error.to_string()),
        }
        good
    }

    /// A key that may not do this can still make backups: one that may only write is a usual
    /// protection.
    fn wanted(&mut self, what: &'static str, result: Result<String, StoreError>) -> bool {
        match result {
            Err(error) if error.kind() == ErrorKind::Denied => {
                let detail = format!(
                    "these credentials may not; backups work, other commands need it: {error}"
                );
                self.found(what, Outcome::Warn, detail);
                false
            }
            result => self.needed(what, result),
        }
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

fn invalid(why: String) -> StoreError {
    StoreError::new(ErrorKind::Invalid, why)
}
