//! From the file as written to the model. Every error names file, line, key, and the fix.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::{
    ConfigError, Container, Database, DumpFormat, EngineKind, Inventory, RunSettings, Secret, SecretFrom, Selection,
    StagedSettings, StoreSettings, line_of, raw,
};
use crate::catalog::{Mode, Retention, Within};
use crate::format::{Compression, MAX_NAME};
use crate::store::{ChecksumKind, Limits};

type Result<T> = std::result::Result<T, ConfigError>;

/// The file that is being validated, for places.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn place(&self, span: &Range<usize>, key: &str) -> String {
        format!("{}:{}: {key}", self.path.display(), line_of(self.text, span.start))
    }

    fn wrong<T>(&self, span: &Range<usize>, key: &str, why: impl std::fmt::Display) -> Result<T> {
        Err(ConfigError(format!("{}: {why}", self.place(span, key))))
    }

    fn relative(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    fn count(&self, value: Option<&Spanned<usize>>, key: &str, default: usize) -> Result<usize> {
        match value {
            Some(value) if *value.get_ref() == 0 => {
                self.wrong(&value.span(), key, "must be 1 or more; 1 is one at a time")
            }
            Some(value) => Ok(*value.get_ref()),
            None => Ok(default),
        }
    }

    fn duration(&self, value: Option<&Spanned<String>>, key: &str) -> Result<Option<Duration>> {
        let Some(value) = value else { return Ok(None) };
        let parsed = value.get_ref().parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        match parsed {
            Some(duration) if !duration.is_zero() => Ok(Some(duration)),
            _ => self.wrong(&value.span(), key, "not a time; write one such as \"90s\", \"15m\" or \"2h\""),
        }
    }

    fn size(&self, value: Option<&Spanned<raw::Size>>, key: &str) -> Result<Option<u64>> {
        let Some(value) = value else { return Ok(None) };
        let parsed = match value.get_ref() {
            raw::Size::Bytes(bytes) => Some(*bytes),
            raw::Size::Text(text) => text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64()),
        };
        match parsed {
            Some(size) if size > 0 => Ok(Some(size)),
            _ => self.wrong(&value.span(), key, "not a size; write one such as \"512MiB\" or \"40GB\""),
        }
    }

    fn number(&self, value: Option<&Spanned<u32>>, key: &str) -> Result<Option<NonZeroU32>> {
        let Some(value) = value else { return Ok(None) };
        match NonZeroU32::new(*value.get_ref()) {
            Some(number) => Ok(Some(number)),
            None => self.wrong(&value.span(), key, "must be 1 or more; leave it out when the rule is not wanted"),
        }
    }

    fn within(&self, value: Option<&Spanned<String>>, key: &str) -> Result<Option<Within>> {
        let Some(value) = value else { return Ok(None) };
        value.get_ref().parse().map(Some).or_else(|why| self.wrong(&value.span(), key, format_args!("{why}")))
    }

    fn secret(&self, value: &Spanned<raw::Secret>, key: &str) -> Result<Secret> {
        const FORMS: &str = "{ env = \"NAME\" }, { file = \"path\" } or { command = [\"program\", \"argument\"] }";
        let raw::Secret::From(table) = value.get_ref() else {
            return self.wrong(&value.span(), key, format_args!("a secret must not stand in this file; use {FORMS}"));
        };
        let mut entries = table.iter();
        let from = match (entries.next(), entries.next()) {
            (Some((form, value)), None) => match (form.as_str(), value) {
                ("env", toml::Value::String(name)) => Some(SecretFrom::Env(name.clone())),
                ("file", toml::Value::String(path)) => Some(SecretFrom::File(self.relative(Path::new(path)))),
                ("command", toml::Value::Array(argv)) if !argv.is_empty() => {
                    let words = argv.iter().map(|word| word.as_str().map(str::to_owned));
                    words.collect::<Option<_>>().map(SecretFrom::Command)
                }
                _ => None,
            },
            _ => None,
        };
        match from {
            Some(from) => Ok(Secret { from, place: self.place(&value.span(), key) }),
            None => self.wrong(&value.span(), key, format_args!("a secret is one of {FORMS}")),
        }
    }
}

pub(super) fn inventory(path: &Path, text: &str, raw: &raw::Inventory) -> Result<Inventory> {
    let file = File { path, text };
    let run = run(&file, &raw.run)?;
    let staged = staged(&file, &raw.staged)?;
    let stores: BTreeMap<String, Arc<StoreSettings>> = raw
        .stores
        .iter()
        .map(|(name, store)| Ok((name.get_ref().clone(), Arc::new(self::store(&file, name, store)?))))
        .collect::<Result<_>>()?;
    let mut entries: Vec<_> = raw.databases.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let databases = entries
        .into_iter()
        .map(|(name, entry)| database(&file, name, entry, &raw.defaults, &stores))
        .collect::<Result<Vec<_>>>()?;
    Ok(Inventory { path: path.to_owned(), run, staged, stores, databases })
}

fn run(file: &File, raw: &raw::Run) -> Result<RunSettings> {
    let duration = |value: &Option<Spanned<String>>, key: &str, default: u64| {
        file.duration(value.as_ref(), key).map(|given| given.unwrap_or(Duration::from_secs(default)))
    };
    let mode = match &raw.mode {
        None => Mode::Streamed,
        Some(mode) => match mode.get_ref().as_str() {
            "streamed" => Mode::Streamed,
            "staged" => Mode::Staged,
            _ => return file.wrong(&mode.span(), "run.mode", "must be \"streamed\" or \"staged\""),
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
            _ => return file.wrong(&container.span(), "staged.container", "must be \"tar\" or \"zip\""),
        },
    };
    let count = |value: &Option<Spanned<usize>>, key: &str, default| {
        file.count(value.as_ref(), &format!("staged.{key}"), default)
    };
    Ok(StagedSettings {
        dir: raw.dir.as_ref().map_or_else(std::env::temp_dir, |dir| file.relative(dir)),
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
        return file.wrong(&raw.url.span(), &key("url"), "names no bucket; write s3://BUCKET/PREFIX");
    }
    let checksum = match &raw.checksum {
        None => Some(ChecksumKind::Crc64Nvme),
        Some(value) => match value.get_ref().as_str() {
            "crc64nvme" => Some(ChecksumKind::Crc64Nvme),
            "crc32" => Some(ChecksumKind::Crc32),
            "none" => None,
            _ => return file.wrong(&value.span(), &key("checksum"), "must be \"crc64nvme\", \"crc32\" or \"none\""),
        },
    };
    if let Some(sse) = &raw.sse
        && !(["AES256", "aws:kms"].contains(&sse.get_ref().as_str()) || sse.get_ref().starts_with("aws:kms:"))
    {
        return file.wrong(&sse.span(), &key("sse"), "must be \"AES256\", \"aws:kms\" or \"aws:kms:KEY-ID\"");
    }
    let max_parts = match &raw.max_parts {
        None => Limits::S3.max_parts,
        Some(value) if (2..=Limits::S3.max_parts).contains(value.get_ref()) => *value.get_ref(),
        Some(value) => return file.wrong(&value.span(), &key("max_parts"), "must be from 2 to 10000"),
    };
    let credentials = match (&raw.access_key, &raw.secret_key) {
        (None, None) => None,
        (Some(access), Some(secret)) => {
            Some((file.secret(access, &key("access_key"))?, file.secret(secret, &key("secret_key"))?))
        }
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
        endpoint: raw.endpoint.clone(),
        region: raw.region.clone(),
        storage_class: raw.storage_class.clone(),
        sse: raw.sse.as_ref().map(|sse| sse.get_ref().clone()),
        checksum,
        max_parts,
        credentials,
    })
}

fn database(
    file: &File,
    name: &Spanned<String>,
    own: &raw::Database,
    defaults: &raw::Database,
    stores: &BTreeMap<String, Arc<StoreSettings>>,
) -> Result<Database> {
    let place = format!("databases.{}", name.get_ref());
    let key = |key: &str| format!("{place}.{key}");
    let here = name.span();
    let wrong = |why: &str| file.wrong(&here, &place, why);
    if name.get_ref().is_empty() || name.get_ref().len() > 200 {
        return wrong("a name has 1 to 200 bytes");
    }
    let Some(engine_name) = own.engine.as_ref().or(defaults.engine.as_ref()) else {
        return wrong(
            "engine is missing; add engine = \"postgres\", \"mysql\", \"mariadb\", \"sqlite\" or \"command\"",
        );
    };
    let Some(kind) = EngineKind::named(engine_name.get_ref()) else {
        let why = "must be \"postgres\", \"mysql\", \"mariadb\", \"sqlite\" or \"command\"";
        return file.wrong(&engine_name.span(), &key("engine"), why);
    };
    only_fitting_keys(file, &place, kind, own)?;
    let server = matches!(kind, EngineKind::Postgres | EngineKind::Mysql | EngineKind::Mariadb);
    // A key that does not fit this engine may stand in [defaults] for the others.
    macro_rules! value {
        ($key:ident) => {
            own.$key.as_ref().or(defaults.$key.as_ref())
        };
        ($key:ident if $fits:expr) => {
            own.$key.as_ref().or(defaults.$key.as_ref().filter(|_| $fits))
        };
    }
    if let (Some(_), Some(socket)) = (&own.host, &own.socket) {
        return file.wrong(&socket.span(), &key("socket"), "host and socket exclude each other; remove one");
    }
    let globals = value!(globals if kind == EngineKind::Postgres).is_some_and(|globals| *globals.get_ref());
    let exclude = value!(exclude if server).map(|exclude| exclude.get_ref().clone()).unwrap_or_default();
    let database = match value!(database if server).map(|database| database.get_ref().as_str()) {
        _ if !server => Selection::Whole,
        _ if globals => Selection::Globals,
        Some("*") => Selection::All { exclude },
        Some("") => return wrong("database is empty; name one, or write \"*\" for all"),
        Some(one) => Selection::One(one.to_owned()),
        None => Selection::One(name.get_ref().clone()),
    };
    let dump_format = match value!(format if kind == EngineKind::Postgres) {
        None => DumpFormat::Plain,
        Some(format) => match format.get_ref().as_str() {
            "plain" => DumpFormat::Plain,
            "custom" => DumpFormat::Custom,
            _ => return file.wrong(&format.span(), &key("format"), "must be \"plain\" or \"custom\""),
        },
    };
    let path = value!(path if kind == EngineKind::Sqlite).map(|path| file.relative(path.get_ref()));
    if kind == EngineKind::Sqlite && path.is_none() {
        return wrong("path is missing; add path = \"FILE\"");
    }
    let command = value!(command if kind == EngineKind::Command).map(|argv| argv.get_ref().clone()).unwrap_or_default();
    if kind == EngineKind::Command && command.is_empty() {
        return wrong("command is missing; add command = [\"program\", \"argument\"]");
    }
    let file_name = value!(file_name).map(|name| name.get_ref().clone());
    if let (Some(name), Some(value)) = (&file_name, value!(file_name))
        && (name.is_empty() || name.len() > MAX_NAME || name.contains(['/', '\0', '\n']))
    {
        return file.wrong(&value.span(), &key("file_name"), "must be 1 to 255 bytes without slash, NUL or line break");
    }
    let (compression, level) = compression(file, &place, value!(compression), value!(level))?;
    Ok(Database {
        name: name.get_ref().clone(),
        place: file.place(&here, &place),
        engine: kind,
        host: value!(host if server && own.socket.is_none()).map(|host| host.get_ref().clone()),
        port: value!(port if server).map(|port| *port.get_ref()),
        socket: value!(socket if server && own.host.is_none()).map(|socket| socket.get_ref().clone()),
        user: value!(user if server).map(|user| user.get_ref().clone()),
        password: value!(password if server).map(|secret| file.secret(secret, &key("password"))).transpose()?,
        database,
        dump_format,
        options: value!(options if server).map(|options| options.get_ref().clone()).unwrap_or_default(),
        dump_tool: value!(dump_tool if server).map(|tool| tool.get_ref().clone()),
        path,
        command,
        restore: value!(restore if kind == EngineKind::Command).map(|argv| argv.get_ref().clone()).unwrap_or_default(),
        env: value!(env)
            .iter()
            .flat_map(|env| env.get_ref())
            .map(|(name, secret)| Ok((name.clone(), file.secret(secret, &key(&format!("env.{name}")))?)))
            .collect::<Result<_>>()?,
        file_name,
        compression,
        level,
        store: chosen_store(file, &here, &place, value!(store), stores)?,
        expected_size: file.size(value!(expected_size), &key("expected_size"))?,
        retention: Retention {
            last: file.number(value!(keep_last), &key("keep_last"))?,
            hourly: file.number(value!(keep_hourly), &key("keep_hourly"))?,
            daily: file.number(value!(keep_daily), &key("keep_daily"))?,
            weekly: file.number(value!(keep_weekly), &key("keep_weekly"))?,
            monthly: file.number(value!(keep_monthly), &key("keep_monthly"))?,
            yearly: file.number(value!(keep_yearly), &key("keep_yearly"))?,
            within: file.within(value!(keep_within), &key("keep_within"))?,
        },
    })
}

/// Refuses keys of the entry itself that its engine has no use for.
fn only_fitting_keys(file: &File, place: &str, kind: EngineKind, own: &raw::Database) -> Result<()> {
    const SERVERS: &[EngineKind] = &[EngineKind::Postgres, EngineKind::Mysql, EngineKind::Mariadb];
    let mut present: Vec<(&str, Range<usize>, &[EngineKind])> = Vec::new();
    macro_rules! note {
        ($($key:ident: $kinds:expr),* $(,)?) => {
            $(if let Some(value) = &own.$key { present.push((stringify!($key), value.span(), $kinds)); })*
        };
    }
    note! {
        host: SERVERS, port: SERVERS, socket: SERVERS, user: SERVERS, password: SERVERS, database: SERVERS,
        exclude: SERVERS, options: SERVERS, dump_tool: SERVERS,
        globals: &[EngineKind::Postgres], format: &[EngineKind::Postgres],
        path: &[EngineKind::Sqlite], command: &[EngineKind::Command], restore: &[EngineKind::Command],
    }
    match present.into_iter().find(|(_, _, kinds)| !kinds.contains(&kind)) {
        None => Ok(()),
        Some((key, span, kinds)) => {
            let names: BTreeSet<&str> = kinds.iter().map(|kind| kind.name()).collect();
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            let why = format!("is for {names} and not for {}; remove it", kind.name());
            file.wrong(&span, &format!("{place}.{key}"), why)
        }
    }
}

fn compression(
    file: &File,
    place: &str,
    name: Option<&Spanned<String>>,
    level: Option<&Spanned<i32>>,
) -> Result<(Compression, i32)> {
    let compression = match name.map(|name| name.get_ref().as_str()) {
        None | Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        Some("none") => Compression::None,
        Some(_) => {
            let span = name.map_or(0..0, Spanned::span);
            return file.wrong(&span, &format!("{place}.compression"), "must be \"gzip\", \"zstd\" or \"none\"");
        }
    };
    let (range, default) = compression.levels();
    match level {
        None => Ok((compression, default)),
        Some(level) if range.contains(level.get_ref()) => Ok((compression, *level.get_ref())),
        Some(level) => {
            let why = format!("must be from {} to {} for this compression", range.start(), range.end());
            file.wrong(&level.span(), &format!("{place}.level"), why)
        }
    }
}

fn chosen_store(
    file: &File,
    here: &Range<usize>,
    place: &str,
    name: Option<&Spanned<String>>,
    stores: &BTreeMap<String, Arc<StoreSettings>>,
) -> Result<String> {
    let known = || stores.keys().cloned().collect::<Vec<_>>().join(", ");
    match (name, stores.len()) {
        (Some(name), _) if stores.contains_key(name.get_ref()) => Ok(name.get_ref().clone()),
        (_, 0) => {
            file.wrong(here, place, "there is no store; add a table [stores.NAME] with url = \"s3://BUCKET/PREFIX\"")
        }
        (Some(name), _) => file.wrong(
            &name.span(),
            &format!("{place}.store"),
            format!("there is no such store; there are: {}", known()),
        ),
        (None, 1) => Ok(known()),
        (None, _) => file.wrong(here, place, format!("store is missing; add store = one of: {}", known())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: &str = "[stores.s]\nurl = \"s3://b/p\"\n";

    fn error(text: &str) -> String {
        Inventory::parse(Path::new("t.toml"), text).expect_err(text).to_string()
    }

    #[test]
    fn the_template_is_a_valid_inventory() {
        let inventory = Inventory::parse(Path::new("tapline.toml"), super::super::TEMPLATE).unwrap();
        assert!(!inventory.databases.is_empty());
    }

    #[test]
    fn defaults_are_overridden_and_what_does_not_fit_an_engine_is_left_out_of_them() {
        let text = format!(
            "{STORE}[defaults]\nengine = \"postgres\"\nhost = \"h\"\npassword = {{ env = \"P\" }}\nlevel = 9\n\
             [databases.b]\nlevel = 1\n[databases.a]\nengine = \"sqlite\"\npath = \"x.db\"\n[databases.c]\ndatabase = \"*\"\n"
        );
        let inventory = Inventory::parse(Path::new("/etc/t.toml"), &text).unwrap();
        let [b, a, c] = inventory.databases.as_slice() else { panic!("three, in the file's order") };
        assert_eq!((b.name.as_str(), b.level, b.host.as_deref()), ("b", 1, Some("h")));
        assert_eq!((a.level, a.host.as_deref(), a.password.clone()), (9, None, None));
        assert_eq!(a.path.as_deref(), Some(Path::new("/etc/x.db")));
        assert_eq!(c.database, Selection::All { exclude: Vec::new() });
        assert_eq!(inventory.select(&["c/shop".into()]).unwrap().len(), 1);
        assert!(inventory.select(&["nope".into()]).unwrap_err().to_string().contains("b, a, c"));
    }

    #[test]
    fn each_retention_rule_has_its_own_default() {
        let text = format!(
            "{STORE}[defaults]\nengine = \"sqlite\"\npath = \"x\"\nkeep_last = 3\nkeep_within = \"1y 6mo\"\n\
             [databases.a]\nkeep_daily = 7\n[databases.b]\nkeep_last = 9\n"
        );
        let inventory = Inventory::parse(Path::new("t.toml"), &text).unwrap();
        let [a, b] = inventory.databases.as_slice() else { panic!("two") };
        let within = "1y 6mo".parse().ok();
        let defaults = Retention { last: NonZeroU32::new(3), within, ..Retention::default() };
        assert_eq!(a.retention, Retention { daily: NonZeroU32::new(7), ..defaults });
        assert_eq!(b.retention, Retention { last: NonZeroU32::new(9), ..defaults });
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_key_and_fix() {
        let sqlite = "[databases.x]\nengine = \"sqlite\"\npath = \"x\"\n";
        let cases = [
            (format!("{STORE}{sqlite}passwrod = \"secret\"\n"), "t.toml:6: passwrod", "`password`"),
            (format!("{STORE}{sqlite}host = \"h\"\n"), "t.toml:6: databases.x.host", "remove it"),
            (format!("{STORE}{sqlite}level = 40\n"), "t.toml:6: databases.x.level", "1 to 9"),
            (format!("{STORE}{sqlite}expected_size = \"much\"\n"), "t.toml:6: databases.x.expected_size", "512MiB"),
            (format!("{STORE}{sqlite}{sqlite}"), "t.toml:6:", "duplicate"),
            (format!("{STORE}{sqlite}store = \"t\"\n"), "t.toml:6: databases.x.store", "there are: s"),
            (format!("{STORE}{sqlite}compression = \"xz\"\n"), "t.toml:6: databases.x.compression", "zstd"),
            (format!("{STORE}{sqlite}keep_daily = 0\n"), "t.toml:6: databases.x.keep_daily", "leave it out"),
            (format!("{STORE}{sqlite}keep_within = \"6m\"\n"), "t.toml:6: databases.x.keep_within", "months are mo"),
            (format!("{STORE}{sqlite}file_name = \"a/b\"\n"), "t.toml:6: databases.x.file_name", "slash"),
            (format!("{STORE}[databases.x]\nengine = \"oracle\"\n"), "t.toml:4: databases.x.engine", "postgres"),
            (format!("{STORE}[databases.x]\n"), "t.toml:3: databases.x", "engine is missing"),
            (format!("{STORE}[databases.x]\nengine = \"command\"\n"), "t.toml:3: databases.x", "command is missing"),
            (
                format!("{STORE}[databases.x]\nengine = \"mysql\"\npassword = \"secret\"\n"),
                "t.toml:5: databases.x.password",
                "{ env = \"NAME\" }",
            ),
            (format!("{STORE}[run]\njobs = 0\n{sqlite}"), "t.toml:4: run.jobs", "1 or more"),
            (format!("{STORE}[run]\nretry_for = \"soon\"\n{sqlite}"), "t.toml:4: run.retry_for", "15m"),
            (format!("[stores.s]\nurl = \"file:///x\"\n{sqlite}"), "t.toml:2: stores.s.url", "s3://BUCKET/PREFIX"),
            (sqlite.to_owned(), "t.toml:1: databases.x", "[stores.NAME]"),
        ];
        for (text, place, fix) in cases {
            let error = error(&text);
            assert!(error.starts_with(place) && error.contains(fix), "{text}\n→ {error}");
            assert!(!error.contains("secret\"") && !error.contains("= \"secret"), "{error}");
        }
    }

    #[test]
    fn an_inventory_without_databases_reads_but_has_none_to_select() {
        let inventory = Inventory::parse(Path::new("t.toml"), STORE).unwrap();
        for names in [Vec::new(), vec!["x".to_owned()]] {
            let error = inventory.select(&names).unwrap_err().to_string();
            assert!(error.starts_with("t.toml") && error.contains("[databases.NAME]"), "{error}");
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
            secret.resolve(Duration::from_secs(5)).await.map(|secret| secret.expose_secret().to_owned())
        };
        assert_eq!(resolve("{ file = \"p\" }").await.unwrap(), "sesame");
        assert_eq!(resolve("{ command = [\"echo\", \"open\"] }").await.unwrap(), "open");
        for (missing, why) in [
            ("{ env = \"TAPLINE_NO_SUCH\" }", "TAPLINE_NO_SUCH is not set"),
            ("{ file = \"q\" }", "cannot read"),
            ("{ command = [\"false\"] }", "exit status: 1"),
            ("{ command = [\"true\"] }", "empty"),
        ] {
            let error = resolve(missing).await.unwrap_err().to_string();
            assert!(error.contains(":5: databases.x.password") && error.contains(why), "{error}");
        }
    }
}
