//! Options for the dump tool that this program cannot let through: they say what the dump is,
//! where it goes or whose it is, which keys of the entry say already.

use super::EngineKind;

/// What one of a tool's options says that a key says, or must not be said.
struct Refusal {
    long: &'static str,
    short: char,
    why: &'static str,
}

const fn no(long: &'static str, short: char, why: &'static str) -> Refusal {
    Refusal { long, short, why }
}

const TO_STDOUT: &str = "writes the dump elsewhere, and nothing would be stored; remove it";
const WHICH: &str = "names the database; use the key database";
const SECRET: &str = "a password on a command line is seen by everybody; use the key password";
const NO_DUMP: &str = "makes no dump; remove it";

const PG_DUMP: &[Refusal] = &[
    no("file", 'f', TO_STDOUT),
    no(
        "format",
        'F',
        "changes what the dump is; use the key format",
    ),
    no(
        "compress",
        'Z',
        "the archive is compressed already; use the key compression",
    ),
    no(
        "create",
        'C',
        "names the database in the dump, which could then be restored nowhere else; remove it",
    ),
    no(
        "jobs",
        'j',
        "is for dumps into a folder; use staged.parallel",
    ),
    no("dbname", 'd', WHICH),
    no("host", 'h', "use the key host"),
    no("port", 'p', "use the key port"),
    no("username", 'U', "use the key user"),
    no(
        "password",
        'W',
        "nobody is there to be asked; use the key password",
    ),
    no("help", '?', NO_DUMP),
    no("version", 'V', NO_DUMP),
];

const PG_DUMPALL: &[Refusal] = &[
    no("file", 'f', TO_STDOUT),
    no("format", 'F', "changes what the dump is; remove it"),
    no(
        "database",
        'l',
        "there is one to connect to by default; remove it",
    ),
    no("dbname", 'd', "use the keys host, port and user"),
    no("host", 'h', "use the key host"),
    no("port", 'p', "use the key port"),
    no("username", 'U', "use the key user"),
    no(
        "password",
        'W',
        "nobody is there to be asked; use the key password",
    ),
    no("help", '?', NO_DUMP),
    no("version", 'V', NO_DUMP),
];

/// No tool has such a short option.
const NONE: char = '\0';

const MYSQLDUMP: &[Refusal] = &[
    no("result-file", 'r', TO_STDOUT),
    no("tab", 'T', TO_STDOUT),
    no("dir", NONE, TO_STDOUT),
    no(
        "databases",
        'B',
        "would name the database in the dump, which could then be restored nowhere else; remove it",
    ),
    no(
        "all-databases",
        'A',
        "would name the databases in the dump, which could then be restored nowhere else; use database = \"*\"",
    ),
    no("password", 'p', SECRET),
    no("host", 'h', "use the key host"),
    no("port", 'P', "use the key port"),
    no("socket", 'S', "use the key socket"),
    no("protocol", NONE, "use the keys host and socket"),
    no("user", 'u', "use the key user"),
    no(
        "defaults-file",
        NONE,
        "option files are not read; use the entry's keys",
    ),
    no(
        "defaults-extra-file",
        NONE,
        "option files are not read; use the entry's keys",
    ),
    no(
        "defaults-group-suffix",
        NONE,
        "option files are not read; use the entry's keys",
    ),
    no(
        "no-defaults",
        NONE,
        "option files are not read anyway; remove it",
    ),
    no("print-defaults", NONE, NO_DUMP),
    no("login-path", NONE, "use the keys host, user and password"),
    no("help", '?', NO_DUMP),
    no("version", 'V', NO_DUMP),
];

/// Options whose value may be the next word.
const PG_LONG_VALUES: &[&str] = &[
    "encoding",
    "extension",
    "exclude-database",
    "exclude-extension",
    "exclude-schema",
    "exclude-table",
    "exclude-table-and-children",
    "exclude-table-data",
    "exclude-table-data-and-children",
    "extra-float-digits",
    "filter",
    "include-foreign-data",
    "lock-wait-timeout",
    "restrict-key",
    "role",
    "rows-per-insert",
    "schema",
    "section",
    "snapshot",
    "superuser",
    "sync-method",
    "table",
    "table-and-children",
];
const PG_SHORT_VALUES: &str = "efEFhjlnNpSTtUZd";
const MYSQL_LONG_VALUES: &[&str] = &[
    "character-sets-dir",
    "compatible",
    "connect-timeout",
    "default-auth",
    "default-character-set",
    "fields-enclosed-by",
    "fields-escaped-by",
    "fields-optionally-enclosed-by",
    "fields-terminated-by",
    "ignore-database",
    "ignore-error",
    "ignore-table",
    "ignore-table-data",
    "init-command",
    "init-command-add",
    "lines-terminated-by",
    "log-error",
    "max-allowed-packet",
    "net-buffer-length",
    "network-timeout",
    "plugin-dir",
    "server-public-key-path",
    "set-gtid-purged",
    "ssl-ca",
    "ssl-capath",
    "ssl-cert",
    "ssl-cipher",
    "ssl-crl",
    "ssl-crlpath",
    "ssl-key",
    "ssl-mode",
    "tls-ciphersuites",
    "tls-version",
    "where",
];
const MYSQL_SHORT_VALUES: &str = "hPSuwrT";

/// The first of `options` that cannot be, without its value, and why.
pub(super) fn refused(
    kind: EngineKind,
    globals: bool,
    options: &[String],
) -> Option<(String, &'static str)> {
    let is_postgres = kind == EngineKind::Postgres;
    let (refusals, long_values, short_values) = match kind {
        EngineKind::Postgres if globals => (PG_DUMPALL, PG_LONG_VALUES, PG_SHORT_VALUES),
        EngineKind::Postgres => (PG_DUMP, PG_LONG_VALUES, PG_SHORT_VALUES),
        _ => (MYSQLDUMP, MYSQL_LONG_VALUES, MYSQL_SHORT_VALUES),
    };
    let mut words = options.iter();
    while let Some(word) = words.next() {
        let takes_the_next;
        if let Some(long) = word.strip_prefix("--").filter(|long| !long.is_empty()) {
            let (name, has_value) = match long.split_once('=') {
                Some((name, _)) => (name, true),
                None => (long, false),
            };
            let name = if is_postgres {
                name.to_owned()
            } else {
                mysql_name(name)
            };
            // Tools take a name's beginning for the whole of it.
            if let Some(no) = refusals.iter().find(|no| no.long.starts_with(&name)) {
                return Some((format!("--{name}"), no.why));
            }
            takes_the_next = !has_value && long_values.iter().any(|long| long.starts_with(&name));
        } else if let Some(cluster) = word
            .strip_prefix('-')
            .filter(|it| !it.is_empty() && *it != "-")
        {
            let mut letters = cluster.chars();
            let mut open = false;
            while let Some(letter) = letters.next() {
                if let Some(no) = refusals.iter().find(|no| no.short == letter) {
                    return Some((format!("-{letter}"), no.why));
                }
                if short_values.contains(letter) {
                    // What follows in this word is its value.
                    open = letters.as_str().is_empty();
                    break;
                }
                if letter == '#' {
                    break;
                }
            }
            takes_the_next = open;
        } else {
            let why = "is no option: it would name another database or a table; write --option=value, or use the key database";
            return Some((word.clone(), why));
        }
        if takes_the_next {
            words.next();
        }
    }
    None
}

/// `pg_dump`'s options that say nothing about which rows there are or how they are written.
const PARALLEL: &[&str] = &[
    "clean",
    "disable-dollar-quoting",
    "if-exists",
    "large-objects",
    "lock-wait-timeout",
    "no-acl",
    "no-blobs",
    "no-comments",
    "no-large-objects",
    "no-owner",
    "no-privileges",
    "no-publications",
    "no-security-labels",
    "no-subscriptions",
    "no-sync",
    "no-table-access-method",
    "no-tablespaces",
    "no-toast-compression",
    "no-unlogged-table-data",
    "role",
    "verbose",
];
/// The same, as letters.
const PARALLEL_SHORT: &str = "bBcOvx";

/// The first of `pg_dump`'s options that a dump by several sessions cannot have.
pub(super) fn unfit_for_parallel(options: &[String]) -> Option<String> {
    let mut words = options.iter();
    while let Some(word) = words.next() {
        if let Some(long) = word.strip_prefix("--") {
            let name = long.split('=').next().unwrap_or_default();
            if !PARALLEL.contains(&name) {
                return Some(format!("--{name}"));
            }
            if ["role", "lock-wait-timeout"].contains(&name) && name == long {
                words.next();
            }
        } else if let Some(letter) = word
            .trim_start_matches('-')
            .chars()
            .find(|letter| !PARALLEL_SHORT.contains(*letter))
        {
            return Some(format!("-{letter}"));
        }
    }
    None
}

/// A name as MySQL's and MariaDB's tools read it.
fn mysql_name(name: &str) -> String {
    let name = name.replace('_', "-");
    name.strip_prefix("loose-").unwrap_or(&name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(kind: EngineKind, options: &[&str]) -> Option<String> {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        refused(kind, false, &options).map(|(option, _)| option)
    }

    #[test]
    fn what_changes_a_dump_is_refused_in_every_spelling() {
        for options in [
            &["--file=x"][..],
            &["--file", "x"],
            &["-f", "x"],
            &["-fx"],
            &["-vfx"],
            &["--fil=x"],
            &["-Fc"],
            &["-vFc"],
            &["--form=c"],
            &["--format", "custom"],
            &["-C"],
            &["-vC"],
            &["--create"],
            &["--cre"],
            &["-j4"],
            &["--jobs=2"],
            &["-d", "x"],
            &["--dbname=x"],
            &["-hx"],
            &["--host=x"],
            &["-p1"],
            &["-Ux"],
            &["-W"],
            &["--password"],
            &["other"],
            &["--verbose", "other"],
            &["-t", "a", "b"],
            &["--"],
            &["-"],
            &["--", "x"],
            &["-Z9"],
            &["--help"],
            &["-V"],
        ] {
            assert!(
                verdict(EngineKind::Postgres, options).is_some(),
                "{options:?}"
            );
        }
        for options in [
            &["--result-file=x"][..],
            &["--result_file", "x"],
            &["--loose-result-file=x"],
            &["-rx"],
            &["-T/x"],
            &["--tab=x"],
            &["-B"],
            &["--databases"],
            &["-vA"],
            &["--all-databases"],
            &["--all-d"],
            &["-psesame"],
            &["--password=sesame"],
            &["--pass=sesame"],
            &["-vpx"],
            &["t1"],
            &["--where", "a", "t1"],
            &["--defaults-file=x"],
            &["--user=x"],
            &["-P3"],
        ] {
            for kind in [EngineKind::Mysql, EngineKind::Mariadb] {
                let refused = verdict(kind, options);
                assert!(refused.is_some(), "{options:?}");
                assert!(!refused.unwrap().contains("sesame"));
            }
        }
    }

    #[test]
    fn what_chooses_rows_or_their_form_is_not_for_several_sessions() {
        let unfit = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(ToString::to_string).collect();
            unfit_for_parallel(&options)
        };
        for options in [
            &["--exclude-table=logs"][..],
            &["-T", "logs"],
            &["-vnFoo"],
            &["--inserts"],
            &["--schema-only"],
            &["--exclude-t=x"],
            &["--encoding=LATIN1"],
            &["--enable-row-security"],
            &["--data-only"],
            &["--snapshot=x"],
        ] {
            assert!(unfit(options).is_some(), "{options:?}");
        }
        for options in [
            &["--no-owner", "-x", "--clean", "--if-exists"][..],
            &["-vO", "--role", "dumper", "--lock-wait-timeout", "5s"],
            &["--role=dumper", "--lock-wait-timeout=5s"],
        ] {
            assert_eq!(unfit(options), None, "{options:?}");
        }
    }

    #[test]
    fn what_chooses_from_the_database_is_let_through() {
        for options in [
            &["--exclude-table=logs"][..],
            &["--exclude-table", "logs"],
            &["-T", "logs"],
            &["-Tfile"],
            &["-nFoo", "-vO"],
            &["--no-owner", "-x"],
            &["--schema-only"],
            &["--lock-wait-timeout=5s"],
            &["-t", "-C"],
            &["--inserts"],
            &["--clean"],
        ] {
            assert_eq!(verdict(EngineKind::Postgres, options), None, "{options:?}");
        }
        for options in [
            &["--ignore-table=a.b"][..],
            &["--ignore-table", "a.b"],
            &["-w", "id > 5"],
            &["--where=id > 5"],
            &["--skip-comments"],
            &["--no-data"],
            &["--dump-history"],
            &["--max-allowed-packet=1G"],
            &["--all-tablespaces"],
        ] {
            assert_eq!(verdict(EngineKind::Mariadb, options), None, "{options:?}");
        }
    }
}
