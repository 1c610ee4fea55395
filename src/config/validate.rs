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
    let file = File { path, text };
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
        stores,
        store_rules,
        databases,
        warnings: Vec::new(),
    })
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
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::catalog::Retention;

    const STORE: &str = "[stores.s]\nurl = \"s3://bucket/p\"\n";

    fn error(text: &str) -> String {
        Inventory::parse(Path::new("t.toml"), text)
            .expect_err(text)
            .to_string()
    }

    #[test]
    fn the_template_is_a_valid_inventory() {
        let inventory =
            Inventory::parse(Path::new("tapline.toml"), super::super::TEMPLATE).unwrap();
        assert!(!inventory.databases.is_empty());
    }

    #[test]
    fn defaults_are_overridden_and_what_does_not_fit_an_engine_is_left_out_of_them() {
        let text = format!(
            "{STORE}[defaults]\nengine = \"postgres\"\nhost = \"h\"\npassword = {{ env = \"P\" }}\nlevel = 9\n\
             [databases.b]\nlevel = 1\n[databases.a]\nengine = \"sqlite\"\npath = \"x.db\"\n[databases.c]\ndatabase = \"*\"\n"
        );
        let inventory = Inventory::parse(Path::new("/etc/t.toml"), &text).unwrap();
        let [b, a, c] = inventory.databases.as_slice() else {
            panic!("three, in the file's order")
        };
        assert_eq!(
            (b.name.as_str(), b.level, b.host.as_deref()),
            ("b", 1, Some("h"))
        );
        assert_eq!(
            (a.level, a.host.as_deref(), a.password.clone()),
            (9, None, None)
        );
        assert_eq!(a.path.as_deref(), Some(Path::new("/etc/x.db")));
        assert_eq!(
            c.database,
            Selection::All {
                exclude: Vec::new()
            }
        );
        assert_eq!(inventory.select(&["c/shop".into()]).unwrap().len(), 1);
        assert!(
            inventory
                .select(&["nope".into()])
                .unwrap_err()
                .to_string()
                .contains("b, a, c")
        );
    }

    #[test]
    fn each_retention_rule_has_its_own_default() {
        let text = format!(
            "{STORE}[defaults]\nengine = \"sqlite\"\npath = \"x\"\nkeep_last = 3\nkeep_within = \"1y 6mo\"\n\
             [databases.a]\nkeep_daily = 7\n[databases.b]\nkeep_last = 9\n"
        );
        let inventory = Inventory::parse(Path::new("t.toml"), &text).unwrap();
        let [a, b] = inventory.databases.as_slice() else {
            panic!("two")
        };
        let within = "1y 6mo".parse().ok();
        let defaults = Retention {
            last: NonZeroU32::new(3),
            within,
            ..Retention::default()
        };
        assert_eq!(
            a.retention,
            Retention {
                daily: NonZeroU32::new(7),
                ..defaults
            }
        );
        assert_eq!(
            b.retention,
            Retention {
                last: NonZeroU32::new(9),
                ..defaults
            }
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_key_and_fix() {
        let sqlite = "[databases.x]\nengine = \"sqlite\"\npath = \"x\"\n";
        let cases = [
            (
                format!("{STORE}{sqlite}passwrod = \"secret\"\n"),
                "t.toml:6: databases.x.passwrod",
                "`password`",
            ),
            (
                format!("{STORE}{sqlite}host = \"h\"\n"),
                "t.toml:6: databases.x.host",
                "remove it",
            ),
            (
                format!("{STORE}{sqlite}level = 40\n"),
                "t.toml:6: databases.x.level",
                "1 to 9",
            ),
            (
                format!("{STORE}{sqlite}expected_size = \"much\"\n"),
                "t.toml:6: databases.x.expected_size",
                "512MiB",
            ),
            (
                format!("{STORE}{sqlite}{sqlite}"),
                "t.toml:6:",
                "stands twice",
            ),
            (
                format!("{STORE}{sqlite}store = \"t\"\n"),
                "t.toml:6: databases.x.store",
                "there are: s",
            ),
            (
                format!("{STORE}{sqlite}compression = \"xz\"\n"),
                "t.toml:6: databases.x.compression",
                "zstd",
            ),
            (
                format!("{STORE}{sqlite}keep_daily = 0\n"),
                "t.toml:6: databases.x.keep_daily",
                "leave it out",
            ),
            (
                format!("{STORE}{sqlite}keep_within = \"6m\"\n"),
                "t.toml:6: databases.x.keep_within",
                "months are mo",
            ),
            (
                format!("{STORE}{sqlite}file_name = \"a/b\"\n"),
                "t.toml:6: databases.x.file_name",
                "slash",
            ),
            (
                format!("{STORE}[databases.x]\nengine = \"oracle\"\n"),
                "t.toml:4: databases.x.engine",
                "postgres",
            ),
            (
                format!("{STORE}[databases.x]\n"),
                "t.toml:3: databases.x",
                "engine is missing",
            ),
            (
                format!("{STORE}[databases.x]\nengine = \"command\"\n"),
                "t.toml:3: databases.x",
                "command is missing",
            ),
            (
                format!("{STORE}[databases.x]\nengine = \"mysql\"\npassword = \"secret\"\n"),
                "t.toml:5: databases.x.password",
                "{ env = \"NAME\" }",
            ),
            (
                format!("{STORE}[run]\njobs = 0\n{sqlite}"),
                "t.toml:4: run.jobs",
                "1 or more",
            ),
            (
                format!("{STORE}[run]\nretry_for = \"soon\"\n{sqlite}"),
                "t.toml:4: run.retry_for",
                "15m",
            ),
            (
                format!(
                    "[stores.s]\nurl = \"s3://bucket\"\nendpoint = \"s3.example.com\"\n{sqlite}"
                ),
                "t.toml:3: stores.s.endpoint",
                "https://",
            ),
            (
                format!(
                    "{STORE}[databases.a]\nengine = \"mysql\"\ndatabase = \"*\"\n[databases.\"a/x\"]\nengine = \"mysql\"\n"
                ),
                "t.toml:6: databases.a/x",
                "rename",
            ),
            (
                format!("[stores.s]\nurl = \"ftp://x\"\n{sqlite}"),
                "t.toml:2: stores.s.url",
                "s3://BUCKET/PREFIX, or file:///FOLDER",
            ),
            (sqlite.to_owned(), "t.toml:1: databases.x", "[stores.NAME]"),
            (
                format!("{STORE}[run]\njobs_per_host = 9000000000000000000\n{sqlite}"),
                "t.toml:4: run.jobs_per_host",
                "at most 65535",
            ),
            (
                format!("{STORE}[staged]\nqueue = 9000000000000000000\n{sqlite}"),
                "t.toml:4: staged.queue",
                "at most 65535",
            ),
            (
                format!("{STORE}[run]\nmemory = \"16EiB\"\n{sqlite}"),
                "t.toml:4: run.memory",
                "more than there is",
            ),
            (
                format!("{STORE}[run]\nmemory = [1]\n{sqlite}"),
                "t.toml:4: run.memory",
                "must be a size",
            ),
            (
                format!("{STORE}[run]\nmax_upload_rate = \"fast\"\n{sqlite}"),
                "t.toml:4: run.max_upload_rate",
                "20 MB/s",
            ),
            (
                format!("{STORE}max_upload_rate = \"9 kB/s\"\n{sqlite}"),
                "t.toml:3: stores.s.max_upload_rate",
                "below 10 kB/s",
            ),
            (
                format!("{STORE}provider = \"azure\"\n{sqlite}"),
                "t.toml:3: stores.s.provider",
                "must be one of aws, b2, ceph",
            ),
            (
                format!("{STORE}object_lock = {{ mode = \"forever\", days = 1 }}\n{sqlite}"),
                "t.toml:3: stores.s.object_lock.mode",
                "governance",
            ),
            (
                format!("{STORE}object_lock = {{ mode = \"compliance\", days = 0 }}\n{sqlite}"),
                "t.toml:3: stores.s.object_lock.days",
                "36500",
            ),
            (
                format!("{STORE}[run]\nretry_for = \"9999999999h\"\n{sqlite}"),
                "t.toml:4: run.retry_for",
                "ten years",
            ),
            (
                format!("{STORE}[run]\nprune_after_backup = true\n{sqlite}"),
                "t.toml: run",
                "keep_daily",
            ),
            (
                format!("{STORE}[run]\njobs = \"4\"\n{sqlite}"),
                "t.toml:4: run.jobs",
                "whole number",
            ),
            (
                format!("{STORE}[runs]\njobs = 4\n{sqlite}"),
                "t.toml:3: runs",
                "did you mean `run`?",
            ),
            (
                format!("{STORE}{sqlite}file_name = \"..\"\n"),
                "t.toml:6: databases.x.file_name",
                "neither",
            ),
            (
                format!("{STORE}[databases.x]\nengine = \"mysql\"\nport = 0\n"),
                "t.toml:5: databases.x.port",
                "1 to 65535",
            ),
            (
                format!("{STORE}[databases.x]\nengine = \"mysql\"\nport = 70000\n"),
                "t.toml:5: databases.x.port",
                "1 to 65535",
            ),
            (
                format!(
                    "{STORE}[databases.x]\nengine = \"mysql\"\ndatabase = \"y\"\nexclude = [\"z\"]\n"
                ),
                "t.toml:6: databases.x.exclude",
                "goes with database = \"*\"",
            ),
            (
                format!(
                    "{STORE}[databases.x]\nengine = \"mysql\"\ndatabase = \"*\"\nexclude = [\"*z\"]\n"
                ),
                "t.toml:6: databases.x.exclude",
                "at the end",
            ),
            (
                format!(
                    "{STORE}[databases.\"{}\"]\nengine = \"mysql\"\n",
                    "ü".repeat(100)
                ),
                "t.toml:3: databases.ü",
                "shorter name",
            ),
            (
                format!("{STORE}[stores.t]\nurl = \"s3://bucket/p/\"\n{sqlite}store = \"s\"\n"),
                "t.toml:3: stores.t",
                "same place as stores.s",
            ),
        ];
        for (text, place, fix) in cases {
            let error = error(&text);
            assert!(
                error.starts_with(place) && error.contains(fix),
                "{text}\n→ {error}"
            );
            assert!(
                !error.contains("secret\"") && !error.contains("= \"secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_name_whose_keys_would_be_longer_than_a_store_takes_is_refused() {
        let inventory = |prefix: &str, letter: &str, count: usize| {
            let name = letter.repeat(count);
            let text = format!(
                "[stores.s]\nurl = \"s3://bucket{prefix}\"\n[databases.\"{name}\"]\n\
                 engine = \"command\"\ncommand = [\"true\"]\n"
            );
            Inventory::parse(Path::new("t.toml"), &text).map(|_| ())
        };
        assert!(inventory("", "x", 200).is_ok());
        // Two bytes, which are six in a key, and that twice.
        assert!(inventory("", "ß", 75).is_ok());
        for (prefix, letter, count) in [
            (String::new(), "ß", 90),
            (format!("/{}", "p".repeat(200)), "ß", 75),
        ] {
            let error = inventory(&prefix, letter, count).unwrap_err().to_string();
            assert!(error.contains("1024"), "{error}");
        }
    }

    #[test]
    fn a_store_is_a_bucket_and_a_prefix_that_there_can_be() {
        let store = |url: &str, more: &str| {
            let text = format!("[stores.s]\nurl = \"{url}\"\n{more}");
            Inventory::parse(Path::new("t.toml"), &text).map(|_| ())
        };
        let elsewhere = "endpoint = \"http://h:9\"\n";
        for (url, more) in [
            ("s3://my.bucket-1", ""),
            ("s3://bucket/a/b/", ""),
            ("s3://My_Bucket", elsewhere),
        ] {
            assert!(store(url, more).is_ok(), "{url}");
        }
        for url in [
            "s3://my bucket",
            "s3://My_Bucket",
            "s3://key:sesame@bucket",
            "s3://bu",
            "s3://-bucket",
            "s3://bucket/../x",
            "s3://bucket/a//b",
            "s3://bucket/x?y",
            "s3://bucket/x#y",
            "s3:///x",
        ] {
            let error = store(url, "").expect_err(url).to_string();
            assert!(error.starts_with("t.toml:2: stores.s.url: "), "{error}");
            assert!(!error.contains("sesame"), "{error}");
        }
        for endpoint in [
            "https://me:sesame@h",
            "ftp://h",
            "https://h?x",
            "https://",
            "http://h:0",
        ] {
            let error = store("s3://bucket", &format!("endpoint = \"{endpoint}\"\n"))
                .expect_err(endpoint)
                .to_string();
            assert!(
                error.starts_with("t.toml:3: stores.s.endpoint: "),
                "{error}"
            );
            assert!(!error.contains("sesame"), "{error}");
        }
    }

    #[test]
    fn an_inventory_without_databases_reads_but_has_none_to_select() {
        let inventory = Inventory::parse(Path::new("t.toml"), STORE).unwrap();
        for names in [Vec::new(), vec!["x".to_owned()]] {
            let error = inventory.select(&names).unwrap_err().to_string();
            assert!(
                error.starts_with("t.toml") && error.contains("[databases.NAME]"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn secrets_come_from_files_and_commands_without_their_line_break() {
        use secrecy::ExposeSecret;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p"), "sesame\n").unwrap();
        let path = folder.path().join("t.toml");
        let resolve = async |secret: &str| {
            let text = format!("{STORE}[databases.x]\nengine = \"mysql\"\npassword = {secret}\n");
            let inventory = Inventory::parse(&path, &text).unwrap();
            let secret = inventory.databases[0].password.clone().unwrap();
            secret
                .resolve(Duration::from_secs(5))
                .await
                .map(|secret| secret.expose_secret().to_owned())
        };
        assert_eq!(resolve("{ file = \"p\" }").await.unwrap(), "sesame");
        assert_eq!(
            resolve("{ command = [\"echo\", \"open\"] }").await.unwrap(),
            "open"
        );
        for (missing, why) in [
            (
                "{ env = \"TAPLINE_NO_SUCH\" }",
                "TAPLINE_NO_SUCH is not set",
            ),
            ("{ file = \"q\" }", "cannot read"),
            ("{ command = [\"false\"] }", "exit status: 1"),
            ("{ command = [\"true\"] }", "empty"),
        ] {
            let error = resolve(missing).await.unwrap_err().to_string();
            assert!(
                error.contains(":5: databases.x.password") && error.contains(why),
                "{error}"
            );
        }
    }
}
