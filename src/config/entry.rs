//! A database's entry, from the file as written to the model, `[defaults]` filled in.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;

use super::encryption::encryption;
use super::model::LOCK_TIMEOUT;
use super::place::{File, Result};
use super::serve::{schedule, zone};
use super::{Database, DumpFormat, EngineKind, Selection, StoreSettings, Tls, options, raw};
use crate::archive::{Compression, EntryName};
use crate::catalog::Retention;

/// More sessions than this no server bears by default (`max_connections = 100`).
pub(crate) const MOST_PARALLEL: usize = 64;

pub(super) fn database(
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
    if name.get_ref().chars().any(char::is_control) {
        return file.wrong(&here, "databases", "a name has a control character in it");
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
    let server = matches!(
        kind,
        EngineKind::Postgres | EngineKind::Mysql | EngineKind::Mariadb
    );
    // A key that does not fit this engine may stand in [defaults] for the others.
    macro_rules! value {
        ($key:ident) => {
            own.$key.as_ref().or(defaults.$key.as_ref())
        };
        ($key:ident if $fits:expr) => {
            own.$key
                .as_ref()
                .or(defaults.$key.as_ref().filter(|_| $fits))
        };
    }
    if let (Some(_), Some(socket)) = (&own.host, &own.socket) {
        return file.wrong(
            &socket.span(),
            &key("socket"),
            "host and socket exclude each other; remove one",
        );
    }
    let globals = value!(globals if server).is_some_and(|globals| *globals.get_ref());
    let exclude = value!(exclude if server)
        .map(|exclude| exclude.get_ref().clone())
        .unwrap_or_default();
    only_with_all(file, &place, own, globals)?;
    patterns(file, &key("exclude"), value!(exclude if server))?;
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
            _ => {
                return file.wrong(
                    &format.span(),
                    &key("format"),
                    "must be \"plain\" or \"custom\"",
                );
            }
        },
    };
    let path = value!(path if kind == EngineKind::Sqlite).map(|path| file.relative(path.get_ref()));
    if kind == EngineKind::Sqlite && path.is_none() {
        return wrong("path is missing; add path = \"FILE\"");
    }
    let command = value!(command if kind == EngineKind::Command)
        .map(|argv| argv.get_ref().clone())
        .unwrap_or_default();
    if kind == EngineKind::Command && command.is_empty() {
        return wrong("command is missing; add command = [\"program\", \"argument\"]");
    }
    let file_name = match value!(file_name) {
        None => None,
        Some(name) => match name.get_ref().parse::<EntryName>() {
            Ok(name) => Some(name),
            Err(why) => return file.wrong(&name.span(), &key("file_name"), why),
        },
    };
    let port = match value!(port if server) {
        Some(port) if *port.get_ref() == 0 => {
            return file.wrong(&port.span(), &key("port"), "must be from 1 to 65535");
        }
        port => port.map(|port| *port.get_ref()),
    };
    let text = |value: Option<&Spanned<String>>, name: &str| {
        let text = value.map(|value| file.text(value, &key(name)));
        text.transpose()
    };
    if let Some(options) = value!(options if server)
        && let Some((option, why)) = options::refused(kind, globals, options.get_ref())
    {
        let why = format!("the option {option}: {why}");
        return file.wrong(&options.span(), &key("options"), why);
    }
    let parallel = parallel(
        file,
        &place,
        own,
        value!(parallel if kind == EngineKind::Postgres),
        globals || dump_format == DumpFormat::Custom,
        value!(options if server).map(|options| options.get_ref().as_slice()),
    )?;
    let tls = if kind == EngineKind::Postgres {
        let keys = (
            value!(sslmode),
            value!(sslrootcert),
            value!(sslcert),
            value!(sslkey),
        );
        tls(file, &key("sslmode"), kind, keys)?
    } else if server {
        let keys = (
            value!(ssl_mode),
            value!(ssl_ca),
            value!(ssl_cert),
            value!(ssl_key),
        );
        tls(file, &key("ssl_mode"), kind, keys)?
    } else {
        Tls::default()
    };
    let zone = zone(file, value!(time_zone), &key("time_zone"))?;
    let jitter = file.duration(value!(jitter), &key("jitter"))?;
    let spread = (&zone, jitter.unwrap_or_default());
    let schedule = schedule(
        file,
        value!(schedule),
        &key("schedule"),
        spread,
        name.get_ref(),
    )?;
    let (compression, level) = compression(file, &place, value!(compression), value!(level))?;
    Ok(Database {
        name: name.get_ref().clone(),
        place: file.place(&here, &place),
        engine: kind,
        host: text(value!(host if server && own.socket.is_none()), "host")?,
        port,
        socket: value!(socket if server && own.host.is_none())
            .map(|socket| socket.get_ref().clone()),
        user: text(value!(user if server), "user")?,
        password: value!(password if server)
            .map(|secret| file.secret(secret, &key("password")))
            .transpose()?,
        database,
        dump_format,
        parallel,
        options: value!(options if server)
            .map(|options| options.get_ref().clone())
            .unwrap_or_default(),
        dump_tool: value!(dump_tool if server).map(|tool| tool.get_ref().clone()),
        tools: value!(tools if server).map(|folder| file.relative(folder.get_ref())),
        service: value!(service if kind == EngineKind::Postgres)
            .map(|service| service.get_ref().clone()),
        tls,
        path,
        lock_timeout: file
            .duration(
                value!(lock_timeout if kind == EngineKind::Sqlite),
                &key("lock_timeout"),
            )?
            .unwrap_or(LOCK_TIMEOUT),
        command,
        restore: value!(restore if kind == EngineKind::Command)
            .map(|argv| argv.get_ref().clone())
            .unwrap_or_default(),
        env: value!(env)
            .iter()
            .flat_map(|env| env.get_ref())
            .map(|(name, secret)| {
                Ok((
                    name.clone(),
                    file.secret(secret, &key(&format!("env.{name}")))?,
                ))
            })
            .collect::<Result<_>>()?,
        allow_empty: value!(allow_empty).is_some_and(|allow| *allow.get_ref()),
        strict: value!(strict).is_some_and(|strict| *strict.get_ref()),
        retries: retries(file, &key("retries"), value!(retries))?,
        formerly: formerly(file, &key("formerly"), own.formerly.as_ref())?,
        file_name,
        compression,
        level,
        encryption: encryption(file, &place, own, defaults)?,
        stores: chosen_stores(file, &here, &place, (own, defaults), stores)?,
        expected_size: file.size(value!(expected_size), &key("expected_size"))?,
        expect_every: file.duration(value!(expect_every), &key("expect_every"))?,
        schedule,
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

/// How often a failed dump is run again.
fn retries(file: &File, key: &str, value: Option<&Spanned<u32>>) -> Result<u32> {
    /// Each try begins from the start: more of them is a thing for a timer.
    const MOST: u32 = 10;
    match value {
        Some(value) if *value.get_ref() > MOST => {
            file.wrong(&value.span(), key, "must be from 0 to 10")
        }
        value => Ok(value.map_or(0, |value| *value.get_ref())),
    }
}

/// Fingerprints of what the database was.
fn formerly(file: &File, key: &str, value: Option<&Spanned<Vec<String>>>) -> Result<Vec<String>> {
    let is_fingerprint = |text: &String| {
        (8..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    match value {
        Some(value) if !value.get_ref().iter().all(is_fingerprint) => file.wrong(
            &value.span(),
            key,
            "holds fingerprints of sources, 8 to 32 hex digits, as `restore` and `prune` name them",
        ),
        value => Ok(value.map_or_else(Vec::new, |value| value.get_ref().clone())),
    }
}

/// How many sessions dump it at once. What cannot be so is refused where the entry itself asks for
/// it, and is dumped by one session where `[defaults]` does.
fn parallel(
    file: &File,
    place: &str,
    own: &raw::Database,
    value: Option<&Spanned<usize>>,
    one_alone: bool,
    options: Option<&[String]>,
) -> Result<usize> {
    let key = format!("{place}.parallel");
    let Some(value) = value else { return Ok(1) };
    let parallel = file.count(Some(value), &key, 1)?;
    if parallel > MOST_PARALLEL {
        let why = format!("must be from 1 to {MOST_PARALLEL}");
        return file.wrong(&value.span(), &key, why);
    }
    if parallel == 1 {
        return Ok(1);
    }
    let unfit = options::unfit_for_parallel(options.unwrap_or_default());
    match (&own.parallel, one_alone, unfit) {
        (_, false, None) => Ok(parallel),
        (None, ..) => Ok(1),
        (Some(_), true, _) => {
            let why = "is for a plain dump of a database: remove it, or format and globals";
            file.wrong(&value.span(), &key, why)
        }
        (Some(_), _, Some(option)) => {
            let why = format!(
                "a dump by several sessions is of everything, in COPY's rows: remove it, or the \
                 option {option}"
            );
            file.wrong(&value.span(), &key, why)
        }
    }
}

/// `exclude` means something only where all databases are meant.
fn only_with_all(file: &File, place: &str, own: &raw::Database, globals: bool) -> Result<()> {
    let is_all = |name: &Spanned<String>| name.get_ref() == "*";
    match (&own.exclude, &own.database) {
        (Some(exclude), Some(database)) if !is_all(database) || globals => file.wrong(
            &exclude.span(),
            &format!("{place}.exclude"),
            "goes with database = \"*\" alone; remove one of the two",
        ),
        _ => Ok(()),
    }
}

fn patterns(file: &File, key: &str, exclude: Option<&Spanned<Vec<String>>>) -> Result<()> {
    let Some(exclude) = exclude else {
        return Ok(());
    };
    let fits = |pattern: &String| {
        let start = pattern.strip_suffix('*').unwrap_or(pattern);
        !pattern.is_empty() && !start.contains('*')
    };
    if exclude.get_ref().iter().all(fits) {
        return Ok(());
    }
    let why = "holds names, and a * is understood at the end of one alone: \"scratch*\"";
    file.wrong(&exclude.span(), key, why)
}

type TlsKeys<'a> = (
    Option<&'a Spanned<String>>,
    Option<&'a Spanned<PathBuf>>,
    Option<&'a Spanned<PathBuf>>,
    Option<&'a Spanned<PathBuf>>,
);

fn tls(file: &File, mode_key: &str, kind: EngineKind, keys: TlsKeys) -> Result<Tls> {
    let (mode, ca, cert, key) = keys;
    let modes = Tls::modes(kind);
    if let Some(mode) = mode.filter(|mode| !modes.contains(&mode.get_ref().as_str())) {
        let why = format!("must be one of: {}", modes.join(", "));
        return file.wrong(&mode.span(), mode_key, why);
    }
    // libpq's word for the system's own list of authorities is no path.
    let relative = |path: &Spanned<PathBuf>| match path.get_ref() {
        path if path.as_os_str() == "system" => path.clone(),
        path => file.relative(path),
    };
    Ok(Tls {
        mode: mode.map(|mode| mode.get_ref().clone()),
        ca: ca.map(relative),
        cert: cert.map(relative),
        key: key.map(relative),
    })
}

/// Refuses keys of the entry itself that its engine has no use for.
fn only_fitting_keys(
    file: &File,
    place: &str,
    kind: EngineKind,
    own: &raw::Database,
) -> Result<()> {
    const SERVERS: &[EngineKind] = &[EngineKind::Postgres, EngineKind::Mysql, EngineKind::Mariadb];
    const MYSQL: &[EngineKind] = &[EngineKind::Mysql, EngineKind::Mariadb];
    let mut present: Vec<(&str, Range<usize>, &[EngineKind])> = Vec::new();
    macro_rules! note {
        ($($key:ident: $kinds:expr),* $(,)?) => {
            $(if let Some(value) = &own.$key { present.push((stringify!($key), value.span(), $kinds)); })*
        };
    }
    note! {
        host: SERVERS, port: SERVERS, socket: SERVERS, user: SERVERS, password: SERVERS, database: SERVERS,
        exclude: SERVERS, options: SERVERS, dump_tool: SERVERS, tools: SERVERS,
        service: &[EngineKind::Postgres], sslmode: &[EngineKind::Postgres], sslrootcert: &[EngineKind::Postgres],
        sslcert: &[EngineKind::Postgres], sslkey: &[EngineKind::Postgres],
        ssl_mode: MYSQL, ssl_ca: MYSQL, ssl_cert: MYSQL, ssl_key: MYSQL,
        globals: SERVERS, format: &[EngineKind::Postgres],
        parallel: &[EngineKind::Postgres],
        path: &[EngineKind::Sqlite], command: &[EngineKind::Command], restore: &[EngineKind::Command],
    }
    match present
        .into_iter()
        .find(|(_, _, kinds)| !kinds.contains(&kind))
    {
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
            return file.wrong(
                &span,
                &format!("{place}.compression"),
                "must be \"gzip\", \"zstd\" or \"none\"",
            );
        }
    };
    let (range, default) = compression.levels();
    match level {
        None => Ok((compression, default)),
        Some(level) if range.contains(level.get_ref()) => Ok((compression, *level.get_ref())),
        Some(level) => {
            let why = format!(
                "must be from {} to {} for this compression",
                range.start(),
                range.end()
            );
            file.wrong(&level.span(), &format!("{place}.level"), why)
        }
    }
}

/// Where its backups go: `store` names one, `stores` several. What the entry itself says goes
/// before what stands in `[defaults]`.
fn chosen_stores(
    file: &File,
    here: &Range<usize>,
    place: &str,
    (own, defaults): (&raw::Database, &raw::Database),
    stores: &BTreeMap<String, Arc<StoreSettings>>,
) -> Result<Vec<String>> {
    if let (Some(_), Some(several)) = (&own.store, &own.stores) {
        let why = "store and stores exclude each other; remove one";
        return file.wrong(&several.span(), &format!("{place}.stores"), why);
    }
    let says = |raw: &&raw::Database| raw.store.is_some() || raw.stores.is_some();
    let raw = [own, defaults].into_iter().find(says).unwrap_or(own);
    let Some(several) = &raw.stores else {
        return Ok(vec![chosen_store(
            file,
            here,
            place,
            raw.store.as_ref(),
            stores,
        )?]);
    };
    let key = format!("{place}.stores");
    let mut chosen = Vec::new();
    for name in several.get_ref() {
        let one = chosen_store(file, here, place, Some(name), stores)?;
        if chosen.contains(&one) {
            return file.wrong(&name.span(), &key, "is named twice; remove one of the two");
        }
        chosen.push(one);
    }
    if chosen.is_empty() {
        return file.wrong(&several.span(), &key, "names no store");
    }
    Ok(chosen)
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
        (_, 0) => file.wrong(
            here,
            place,
            "there is no store; add a table [stores.NAME] with url = \"s3://BUCKET/PREFIX\" \
             or \"file:///FOLDER\"",
        ),
        (Some(name), _) => file.wrong(
            &name.span(),
            &format!("{place}.store"),
            format!(
                "there is no store called {:?}; there are: {}",
                name.get_ref(),
                known()
            ),
        ),
        (None, 1) => Ok(known()),
        (None, _) => file.wrong(
            here,
            place,
            format!("store is missing; add store = one of: {}", known()),
        ),
    }
}
