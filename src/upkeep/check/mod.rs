//! Trying everything without dumping: tools, logins, what the inventory promises, and all that a
//! backup will ask of its store, so that it is found out now and not after ten hours.

mod store;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::UpkeepError;
use crate::access::{access, open_stores, signer};
use crate::config::{Database, EncryptionSettings, Inventory, LockFrom, Selection};
use crate::engine::{self, Engine};
use crate::run::prepare::PreparedJob;
use crate::run::{self, Plan};
use crate::signature::TrustedSigners;
use crate::store::SharedStore;
use crate::units::size;

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
    if let Some((result, detail)) = signs(inventory).await {
        say(Finding {
            subject: "signatures".into(),
            what: "sign",
            result,
            detail,
        });
    }
    let mut reached = Vec::new();
    for database in &databases {
        if check_database(inventory, database, say).await {
            reached.push(database.name.clone());
        }
    }
    let mut stores: Vec<_> = open_stores(inventory).await?.into_iter().collect();
    if !reached.is_empty() {
        let shared = stores.iter().map(|(name, store)| {
            let store: SharedStore = store.shared();
            (name.clone(), store)
        });
        let mut plan = Plan::new(inventory, shared.collect(), &[], own_binary())?;
        plan.entries.retain(|entry| reached.contains(&entry.name));
        check_plan(&plan, say).await;
    }
    stores.sort_by(|(a, _), (b, _)| a.cmp(b));
    stores.retain(|(name, _)| {
        names.is_empty() || databases.iter().any(|database| database.goes_to(name))
    });
    for (name, store) in &stores {
        store::check_store(name, store, say).await;
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
    if let Some(encryption) = &database.encryption {
        let (result, detail) = encrypted(encryption, inventory.run.connect_timeout).await;
        found("encryption", result, detail);
    }
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
    // As a backup finds it out, and says it of each.
    let lack = if database.strict {
        Outcome::Fail
    } else {
        Outcome::Warn
    };
    match engine.lacks().await {
        Ok(said) => said.into_iter().for_each(|said| found("dump", lack, said)),
        Err(error) => found("dump", Outcome::Fail, error.to_string()),
    }
    if let Selection::All { exclude } = &database.database {
        let (result, detail) = discovered(&*engine, exclude).await;
        found("databases", result, detail);
    }
    true
}

/// Whether manifests can be signed, and would be taken by whoever asks for the inventory's signers.
async fn signs(inventory: &Inventory) -> Option<(Outcome, String)> {
    let settings = &inventory.signatures;
    let signer = match signer(settings, inventory.run.connect_timeout).await {
        Ok(signer) => signer?,
        Err(error) => return Some((Outcome::Fail, error.to_string())),
    };
    let (text, name) = (b"tapline check", signer.public());
    let signature = match signer.sign(text, "tapline check") {
        Ok(signature) => signature,
        Err(why) => return Some((Outcome::Fail, why)),
    };
    let itself = TrustedSigners(vec![name.clone()]);
    Some(match itself.check(text, signature.as_bytes()) {
        Err(why) => (Outcome::Fail, why),
        Ok(()) if settings.trusted.is_empty() => (
            Outcome::Warn,
            format!("works, and nobody asks for it: add trusted_signers = [\"{name}\"]"),
        ),
        Ok(()) if !settings.trusted.0.contains(name) => (
            Outcome::Warn,
            format!("works, and {name} is none of trusted_signers: its backups are refused"),
        ),
        Ok(()) => (Outcome::Ok, format!("works, as {name}")),
    })
}

/// Whether a key can be wrapped to each of those who are to read the backups.
async fn encrypted(encryption: &EncryptionSettings, limit: Duration) -> (Outcome, String) {
    let lock = match encryption.lock(limit).await {
        Ok(lock) => lock,
        Err(error) => return (Outcome::Fail, error.to_string()),
    };
    match tokio::task::spawn_blocking(move || lock.try_all()).await {
        Ok(Ok(tried)) => match (&encryption.lock, tried.as_slice()) {
            (LockFrom::Recipients(_), [one]) => (
                Outcome::Warn,
                format!(
                    "works for {one}, and for nobody else: whoever loses that key loses the \
                     backups; name a second one, kept elsewhere"
                ),
            ),
            (_, tried) => (Outcome::Ok, format!("works for {}", tried.join(", "))),
        },
        Ok(Err(why)) => (Outcome::Fail, why),
        Err(error) => (Outcome::Fail, error.to_string()),
    }
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
