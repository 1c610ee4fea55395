//! The command line as typed.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub(super) use backup::{BackupOptions, BenchOptions, Timeline};
pub(super) use restore::{KeyOptions, RestoreOptions, VerifyOptions};
pub(super) use store::{CopyOptions, FromOptions, ListOptions, ShowOptions};
pub(super) use upkeep::{CheckOptions, CleanupOptions, KeygenOptions, PruneOptions, StatusOptions};

use super::console;
use super::exit::{Exit, Failure, TABLE};
use crate::archive::HAS_ISAL;
use crate::bench::synthetic::{self, Synthetic};

mod backup;
mod restore;
mod store;
mod upkeep;
mod value;

/// What `--version` says: which program it is, and of gzip's encoders the one that not all have.
const VERSION: &str = if HAS_ISAL {
    concat!(env!("CARGO_PKG_VERSION"), " (gzip to level 3 by ISA-L)")
} else {
    env!("CARGO_PKG_VERSION")
};

/// Stream databases into S3: dump, archive and upload at once, with no temp file.
#[derive(Debug, Parser)]
#[command(version = VERSION, after_help = TABLE)]
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

/// The command line. A word that is not UTF-8 stays one, and is none of ours.
fn words() -> impl Iterator<Item = String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned())
}

/// The log format, when the command line is too wrong to be parsed.
fn json_is_asked_for() -> bool {
    let words: Vec<_> = words().collect();
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
    if words().any(|word| word.split('=').next() == Some(flag)) {
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
    Restore(Box<RestoreOptions>),
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
        /// Serve a page, /metrics, /healthz and /api/v1 there, such as 127.0.0.1:8737; TLS is a
        /// proxy's
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
        /// The file that holds the token for them, as bearer or as basic auth's password; beyond
        /// loopback there must be one
        #[arg(long, value_name = "FILE", requires = "listen")]
        token_file: Option<PathBuf>,
        /// Put buttons on the page that back up, verify and drill a database now
        #[arg(long, requires = "listen")]
        allow_actions: bool,
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
    SqliteDump {
        path: PathBuf,
        #[arg(long, value_name = "SECONDS")]
        lock_timeout: f64,
    },
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Args::command().debug_assert();
    }
}
