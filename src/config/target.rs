//! Where a backup is to be restored to, when that is not where it came from: `--to
//! URL-or-database-name`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use super::{ConfigError, Database, DumpFormat, EngineKind, Secret, Selection, Tls};
use crate::archive::Compression;
use crate::catalog::Retention;

/// The database to restore into. `entry` is the inventory's of that name, if there is one; `to` is
/// a URL, or the name of another database on the entry's server (for SQLite a file); `password` is
/// for a URL.
///
/// # Errors
/// When they do not fit each other or the backup's engine, and when a URL holds a password.
pub fn target(
    name: &str,
    engine: EngineKind,
    entry: Option<&Database>,
    to: Option<&str>,
    password: Option<Secret>,
) -> Result<Database, ConfigError> {
    let wrong = |why: String| Err(ConfigError(why));
    if let Some(text) = to.filter(|to| to.contains("://")) {
        return url(name, engine, text, password);
    }
    let Some(entry) = entry else {
        let why = "the inventory has no such database to restore into: give --to URL, --output FILE or --stdout";
        return wrong(format!("{name}: {why}"));
    };
    if !same_family(entry.engine, engine) {
        let (is, was) = (entry.engine.name(), engine.name());
        return wrong(format!(
            "{}: it is a {is} database, and the backup is of {was}; give --to URL",
            entry.place
        ));
    }
    let mut target = entry.clone();
    if password.is_some() {
        target.password = password;
    }
    match (to, engine) {
        (None, _) if matches!(entry.database, Selection::All { .. }) => {
            // `NAME/DATABASE` of an entry that stands for a whole server.
            let database = name
                .strip_prefix(&entry.name)
                .and_then(|rest| rest.strip_prefix('/'));
            let Some(database) = database else {
                return wrong(format!(
                    "{name} stands for all databases of a server; name one, {name}/DATABASE"
                ));
            };
            target.database = Selection::One(database.into());
        }
        (None, _) => {}
        (Some(path), EngineKind::Sqlite) => target.path = Some(PathBuf::from(path)),
        (Some(_), EngineKind::Command) => {
            return wrong(format!(
                "{}: a command has no other target; change its `restore`",
                entry.place
            ));
        }
        (Some(database), _) if looks_like_a_file(database) => {
            return wrong(format!(
                "--to {database}: that looks like a file; --output {database} writes one, and a \
                 database of that name is {}://HOST/{database}",
                entry.engine.name()
            ));
        }
        (Some(database), _) => target.database = Selection::One(database.into()),
    }
    Ok(target)
}

/// `--to x.sql` would make a database of that name, and nobody means it.
fn looks_like_a_file(name: &str) -> bool {
    const EXTENSIONS: [&str; 8] = ["sql", "dump", "gz", "zst", "tar", "db", "sqlite", "rdb"];
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    name.contains('/') || extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

fn same_family(a: EngineKind, b: EngineKind) -> bool {
    use EngineKind::{Mariadb, Mysql};
    a == b || matches!((a, b), (Mysql, Mariadb) | (Mariadb, Mysql))
}

fn url(
    name: &str,
    engine: EngineKind,
    text: &str,
    password: Option<Secret>,
) -> Result<Database, ConfigError> {
    // The URL is not repeated in a message: it may hold a password.
    let wrong = |why: &str| Err(ConfigError(format!("--to: {why}")));
    let Ok(url) = Url::parse(text) else {
        return wrong("not a URL; one looks like postgres://user@host:5432/database");
    };
    let scheme = match url.scheme() {
        "postgres" | "postgresql" => EngineKind::Postgres,
        "mysql" => EngineKind::Mysql,
        "mariadb" => EngineKind::Mariadb,
        "sqlite" | "file" => EngineKind::Sqlite,
        _ => return wrong("a URL begins with postgres://, mysql://, mariadb:// or sqlite://"),
    };
    if !same_family(scheme, engine) {
        return wrong(&format!(
            "the backup is of {}, and the URL of {}",
            engine.name(),
            scheme.name()
        ));
    }
    if url.password().is_some() {
        return wrong(
            "a password must not stand in a command line, where everybody sees it; use --password-env or --password-file",
        );
    }
    if url.fragment().is_some() {
        return wrong("what stands after # is not known");
    }
    let tls = tls_of(&url, scheme)?;
    let decode = |text: &str| {
        let decoded = percent_decode_str(text)
            .decode_utf8()
            .ok()
            .map(std::borrow::Cow::into_owned);
        decoded.ok_or_else(|| ConfigError("--to: the URL is not UTF-8 when decoded".into()))
    };
    let path = decode(url.path())?;
    let database = path.strip_prefix('/').unwrap_or_default();
    let selection = match scheme {
        EngineKind::Sqlite => Selection::Whole,
        _ if database.is_empty() => {
            return wrong(
                "the URL names no database; one looks like postgres://user@host/database",
            );
        }
        _ => Selection::One(database.to_owned()),
    };
    let host = match url.host_str() {
        // `[::1]` is how a URL writes ::1.
        Some(host) if !host.is_empty() => {
            Some(decode(host.trim_start_matches('[').trim_end_matches(']'))?)
        }
        _ => None,
    };
    Ok(Database {
        name: name.to_owned(),
        place: "--to".into(),
        encryption: None,
        engine: scheme,
        host: host.filter(|_| scheme != EngineKind::Sqlite),
        port: url.port(),
        socket: None,
        user: if url.username().is_empty() {
            None
        } else {
            Some(decode(url.username())?)
        },
        password,
        database: selection,
        dump_format: DumpFormat::Plain,
        parallel: 1,
        options: Vec::new(),
        dump_tool: None,
        tools: None,
        service: None,
        tls,
        path: (scheme == EngineKind::Sqlite).then(|| PathBuf::from(path)),
        lock_timeout: super::model::LOCK_TIMEOUT,
        command: Vec::new(),
        restore: Vec::new(),
        env: BTreeMap::new(),
        allow_empty: false,
        strict: false,
        retries: 0,
        formerly: Vec::new(),
        file_name: None,
        compression: Compression::None,
        level: 0,
        stores: Vec::new(),
        expected_size: None,
        expect_every: None,
        schedule: None,
        retention: Retention::default(),
    })
}

/// The settings after a URL's question mark, which are called as in the inventory.
fn tls_of(url: &Url, kind: EngineKind) -> Result<Tls, ConfigError> {
    let mut tls = Tls::default();
    for (key, value) in url.query_pairs() {
        let path = || Some(PathBuf::from(value.as_ref()));
        match (kind, key.as_ref()) {
            (EngineKind::Postgres, "sslmode")
            | (EngineKind::Mysql | EngineKind::Mariadb, "ssl_mode") => {
                let modes = Tls::modes(kind);
                if !modes.contains(&value.as_ref()) {
                    let modes = modes.join(", ");
                    return Err(ConfigError(format!("--to: {key} must be one of: {modes}")));
                }
                tls.mode = Some(value.into_owned());
            }
            (EngineKind::Postgres, "sslrootcert")
            | (EngineKind::Mysql | EngineKind::Mariadb, "ssl_ca") => tls.ca = path(),
            (EngineKind::Postgres, "sslcert")
            | (EngineKind::Mysql | EngineKind::Mariadb, "ssl_cert") => tls.cert = path(),
            (EngineKind::Postgres, "sslkey")
            | (EngineKind::Mysql | EngineKind::Mariadb, "ssl_key") => tls.key = path(),
            _ => {
                return Err(ConfigError(
                    "--to: after ? there may be sslmode, sslrootcert, sslcert, sslkey (PostgreSQL) \
                     or ssl_mode, ssl_ca, ssl_cert, ssl_key (MySQL, MariaDB)"
                        .into(),
                ));
            }
        }
    }
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_target_but_no_password() {
        let target = |engine, to| target("shop", engine, None, Some(to), None);
        let given = target(
            EngineKind::Postgres,
            "postgres://me%40x@[::1]:5433/gr%C3%B6%C3%9Fe",
        )
        .unwrap();
        assert_eq!(
            (given.host.as_deref(), given.port, given.user.as_deref()),
            (Some("::1"), Some(5433), Some("me@x"))
        );
        assert_eq!(given.database, Selection::One("größe".into()));
        assert_eq!(
            target(EngineKind::Mariadb, "mysql://h/d").unwrap().engine,
            EngineKind::Mysql
        );
        let tls = target(
            EngineKind::Postgres,
            "postgres://h/d?sslmode=verify-full&sslrootcert=/ca%20x.pem",
        )
        .unwrap()
        .tls;
        assert_eq!(tls.mode.as_deref(), Some("verify-full"));
        assert_eq!(tls.ca, Some(PathBuf::from("/ca x.pem")));
        let file = target(EngineKind::Sqlite, "sqlite:///tmp/x.db").unwrap();
        assert_eq!(file.path, Some(PathBuf::from("/tmp/x.db")));
        for (engine, to, why) in [
            (
                EngineKind::Postgres,
                "postgres://me:sesame@h/d",
                "--password-env",
            ),
            (
                EngineKind::Postgres,
                "postgres://h/d?password=sesame",
                "after ? there may be",
            ),
            (
                EngineKind::Postgres,
                "postgres://h/d?sslmode=sesame",
                "sslmode must be one of",
            ),
            (EngineKind::Postgres, "postgres://h", "names no database"),
            (
                EngineKind::Postgres,
                "mysql://h/d",
                "the backup is of postgres",
            ),
            (EngineKind::Postgres, "http://h/d", "postgres://"),
            (EngineKind::Postgres, "other", "no such database"),
        ] {
            let error = target(engine, to).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("sesame"), "{error}");
        }
    }

    #[test]
    fn what_looks_like_a_file_is_no_database_of_the_same_server() {
        let text = "[stores.s]\nurl = \"s3://bucket\"\n[databases.shop]\nengine = \"postgres\"\n";
        let inventory = crate::config::Inventory::parse("t.toml".as_ref(), text).unwrap();
        let entry = inventory.entry("shop");
        let target = |to| target("shop", EngineKind::Postgres, entry, Some(to), None);
        for file in ["x.sql", "./x", "dumps/shop", "shop.dump"] {
            let error = target(file).unwrap_err().to_string();
            assert!(error.contains(&format!("--output {file}")), "{error}");
        }
        for name in ["shop_copy", "shop.v2", "Größe 1"] {
            let named = target(name).unwrap().database;
            assert_eq!(named, Selection::One(name.into()));
        }
        let named = target("postgres://h/x.sql").unwrap().database;
        assert_eq!(named, Selection::One("x.sql".into()));
    }
}
