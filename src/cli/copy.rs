//! `tapline copy`: a backup into a second store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::args::CopyOptions;
use super::exit::{Exit, Failure};
use super::{Session, console, text};
use crate::access::open_patient_stores;
use crate::catalog::{BackupName, look_up};
use crate::config::Inventory;
use crate::job::{Destination, Interruption};
use crate::restore::RestoreError;
use crate::store::SharedStore;
use crate::store::retry::Hurry;
use crate::upkeep::copy::{
    CopyError, CopyOutcome, SIGN_OF_LIFE_AFTER, copy as copy_one, missing, original,
};
use crate::upkeep::stored;

pub(super) async fn copy(session: &mut Session, options: &CopyOptions) -> Result<Exit, Failure> {
    let inventory = session.inventory()?;
    if options.store.as_ref() == Some(&options.to) {
        let why = format!("--store and --to are both {}", options.to);
        return Err(Failure::new(Exit::Usage, why));
    }
    if let (true, Some(BackupName { id: Some(_), .. })) = (options.all, &options.name) {
        return Err(Failure::new(
            Exit::Usage,
            "--all goes with NAME, and not with NAME@ID",
        ));
    }
    let work = async {
        let mut to = open_patient_stores(&inventory, Some(&options.to)).await?;
        let store = to
            .remove(&options.to)
            .ok_or_else(|| Failure::new(Exit::Config, format!("{} is not open", options.to)))?;
        let mut from = open_patient_stores(&inventory, options.store.as_deref()).await?;
        from.remove(&options.to);
        if from.is_empty() {
            let why = format!("the inventory has no store but {} to copy from", options.to);
            return Err(Failure::new(Exit::Config, why));
        }
        let names = if options.all {
            let name = options.name.as_ref().map(|name| name.database.as_str());
            missing(&inventory, &from, (&options.to, &store), name).await?
        } else {
            options.name.iter().cloned().collect()
        };
        Ok((store, from, names))
    };
    let (store, from, names) = session.signals.unless(work).await?;
    if names.is_empty() && !options.json {
        console::remark(&format!("{} lacks nothing\n", store.address()));
    }
    let (mut copies, mut failures) = (Vec::new(), Vec::new());
    for name in &names {
        match copy_backup(session, options, &inventory, (&from, &store), name).await {
            Ok(copy) => copies.push(copy),
            // The others are copied all the same.
            Err(failure) => {
                let is_end = failure.exit.is_by_signal();
                failures.push((name, failure));
                if is_end {
                    break;
                }
            }
        }
    }
    if options.json {
        let failed = failures.iter().map(|(name, failure)| {
            json!({ "name": name.to_string(), "result": "failed", "failure": failure.fields() })
        });
        copies.extend(failed);
        console::out(&text::json(&json!({ "version": 1, "copies": copies })));
    }
    if let [.., (_, last)] = &failures[..]
        && (names.len() == 1 || last.exit.is_by_signal())
        && let Some((_, failure)) = failures.pop()
    {
        return Err(failure);
    }
    for (_, failure) in &failures {
        console::error(failure);
    }
    Ok(Exit::of_all(
        failures.iter().map(|(_, failure)| failure.exit),
    ))
}

async fn copy_backup(
    session: &mut Session,
    options: &CopyOptions,
    inventory: &Inventory,
    (from, store): (&BTreeMap<String, SharedStore>, &SharedStore),
    name: &BackupName,
) -> Result<Value, Failure> {
    let work = async {
        let copies = inventory.stores_of(&name.database);
        let named = look_up(from, copies, name, &inventory.signatures.trusted).await?;
        let from = named.store.address();
        let stored = stored(named.store, named.manifest, &inventory.run, Arc::default());
        let trusted = &inventory.signatures.trusted;
        Ok((from, original(stored, trusted).await?))
    };
    let (from, original) = session.signals.unless(work).await?;
    let manifest = &original.stored.manifest;
    let name = BackupName {
        database: manifest.database.clone(),
        id: Some(manifest.backup_id.clone()),
    };
    let to = Destination {
        store: store.clone(),
        store_name: options.to.clone(),
        database: manifest.database.clone(),
        meter: Arc::default(),
        sign_of_life_after: SIGN_OF_LIFE_AFTER,
        patience: Duration::MAX,
        hurry: Hurry::default(),
    };
    let (interruption, display, start) = (
        Interruption::default(),
        session.display.clone(),
        Instant::now(),
    );
    let (cancel, commits) = (interruption.cancel.clone(), interruption.commits.clone());
    let work = async {
        tokio::select! {
            copied = copy_one(&original, &to, &interruption) => copied,
            () = display.show_read(&name, &original.stored, !options.no_progress) => {
                unreachable!("progress is shown until the copy is over")
            }
        }
    };
    let (copied, interrupted) = session
        .signals
        .tidy(
            &display,
            "aborting uploads",
            &cancel,
            || !commits.is_empty(),
            work,
        )
        .await?;
    display.clear();
    let address = store.address();
    let (size, seconds) = (manifest.archive.size, start.elapsed().as_secs_f64());
    let done = |result, words: &str| {
        if !options.json {
            console::remark(words);
        }
        json!({ "name": name.to_string(), "result": result, "from": from,
            "to": address, "bytes": size, "seconds": seconds })
    };
    let error = match copied {
        Ok(CopyOutcome::AlreadyThere) => {
            return Ok(done("there", &format!("{name} is in {address} already\n")));
        }
        Ok(CopyOutcome::Copied) => {
            let words = format!(
                "{name} copied from {from} to {address}: {} in {}, {} MB/s; digests are right\n",
                text::size(size),
                text::time(seconds),
                text::rate(size, seconds)
            );
            return Ok(done("copied", &words));
        }
        Err(error) => error,
    };
    let exit = match (&error, interrupted) {
        (_, Some(exit)) => exit,
        (CopyError::Original { error, .. }, None) => match error {
            RestoreError::Damaged(_) => Exit::Check,
            RestoreError::Store(_) => Exit::Store,
            _ => Exit::Failed,
        },
        (CopyError::InTheWay(_), None) => Exit::Failed,
        (CopyError::Failed(failure), None) => Exit::of_job(failure.kind),
    };
    Err(Failure::new(exit, format!("{name} was not copied to {address}: {error}")).step("copy"))
}
