//! From the file as written to the model. Every error names file, line, key, and the fix.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::entry::database;
use super::notify::notify;
use super::place::{File, MOST_MEMORY, Result};
use super::store::{keys_fit, place_of, rules};
use super::{
    ConfigError, Container, Database, Inventory, RunSettings, Selection, SignatureSettings,
    StagedSettings, StoreSettings, raw, store,
};
use crate::catalog::Mode;
use crate::signature::TrustedSigners;

pub(super) fn inventory(path: &Path, text: &str, raw: &raw::Inventory) -> Result<Inventory> {
    let file = File::new(path, text);
    let run = run(&file, &raw.run)?;
    let staged = staged(&file, &raw.staged)?;
    let notify = notify(&file, &raw.notify)?;
    let hooks = super::hooks::hooks(&file, &raw.hooks)?;
    let serve = super::serve::serve(&file, &raw.serve)?;
    let stores: BTreeMap<String, Arc<StoreSettings>> = raw
        .stores
        .iter()
        .map(|(name, store)| {
            Ok((
                name.get_ref().clone(),
                Arc::new(store::store(&file, name, store)?),
            ))
        })
        .collect::<Result<_>>()?;
    let mut store_rules = BTreeMap::new();
    for (name, store) in &raw.stores {
        if let Some(rules) = rules(&file, name, store)? {
            store_rules.insert(name.get_ref().clone(), rules);
        }
    }
    let mut entries: Vec<_> = raw.databases.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let databases = entries
        .iter()
        .map(|(name, entry)| database(&file, name, entry, &raw.defaults, &stores))
        .collect::<Result<Vec<_>>>()?;
    // A database that `*` finds is called NAME/DATABASE; two databases must not share their
    // backups.
    for all in databases
        .iter()
        .filter(|all| matches!(all.database, Selection::All { .. }))
    {
        if let Some(same) = databases
            .iter()
            .find(|other| other.name != all.name && all.covers(&other.name))
        {
            let why = format!(
                "is also the name of a database that {} stands for; rename one of the two",
                all.name
            );
            return Err(ConfigError(format!("{} {why}", same.place)));
        }
    }
    // Two names of one place would show every backup twice, and prune it by two policies.
    for (name, settings) in &stores {
        if let Some((other, _)) = stores
            .iter()
            .take_while(|(other, _)| *other != name)
            .find(|(_, other)| place_of(other) == place_of(settings))
        {
            let span = raw.stores.iter().find(|(key, _)| key.get_ref() == name);
            let span = span.map_or(0..0, |(key, _)| key.span());
            let why = format!("is the same place as stores.{other}; remove one of the two");
            return file.wrong(&span, &format!("stores.{name}"), why);
        }
    }
    for (entry, (key, _)) in databases.iter().zip(&entries) {
        keys_fit(&file, &key.span(), entry, &stores)?;
    }
    let has_rule = |entry: &Database| {
        let in_store = |store| store_rules.contains_key(store);
        !entry.retention.is_empty() || entry.stores.iter().any(in_store)
    };
    if run.prune_after_backup && !databases.iter().any(has_rule) {
        let why = "prune_after_backup needs a rule, such as keep_daily = 14 under [defaults]";
        return Err(ConfigError(format!("{}: run: {why}", path.display())));
    }
    Ok(Inventory {
        path: path.to_owned(),
        run,
        staged,
        notify,
        signatures: signatures(&file, &raw.signatures)?,
        hooks,
        serve,
        warnings: locked_too_long(&stores, &store_rules, &databases),
        stores,
        store_rules,
        databases,
    })
}

/// What no rule keeps and a lock does cannot be pruned, and costs money.
fn locked_too_long(
    stores: &BTreeMap<String, Arc<StoreSettings>>,
    store_rules: &BTreeMap<String, crate::catalog::Retention>,
    databases: &[Database],
) -> Vec<String> {
    let too_long = |entry: &Database, store: &String| {
        let StoreSettings::S3 { s3, .. } = &**stores.get(store)? else {
            return None;
        };
        let rules = store_rules.get(store).unwrap_or(&entry.retention);
        let (locked, kept) = (s3.lock?.days, rules.longest_days()?);
        let name = &entry.name;
        (locked > kept).then(|| {
            format!(
                "databases.{name}: its rules keep a backup for {kept} days at most, and \
                 object_lock of stores.{store} for {locked}: until then it cannot be pruned"
            )
        })
    };
    let pairs = databases
        .iter()
        .flat_map(|entry| entry.stores.iter().map(move |store| (entry, store)));
    pairs
        .filter_map(|(entry, store)| too_long(entry, store))
        .collect()
}

fn signatures(file: &File, raw: &raw::Signatures) -> Result<SignatureSettings> {
    let sign_with = raw.sign_with.as_ref();
    let sign_with = sign_with.map(|secret| file.secret(secret, "signatures.sign_with"));
    let trusted = raw.trusted_signers.iter().flatten().map(|name| {
        let parsed = name.get_ref().parse();
        parsed.or_else(|why| file.wrong(&name.span(), "signatures.trusted_signers", why))
    });
    Ok(SignatureSettings {
        sign_with: sign_with.transpose()?,
        trusted: TrustedSigners(trusted.collect::<Result<_>>()?),
    })
}

fn run(file: &File, raw: &raw::Run) -> Result<RunSettings> {
    let duration = |value: &Option<Spanned<String>>, key: &str, default: u64| {
        file.duration(value.as_ref(), key)
            .map(|given| given.unwrap_or(Duration::from_secs(default)))
    };
    let mode = match &raw.mode {
        None => Mode::Streamed,
        Some(mode) => match mode.get_ref().as_str() {
            "streamed" => Mode::Streamed,
            "staged" => Mode::Staged,
            _ => {
                return file.wrong(
                    &mode.span(),
                    "run.mode",
                    "must be \"streamed\" or \"staged\"",
                );
            }
        },
    };
    Ok(RunSettings {
        mode,
        jobs: file.count(raw.jobs.as_ref(), "run.jobs", 4)?,
        jobs_per_host: file.count(raw.jobs_per_host.as_ref(), "run.jobs_per_host", 2)?,
        memory: memory(file, raw.memory.as_ref())?,
        retry_for: duration(&raw.retry_for, "run.retry_for", 15 * 60)?,
        wait_for_store: wait_for_store(file, raw.wait_for_store.as_ref())?,
        stall_timeout: file.duration(raw.stall_timeout.as_ref(), "run.stall_timeout")?,
        exit_timeout: duration(&raw.exit_timeout, "run.exit_timeout", 60)?,
        connect_timeout: duration(&raw.connect_timeout, "run.connect_timeout", 15)?,
        prune_after_backup: raw.prune_after_backup.unwrap_or_default(),
        max_upload_rate: file.rate(raw.max_upload_rate.as_ref(), "run.max_upload_rate")?,
    })
}

/// Less than a second is shorter than what a good store takes now and then.
fn wait_for_store(file: &File, value: Option<&Spanned<String>>) -> Result<Duration> {
    let key = "run.wait_for_store";
    match (file.duration(value, key)?, value) {
        (Some(wait), Some(value)) if wait < Duration::from_secs(1) => {
            file.wrong(&value.span(), key, "must be a second or more")
        }
        (wait, _) => Ok(wait.unwrap_or(Duration::from_mins(5))),
    }
}

fn memory(file: &File, value: Option<&Spanned<raw::Size>>) -> Result<Option<u64>> {
    let size = file.size(value, "run.memory")?;
    match (size, value) {
        (Some(size), Some(value)) if size > MOST_MEMORY => file.wrong(
            &value.span(),
            "run.memory",
            "is more than there is; at most 1PiB",
        ),
        _ => Ok(size),
    }
}

fn staged(file: &File, raw: &raw::Staged) -> Result<StagedSettings> {
    let container = match &raw.container {
        None => Container::Tar,
        Some(container) => match container.get_ref().as_str() {
            "tar" => Container::Tar,
            "zip" => Container::Zip,
            _ => {
                return file.wrong(
                    &container.span(),
                    "staged.container",
                    "must be \"tar\" or \"zip\"",
                );
            }
        },
    };
    let count = |value: &Option<Spanned<usize>>, key: &str, default| {
        file.count(value.as_ref(), &format!("staged.{key}"), default)
    };
    Ok(StagedSettings {
        dir: raw
            .dir
            .as_ref()
            .map_or_else(std::env::temp_dir, |dir| file.relative(dir)),
        dump: count(&raw.dump, "dump", 1)?,
        archive: count(&raw.archive, "archive", 1)?,
        upload: count(&raw.upload, "upload", 1)?,
        queue: count(&raw.queue, "queue", 8)?,
        parallel: count(
            &raw.parallel,
            "parallel",
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        )?,
        container,
    })
}

#[cfg(test)]
mod tests;
