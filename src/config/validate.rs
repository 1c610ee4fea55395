//! From the file as written to the model. Every error names file, line, key, and the fix.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::entry::database;
use super::place::{File, Result};
use super::{
    ConfigError, Container, Inventory, RunSettings, Selection, StagedSettings, StoreSettings, raw,
};
use crate::catalog::Mode;
use crate::store::{ChecksumKind, Limits};

pub(super) fn inventory(path: &Path, text: &str, raw: &raw::Inventory) -> Result<Inventory> {
    let file = File { path, text };
    let run = run(&file, &raw.run)?;
    let staged = staged(&file, &raw.staged)?;
    let stores: BTreeMap<String, Arc<StoreSettings>> = raw
        .stores
        .iter()
        .map(|(name, store)| {
            Ok((
                name.get_ref().clone(),
                Arc::new(self::store(&file, name, store)?),
            ))
        })
        .collect::<Result<_>>()?;
    let mut entries: Vec<_> = raw.databases.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let databases = entries
        .into_iter()
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
    Ok(Inventory {
        path: path.to_owned(),
        run,
        staged,
        stores,
        databases,
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
        memory: file.size(raw.memory.as_ref(), "run.memory")?,
        retry_for: duration(&raw.retry_for, "run.retry_for", 15 * 60)?,
        stall_timeout: file.duration(raw.stall_timeout.as_ref(), "run.stall_timeout")?,
        exit_timeout: duration(&raw.exit_timeout, "run.exit_timeout", 60)?,
        connect_timeout: duration(&raw.connect_timeout, "run.connect_timeout", 15)?,
        prune_after_backup: raw.prune_after_backup.unwrap_or_default(),
    })
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

fn store(file: &File, name: &Spanned<String>, raw: &raw::Store) -> Result<StoreSettings> {
    let key = |key: &str| format!("stores.{}.{key}", name.get_ref());
    let Some(place) = raw.url.get_ref().strip_prefix("s3://") else {
        return file.wrong(&raw.url.span(), &key("url"), "must be s3://BUCKET/PREFIX");
    };
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() {
        return file.wrong(
            &raw.url.span(),
            &key("url"),
            "names no bucket; write s3://BUCKET/PREFIX",
        );
    }
    if let Some(endpoint) = &raw.endpoint
        && !["http://", "https://"]
            .iter()
            .any(|scheme| endpoint.get_ref().starts_with(scheme))
    {
        return file.wrong(
            &endpoint.span(),
            &key("endpoint"),
            "must begin with https:// or http://",
        );
    }
    let checksum = match &raw.checksum {
        None => Some(ChecksumKind::Crc64Nvme),
        Some(value) => match value.get_ref().as_str() {
            "crc64nvme" => Some(ChecksumKind::Crc64Nvme),
            "crc32" => Some(ChecksumKind::Crc32),
            "none" => None,
            _ => {
                return file.wrong(
                    &value.span(),
                    &key("checksum"),
                    "must be \"crc64nvme\", \"crc32\" or \"none\"",
                );
            }
        },
    };
    if let Some(sse) = &raw.sse
        && !(["AES256", "aws:kms"].contains(&sse.get_ref().as_str())
            || sse.get_ref().starts_with("aws:kms:"))
    {
        return file.wrong(
            &sse.span(),
            &key("sse"),
            "must be \"AES256\", \"aws:kms\" or \"aws:kms:KEY-ID\"",
        );
    }
    let max_parts = match &raw.max_parts {
        None => Limits::S3.max_parts,
        Some(value) if (2..=Limits::S3.max_parts).contains(value.get_ref()) => *value.get_ref(),
        Some(value) => {
            return file.wrong(&value.span(), &key("max_parts"), "must be from 2 to 10000");
        }
    };
    let credentials = match (&raw.access_key, &raw.secret_key) {
        (None, None) => None,
        (Some(access), Some(secret)) => Some((
            file.secret(access, &key("access_key"))?,
            file.secret(secret, &key("secret_key"))?,
        )),
        (Some(one), None) | (None, Some(one)) => {
            return file.wrong(
                &one.span(),
                &key("access_key"),
                "access_key and secret_key go together; give both or neither",
            );
        }
    };
    Ok(StoreSettings {
        name: name.get_ref().clone(),
        bucket: bucket.into(),
        prefix: prefix.trim_matches('/').into(),
        path_style: raw.path_style.unwrap_or(raw.endpoint.is_some()),
        endpoint: raw
            .endpoint
            .as_ref()
            .map(|endpoint| endpoint.get_ref().clone()),
        region: raw.region.clone(),
        storage_class: raw.storage_class.clone(),
        sse: raw.sse.as_ref().map(|sse| sse.get_ref().clone()),
        checksum,
        max_parts,
        credentials,
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::catalog::Retention;

    const STORE: &str = "[stores.s]\nurl = \"s3://b/p\"\n";

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
                "t.toml:6: passwrod",
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
            (format!("{STORE}{sqlite}{sqlite}"), "t.toml:6:", "duplicate"),
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
                format!("[stores.s]\nurl = \"s3://b\"\nendpoint = \"s3.example.com\"\n{sqlite}"),
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
                format!("[stores.s]\nurl = \"file:///x\"\n{sqlite}"),
                "t.toml:2: stores.s.url",
                "s3://BUCKET/PREFIX",
            ),
            (sqlite.to_owned(), "t.toml:1: databases.x", "[stores.NAME]"),
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
