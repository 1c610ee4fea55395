//! The command line as typed.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, Resettable, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::{
    Args as ClapArgs, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
};

use super::console;
use super::exit::{Exit, Failure, TABLE};
use crate::archive::Compression;
use crate::bench::synthetic::{self, Synthetic};
use crate::catalog::{BackupName, Mode, Retention, Within};
use crate::config::{LONGEST, MOST_MEMORY};
use crate::signature::SignerName;
use crate::upkeep::cleanup::SHORTEST_LIMIT;

/// Stream databases into S3: dump, archive and upload at once, with no temp file.
#[derive(Debug, Parser)]
#[command(version, after_help = TABLE)]
pub(super) struct Args {
    /// The inventory [default: ./tapline.toml, ~/.config/tapline/tapline.toml,
    /// /etc/tapline/tapline.toml]
    #[arg(
        long,
        short,
        global = true,
        env = "TAPLINE_CONFIG",
        value_name = "FILE"
    )]
    pub config: Option<PathBuf>,
    /// How log lines look
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        env = "TAPLINE_LOG_FORMAT"
    )]
    pub log_format: LogFormat,
    /// Say more; twice for even more
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say only what went wrong
    #[arg(long, short, global = true)]
    pub quiet: bool,
    #[command(subcommand)]
    pub task: Task,
}

/// Parses the command line. Help, and what is wrong with it, is printed.
///
/// # Errors
/// When there is nothing more to do.
pub(super) fn parse() -> Result<Args, Exit> {
    let command = without_empty(Args::command());
    let parsed = command
        .clone()
        .try_get_matches()
        .and_then(|matches| Args::from_arg_matches(&matches));
    parsed.map_err(|error| {
        if !error.use_stderr() {
            let _ = error.print();
            return Exit::Good;
        }
        if json_is_asked_for() {
            console::start(LogFormat::Json, false);
            let text = error.render().to_string();
            let message = text.trim().trim_start_matches("error: ");
            console::error(&Failure::new(Exit::Usage, message).step("command line"));
        } else {
            let _ = error.print();
        }
        if let Some(name) = variable_at_fault(&command, &error) {
            console::notice(format_args!("the value is the environment's, of {name}"));
        }
        Exit::Usage
    })
}

/// An environment variable that is empty says nothing, as for a shell's `${X:-default}`.
fn without_empty(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| match arg.get_env() {
            Some(name) if is_empty(name) => arg.env(Resettable::Reset),
            _ => arg,
        })
        .mut_subcommands(without_empty)
}

/// The log format, when the command line is too wrong to be parsed.
fn json_is_asked_for() -> bool {
    let words: Vec<_> = std::env::args().collect();
    let flag = words.iter().any(|word| word == "--log-format=json")
        || words
            .windows(2)
            .any(|pair| pair == ["--log-format", "json"]);
    flag || std::env::var("TAPLINE_LOG_FORMAT").is_ok_and(|format| format == "json")
}

/// The environment variable whose value does not parse, when no flag gave it.
fn variable_at_fault(command: &Command, error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = shown.split([' ', '=']).next()?;
    if std::env::args().any(|word| word.split('=').next() == Some(flag)) {
        return None;
    }
    let tasks = std::iter::once(command).chain(command.get_subcommands());
    let mut args = tasks.flat_map(Command::get_arguments);
    let arg = args.find(|arg| arg.get_long() == flag.strip_prefix("--"))?;
    Some(arg.get_env()?.to_string_lossy().into_owned())
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Task {
    /// Back up databases: all of the inventory, or those named
    Backup(Box<BackupOptions>),
    /// Restore a backup: into its database, another one, a file, or to stdout
    Restore(RestoreOptions),
    /// Read backups back and check every byte, without restoring them: by default the latest of
    /// each database
    Verify(VerifyOptions),
    /// Measure streamed against staged runs, on the inventory's databases and stores, and leave
    /// nothing behind
    Bench(Box<BenchOptions>),
    /// List the backups in the stores
    List(ListOptions),
    /// Show what one backup is, and how to read it without this program
    Show(ShowOptions),
    /// Say how each database stands: its last good backup and its age, and what should be looked at
    Status(StatusOptions),
    /// Run as a service: back up, verify, drill, prune and clean up by the inventory's schedules.
    /// SIGHUP reads the inventory again, SIGTERM ends it in order
    Serve {
        /// Serve a page, /metrics, /healthz and /api/v1/status there, such as 127.0.0.1:8737; TLS is a
        /// proxy's
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
        /// The file that holds the token for them, as bearer or as basic auth's password; beyond
        /// loopback there must be one
        #[arg(long, value_name = "FILE", requires = "listen")]
        token_file: Option<PathBuf>,
    },
    /// Try who is told how a run went, as the inventory says it
    Notify {
        /// Send a notice that says it is a test; a ping counts as a success
        #[arg(long, required = true)]
        test: bool,
    },
    /// Remove the backups that no rule keeps, never the newest good one; without --confirm only say
    /// which
    Prune(PruneOptions),
    /// Remove what never became a backup: open uploads, and volumes without a manifest; without
    /// --confirm only list it
    Cleanup(CleanupOptions),
    /// Try everything without dumping: inventory, tools, logins, stores
    Check(CheckOptions),
    /// Copy a backup into a second store, without its database
    Copy(CopyOptions),
    /// Make a pair of keys, for encrypted backups or for signatures, and say how the inventory names
    /// them
    Keygen(KeygenOptions),
    /// Write a commented inventory to start from
    Init {
        /// Where to; - is stdout [default: --config, or tapline.toml]
        file: Option<PathBuf>,
        /// Overwrite a file that exists
        #[arg(long)]
        force: bool,
    },
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
    /// Write the man pages into a folder
    #[command(name = "__man", hide = true)]
    Man { folder: PathBuf },
    /// Write a SQLite database's page image to stdout
    #[command(name = crate::engine::sqlite::SUBCOMMAND, hide = true)]
    SqliteDump { path: PathBuf },
    /// End the tools of a run that was killed
    #[command(name = crate::dump::guard::SUBCOMMAND, hide = true)]
    Guard,
    /// Write a synthetic dump to stdout
    #[command(name = synthetic::SUBCOMMAND, hide = true)]
    Synthetic {
        #[arg(value_name = "SIZE[:RATIO]")]
        source: Synthetic,
    },
    /// See it work: an S3 server on loopback, sample databases, a backup, and the archives read
    /// back
    #[cfg(feature = "demo")]
    Demo,
    /// Serve S3 from memory on loopback, and print how to reach it
    #[cfg(feature = "demo")]
    #[command(name = "__s3-server", hide = true)]
    S3Server {
        /// Keep only sizes and checksums of what is uploaded in parts
        #[arg(long)]
        discard: bool,
    },
}

#[derive(Debug, Default, ClapArgs)]
pub(super) struct BackupOptions {
    /// Only these databases; NAME/DATABASE is one of those that `database = "*"` stands for
    pub names: Vec<String>,
    /// Databases at once; 1 is one after the other
    #[arg(long, env = "TAPLINE_JOBS", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Of these, on one server
    #[arg(long, env = "TAPLINE_JOBS_PER_HOST", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs_per_host: Option<u16>,
    /// PostgreSQL: sessions that dump one database at once; the archive is made of many files then
    #[arg(long, env = "TAPLINE_PARALLEL", value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parallel: Option<u16>,
    /// Memory of the whole run, such as 512MiB
    #[arg(long, env = "TAPLINE_MEMORY", value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u64>,
    /// How long an upload that fails is tried again, such as 15m
    #[arg(long, env = "TAPLINE_RETRY_FOR", value_name = "TIME", value_parser = duration)]
    pub retry_for: Option<Duration>,
    /// End a job in which nothing moved for so long
    #[arg(long, env = "TAPLINE_STALL_TIMEOUT", value_name = "TIME", value_parser = duration)]
    pub stall_timeout: Option<Duration>,
    /// Stream, or stage: dump to files, then archive, then upload
    #[arg(long, env = "TAPLINE_MODE", value_parser = modes())]
    pub mode: Option<Mode>,
    /// Where a staged run keeps its files [default: the temp folder]
    #[arg(long, value_name = "DIR")]
    pub staged_dir: Option<PathBuf>,
    /// Compress all databases so
    #[arg(long, value_parser = compressions())]
    pub compression: Option<Compression>,
    /// At this level: gzip 1 to 9, zstd 1 to 19
    #[arg(long)]
    pub level: Option<i32>,
    /// Instead of databases, a dump that is made up: `synthetic:SIZE[:RATIO]`
    #[arg(long, hide = true, conflicts_with = "names", value_parser = source)]
    pub source: Option<Synthetic>,
    /// Instead of the stores, one that swallows everything
    #[arg(long, hide = true, value_parser = ["null"])]
    pub store: Option<String>,
    /// Below the stores' own prefixes
    #[arg(long, hide = true, value_name = "PREFIX")]
    pub under: Option<String>,
    /// Prune each database after its own success, by its keep_… rules in the inventory
    #[arg(long)]
    pub prune_after_backup: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Write a JSON report to a file, or to stdout with -
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Draw which worker was busy with which database: as text after the run, or into FILE.svg or
    /// FILE.html
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-",
          value_parser = timeline)]
    pub timeline: Option<Timeline>,
    /// Log lines instead of progress bars
    #[arg(long)]
    pub no_progress: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "flags")]
#[derive(Debug, ClapArgs)]
pub(super) struct RestoreOptions {
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
    /// How long to wait for a lock that another session holds
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
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
    /// Log lines instead of a progress bar
    #[arg(long)]
    pub no_progress: bool,
}

#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "flags")]
pub(super) struct VerifyOptions {
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

#[derive(Debug, Default, Clone, ClapArgs)]
pub(super) struct ListOptions {
    /// Only this database, or those that a `database = "*"` of this name stands for; an
    /// s3://BUCKET/PREFIX or file:///FOLDER is looked into without an inventory
    pub name: Option<String>,
    #[command(flatten)]
    pub from: FromOptions,
    /// Look in this store of the inventory only
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct ShowOptions {
    /// Which backup: NAME or NAME@LATEST is the latest of that database, NAME@ID any
    #[arg(value_name = "NAME[@ID]")]
    pub name: BackupName,
    #[command(flatten)]
    pub from: FromOptions,
    /// Look in this store of the inventory only
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// The stored manifest as it is
    #[arg(long)]
    pub json: bool,
}

/// What opens encrypted backups.
#[derive(Debug, Default, Clone, ClapArgs)]
#[command(next_help_heading = "Encrypted backups")]
pub(super) struct KeyOptions {
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

/// A store that is read without an inventory: after a disaster there is a bucket, and nothing else.
#[derive(Debug, Default, Clone, ClapArgs)]
#[command(next_help_heading = "Without an inventory")]
pub(super) struct FromOptions {
    /// Look here instead of in the inventory's stores: s3://BUCKET/PREFIX, with the AWS chain's
    /// credentials (AWS_ACCESS_KEY_ID, ~/.aws, …), or file:///FOLDER
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// Where the bucket is, for servers other than AWS
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL_S3")]
    pub endpoint: Option<String>,
    /// Its region [default: by the AWS chain]
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// Take only backups that the owner of this minisign key has signed; several times for several
    /// [default: trusted_signers of the inventory]
    #[arg(long, value_name = "RW…")]
    pub trusted_signer: Vec<SignerName>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct StatusOptions {
    /// Only these databases; NAME/DATABASE is one of those that `database = "*"` stands for
    pub names: Vec<String>,
    /// End with 5 when a last good backup began longer ago, such as 26h [default: by expect_every
    /// of the inventory]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub max_age: Option<Duration>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Write metrics for Prometheus' textfile collector, too
    #[arg(long, value_name = "FILE.prom")]
    pub prometheus: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct CheckOptions {
    /// Only these databases, and their stores
    pub names: Vec<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct CopyOptions {
    /// Which backup: NAME or NAME@LATEST is the latest of that database, NAME@ID any
    #[arg(value_name = "NAME[@ID]")]
    pub name: BackupName,
    /// Into this store of the inventory
    #[arg(long, value_name = "NAME")]
    pub to: String,
    /// From this store of the inventory [default: whichever other has it]
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// Log lines instead of a progress bar
    #[arg(long)]
    pub no_progress: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct KeygenOptions {
    /// Write the private key to a new file, which only its owner may read [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// A key that signs manifests instead, in minisign's format
    #[arg(long)]
    pub signing: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct BenchOptions {
    /// Only these databases
    pub names: Vec<String>,
    /// How often each mode is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub runs: u16,
    /// Count the first runs too, which find every cache cold
    #[arg(long)]
    pub no_warmup: bool,
    /// Two modes to compare, or one to measure
    #[arg(long, default_value = "streamed,staged", value_delimiter = ',', value_parser = modes())]
    pub modes: Vec<Mode>,
    /// Instead of databases, a dump that is made up: `synthetic:SIZE[:RATIO]`
    #[arg(long, conflicts_with = "names", value_parser = source)]
    pub source: Option<Synthetic>,
    /// Instead of the stores, one that swallows everything
    #[arg(long, value_parser = ["null"])]
    pub store: Option<String>,
    /// Compress all databases so
    #[arg(long, value_parser = compressions())]
    pub compression: Option<Compression>,
    /// At this level: gzip 1 to 9, zstd 1 to 19
    #[arg(long)]
    pub level: Option<i32>,
    /// Databases at once
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Where temp files go, in a folder that is removed again [default: the temp folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Write all that was measured as JSON to a file, or to stdout with -
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw the measures and the median runs' timelines into FILE.svg
    #[arg(long, value_name = "FILE.svg", value_parser = svg)]
    pub plot: Option<PathBuf>,
}

/// The parser of one of a few values, by name.
fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    values: [(&'static str, T); N],
) -> impl TypedValueParser<Value = T> {
    let value = move |given: String| {
        values
            .into_iter()
            .find(|(name, _)| *name == given)
            .expect("one of the names")
            .1
    };
    PossibleValuesParser::new(values.map(|(name, _)| name)).map(value)
}

fn modes() -> impl TypedValueParser<Value = Mode> {
    one_of([Mode::Streamed, Mode::Staged].map(|mode| (mode.name(), mode)))
}

fn compressions() -> impl TypedValueParser<Value = Compression> {
    one_of([Compression::Gzip, Compression::Zstd, Compression::None].map(|one| (one.name(), one)))
}

fn source(text: &str) -> Result<Synthetic, String> {
    text.strip_prefix("synthetic:")
        .ok_or("write synthetic:SIZE or synthetic:SIZE:RATIO")?
        .parse()
}

/// How and where to draw a timeline.
#[derive(Debug, Clone)]
pub(super) enum Timeline {
    Text,
    Svg(PathBuf),
    Html(PathBuf),
}

fn timeline(text: &str) -> Result<Timeline, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => Ok(Timeline::Svg(path)),
        Some("html") => Ok(Timeline::Html(path)),
        _ if text == "-" => Ok(Timeline::Text),
        _ => Err("write a file that ends with .svg or .html, or --timeline alone for text".into()),
    }
}

fn svg(text: &str) -> Result<PathBuf, String> {
    match timeline(text) {
        Ok(Timeline::Svg(path)) => Ok(path),
        _ => Err("write a file that ends with .svg".into()),
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct PruneOptions {
    /// Only these databases; with rules given as options also some that are not in the inventory
    pub names: Vec<String>,
    /// Only in this store of the inventory
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// Of several sources that have stored under one name, only this one; the beginning of its
    /// fingerprint
    #[arg(long, value_name = "FINGERPRINT")]
    pub source: Option<String>,
    /// Remove them; otherwise nothing is
    #[arg(long)]
    pub confirm: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub rules: Rules,
}

#[derive(Debug, ClapArgs)]
#[command(
    next_help_heading = "Rules; when one is given they are the whole policy, in place of the inventory's"
)]
pub(super) struct Rules {
    /// Keep the newest N
    #[arg(long = "keep-last", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    last: Option<u32>,
    /// Keep the newest of each of the last N hours that have a backup
    #[arg(long = "keep-hourly", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    hourly: Option<u32>,
    /// The same of N days, in UTC
    #[arg(long = "keep-daily", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    daily: Option<u32>,
    /// The same of N weeks, which begin on Monday
    #[arg(long = "keep-weekly", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    weekly: Option<u32>,
    /// The same of N months
    #[arg(long = "keep-monthly", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    monthly: Option<u32>,
    /// The same of N years
    #[arg(long = "keep-yearly", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    yearly: Option<u32>,
    /// Keep what is at most so much older than the newest, such as 30d or "1y 6mo"
    #[arg(long = "keep-within", value_name = "TIME")]
    within: Option<Within>,
}

impl Rules {
    /// The policy that they are; `None` when none is given.
    pub fn policy(&self) -> Option<Retention> {
        let number = |given: Option<u32>| given.and_then(NonZeroU32::new);
        let policy = Retention {
            last: number(self.last),
            hourly: number(self.hourly),
            daily: number(self.daily),
            weekly: number(self.weekly),
            monthly: number(self.monthly),
            yearly: number(self.yearly),
            within: self.within,
        };
        (!policy.is_empty()).then_some(policy)
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct CleanupOptions {
    /// Leave alone what belongs to a backup with a sign of life in this time: a part that arrived,
    /// an object that changed
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = age)]
    pub older_than: Duration,
    /// Only in this store of the inventory
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// Remove it; otherwise nothing is
    #[arg(long)]
    pub confirm: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

fn memory(text: &str) -> Result<u64, String> {
    let size = text
        .parse::<bytesize::ByteSize>()
        .ok()
        .map(|size| size.as_u64());
    size.filter(|size| (1..=MOST_MEMORY).contains(size))
        .ok_or_else(|| "write a size such as 512MiB, at most 1PiB".into())
}

fn age(text: &str) -> Result<Duration, String> {
    let age = duration(text)?;
    if age < SHORTEST_LIMIT {
        return Err("must be an hour or more: what is younger may be of a running backup".into());
    }
    Ok(age)
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write a time such as 90s, 15m or 2h")?;
    Duration::try_from(parsed)
        .ok()
        .filter(|time| !time.is_zero() && *time <= LONGEST)
        .ok_or_else(|| "must be longer than nothing, and at most ten years".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Args::command().debug_assert();
    }
}
