//! Options of what reads a backup's archive: `restore` and `verify`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::store::FromOptions;
use super::value;
use crate::catalog::BackupName;

/// More sessions than any server bears.
const MOST_SESSIONS: i64 = 256;

#[expect(clippy::struct_excessive_bools, reason = "flags")]
#[derive(Debug, ClapArgs)]
pub struct RestoreOptions {
    /// Which backup: NAME or NAME@LATEST is the latest of that database, NAME@ID any
    #[arg(value_name = "NAME[@ID]")]
    pub name: BackupName,
    #[command(flatten)]
    pub from: FromOptions,
    #[command(flatten)]
    pub keys: KeyOptions,
    /// Into another database of the same server (for SQLite another file), or URL, such as
    /// postgres://user@host/database
    #[arg(long, value_name = "URL-OR-NAME", conflicts_with_all = ["stdout", "output"])]
    pub to: Option<String>,
    /// Replace what the target holds: by a database beside it, in one step, once all is loaded
    #[arg(long)]
    pub overwrite: bool,
    /// Say what would happen, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask on a terminal before anything is replaced
    #[arg(long, short)]
    pub yes: bool,
    /// Replace the content of the database itself, where there is no room or right for two: a
    /// PostgreSQL database in one transaction, others so that what was there is gone if it fails
    #[arg(long, visible_alias = "replace-in-place", conflicts_with_all = ["stdout", "output"])]
    pub in_place: bool,
    /// How many sessions at once load a PostgreSQL backup that several have made (see `parallel`)
    #[arg(long, short, value_name = "N", default_value = "1", conflicts_with_all = ["stdout", "output"],
        value_parser = clap::value_parser!(u16).range(1..=MOST_SESSIONS))]
    pub jobs: u16,
    /// End the sessions that keep a database from being replaced
    #[arg(long)]
    pub force: bool,
    /// PostgreSQL: what is restored belongs to who restores it
    #[arg(long)]
    pub no_owner: bool,
    /// PostgreSQL: nobody is granted anything
    #[arg(long)]
    pub no_privileges: bool,
    /// PostgreSQL: restore as this role
    #[arg(long, value_name = "NAME")]
    pub role: Option<String>,
    /// MySQL and MariaDB: views, routines, triggers and events are defined by who restores them
    #[arg(long)]
    pub skip_definer: bool,
    /// Only this table, with its indexes, triggers and rights: TABLE, or SCHEMA.TABLE; one that is
    /// there is replaced with --overwrite
    #[arg(long, value_name = "NAME", conflicts_with_all = ["stdout", "output"])]
    pub table: Option<String>,
    /// Definitions without rows
    #[arg(long, conflicts_with_all = ["data_only", "stdout", "output"])]
    pub schema_only: bool,
    /// Rows alone, added to tables that are there, in one transaction
    #[arg(long, conflicts_with_all = ["overwrite", "stdout", "output"])]
    pub data_only: bool,
    /// A setting of the session that loads, such as maintenance_work_mem=1GB
    #[arg(
        long, value_name = "KEY=VALUE", value_parser = value::setting,
        conflicts_with_all = ["stdout", "output"]
    )]
    pub set: Vec<(String, String)>,
    /// How long to wait for a lock that another session holds
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = value::duration)]
    pub lock_timeout: Duration,
    /// Write the dump to stdout
    #[arg(long, conflicts_with = "output")]
    pub stdout: bool,
    /// Write the dump to a file, or to stdout with -; to a folder when it was staged and has several
    /// files
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The environment variable that holds the target's password
    #[arg(long, value_name = "NAME", conflicts_with = "password_file")]
    pub password_env: Option<String>,
    /// The file that holds the target's password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Look in this store of the inventory only
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// Of several sources that have stored under one name, the latest of this one; the beginning of
    /// its fingerprint
    #[arg(long, value_name = "FINGERPRINT")]
    pub source: Option<String>,
    /// What was done, or with --dry-run would be, as JSON
    #[arg(long, conflicts_with = "stdout")]
    pub json: bool,
    /// Log lines instead of a progress bar
    #[arg(long)]
    pub no_progress: bool,
}

#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "flags")]
pub struct VerifyOptions {
    /// Which backup: NAME is the latest of that database, NAME@ID any
    #[arg(value_name = "NAME[@ID]")]
    pub name: Option<BackupName>,
    #[command(flatten)]
    pub from: FromOptions,
    #[command(flatten)]
    pub keys: KeyOptions,
    /// All backups, of all databases or of NAME
    #[arg(long)]
    pub all: bool,
    /// Only ask the store whether the objects are there, with the right sizes and checksums
    #[arg(long, conflicts_with = "drill")]
    pub quick: bool,
    /// Restore each into a scratch database that is made and removed on its server (SQLite: a file
    /// in the temp folder), and count the tables
    #[arg(long)]
    pub drill: bool,
    /// Look in this store of the inventory only
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What opens encrypted backups.
#[derive(Debug, Default, Clone, ClapArgs)]
#[command(next_help_heading = "Encrypted backups")]
pub struct KeyOptions {
    /// A file with private keys of age, or of ssh; several times for several
    #[arg(long, value_name = "FILE", env = "TAPLINE_IDENTITY")]
    pub identity: Vec<PathBuf>,
    /// The environment variable that holds the passphrase [default: a terminal is asked]
    #[arg(long, value_name = "NAME", conflicts_with = "passphrase_file")]
    pub passphrase_env: Option<String>,
    /// The file that holds the passphrase
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}
