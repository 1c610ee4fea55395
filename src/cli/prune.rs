//! `tapline prune`: shows what each rule keeps, and removes the rest when that is confirmed.

use std::collections::BTreeSet;
use std::path::Path;

use super::args::PruneOptions;
use super::exit::{Exit, Failure};
use super::text;
use crate::catalog::{self, Found, Retention};
use crate::config::{ConfigError, Inventory};
use crate::run::plan::open_patient_stores;
use crate::store::SharedStore;
use crate::upkeep::prune::{Considered, Verdict, consider, remove};

pub(super) async fn prune(config: &Path, options: &PruneOptions) -> Result<Exit, Failure> {
    let inventory = Inventory::load(config)?;
    let given = options.rules.policy();
    if given.is_none() && !options.names.is_empty() {
        inventory
            .select(&options.names)
            .map_err(|ConfigError(error)| {
                ConfigError(format!(
                    "{error}; what is in the store alone is pruned by rules such as --keep-last 3"
                ))
            })?;
    }
    let mut planned: Vec<(SharedStore, Vec<Considered>)> = Vec::new();
    let (mut strangers, mut without_policy, mut seen) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (called, store) in open_patient_stores(&inventory, options.store.as_deref()).await? {
        let found = catalog::find(&*store, None).await?;
        let committed: Vec<Found> = found.into_iter().filter(Found::is_committed).collect();
        let mut considered = Vec::new();
        for of_one in committed.chunk_by(|a, b| a.database == b.database) {
            let database = &of_one[0].database;
            seen.insert(database.clone());
            match policy(&inventory, &called, database, options, given) {
                Policy::Is(policy) if policy.is_empty() => {
                    without_policy.insert(database.clone());
                }
                Policy::Is(policy) => {
                    considered.extend(consider(&*store, &policy, of_one.to_vec()).await?);
                }
                Policy::Stranger => {
                    strangers.insert(database.clone());
                }
                Policy::NotNamed => {}
            }
        }
        planned.push((store, considered));
    }
    let known = |name: &String| seen.contains(name) || inventory.entry(name).is_some();
    if let Some(name) = options.names.iter().find(|name| !known(name)) {
        return Err(Failure::new(
            Exit::NoBackup,
            format!("there are no backups of {name:?}; `tapline list` shows all"),
        ));
    }
    show(planned.iter().flat_map(|(_, considered)| considered));
    mention("not in the inventory, left alone", &strangers);
    mention("without a keep_… rule, left alone", &without_policy);
    let doomed = || {
        let all = planned.iter().flat_map(|(_, considered)| considered);
        all.filter(|considered| considered.verdict == Verdict::Remove)
    };
    let all: usize = planned.iter().map(|(_, considered)| considered.len()).sum();
    let bytes = text::size(doomed().map(|doomed| doomed.found.size()).sum());
    if !options.confirm {
        text::out(&format!(
            "{} of {all} backups would go, {bytes}\n",
            doomed().count()
        ));
        text::out("dry run: nothing was removed; add --confirm\n");
        return Ok(Exit::Good);
    }
    let (mut backups, mut bytes, mut failures) = (0, 0, Vec::new());
    for (store, considered) in &planned {
        let removed = remove(&**store, considered).await;
        backups += removed.backups;
        bytes += removed.bytes;
        failures.extend(removed.failures);
    }
    text::out(&format!(
        "{backups} of {all} backups removed, {}\n",
        text::size(bytes)
    ));
    for failure in &failures {
        eprintln!("tapline: {failure}");
    }
    Ok(if failures.is_empty() {
        Exit::Good
    } else {
        Exit::Failed
    })
}

/// How a database in a store is to be treated.
enum Policy {
    /// By this policy.
    Is(Retention),
    /// It is neither in the inventory nor named.
    Stranger,
    /// Others are named.
    NotNamed,
}

fn policy(
    inventory: &Inventory,
    store: &str,
    database: &String,
    options: &PruneOptions,
    given: Option<Retention>,
) -> Policy {
    // What a database of the inventory has in another store than its own is as strange as the rest.
    let entry = inventory
        .entry(database)
        .filter(|entry| entry.store == store);
    let named = |name: &String| name == database || entry.is_some_and(|entry| entry.name == *name);
    match (options.names.iter().any(named), given, entry) {
        (false, _, _) if !options.names.is_empty() => Policy::NotNamed,
        (true, Some(given), _) | (false, Some(given), Some(_)) => Policy::Is(given),
        (_, None, Some(entry)) => Policy::Is(entry.retention),
        (_, _, None) => Policy::Stranger,
    }
}

fn show<'a>(considered: impl Iterator<Item = &'a Considered>) {
    let rows = considered.map(
        |Considered {
             found,
             archive,
             verdict,
         }| {
            let kept_by = match verdict {
                Verdict::Keep(rules) => rules
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
                Verdict::Remove => "remove".into(),
                Verdict::Broken(how) => {
                    format!("broken: {how}; look at it with `tapline verify`, delete it by hand")
                }
            };
            let archive = archive.map_or("?".into(), text::size);
            [
                found.database.clone(),
                found.id.to_string(),
                text::begun(&found.id),
                archive,
                kept_by,
            ]
        },
    );
    let mut rows = rows.peekable();
    if rows.peek().is_some() {
        text::out(&text::table(
            ["DATABASE", "BACKUP", "BEGUN (UTC)", "ARCHIVE", "KEPT BY"],
            rows,
        ));
        text::out("\n");
    }
}

fn mention(what: &str, names: &BTreeSet<String>) {
    if !names.is_empty() {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        text::out(&format!("{what}: {}\n", names.join(", ")));
    }
}
