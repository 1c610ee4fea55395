//! What a child gets of this program's own environment: what says where things are and how to talk,
//! and nothing that says whom to connect to, or opens a door.
//!
//! A list of what passes, and not of what does not: the store's keys, another entry's password and
//! every client's variables (`PG*`, `MYSQL_*`, …) have names that nobody can list. Whatever else a
//! tool needs, its entry names in `env`.

use std::ffi::OsString;

/// Programs and folders, the person, the language and the time zone; where Kerberos keeps its
/// tickets, OpenSSL its certificates, ssh its agent.
const PASSED_ON: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "TMPDIR",
    "TZ",
    "TZDIR",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_ADDRESS",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_IDENTIFICATION",
    "LC_MEASUREMENT",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NAME",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TELEPHONE",
    "LC_TIME",
    "LD_LIBRARY_PATH",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "KRB5CCNAME",
    "KRB5_CONFIG",
    "KRB5_CLIENT_KTNAME",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "SSH_AUTH_SOCK",
];

/// The variables that a child inherits.
pub(crate) fn passed_on() -> impl Iterator<Item = (&'static str, OsString)> {
    PASSED_ON
        .iter()
        .filter_map(|name| Some((*name, std::env::var_os(name)?)))
}
