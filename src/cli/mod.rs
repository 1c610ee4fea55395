//! What a person types and sees: arguments, dispatch, progress, report, exit codes.

mod args;
mod backup;
mod bench;
mod check;
mod cleanup;
mod console;
mod copy;
#[cfg(feature = "demo")]
mod demo;
mod exit;
mod interrupt;
mod inventory;
mod keygen;
mod keys;
mod limits;
mod list;
mod log;
mod notify;
mod progress;
mod prune;
mod report;
mod restore;
mod serve;
mod show;
mod status;
mod terminal;
mod text;
mod verify;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;

use args::{Args, FromOptions, Task};
use exit::{Exit, Failure};
use interrupt::Signals;
use progress::Display;

use crate::bench::synthetic::Synthetic;
use crate::config::Inventory;

/// Parses the command line, does what it says, and tells the exit code.
pub fn main() -> ExitCode {
    let args = match args::parse() {
        Ok(args) => args,
        Err(exit) => return exit.into(),
    };
    console::start(args.log_format, args.quiet);
    // A child process of a run writes its dump to stdout and has nothing else to do.
    match args.task {
        Task::SqliteDump { path, lock_timeout } => return sqlite_dump(&path, lock_timeout),
        Task::Synthetic { source } => return synthetic(source),
        Task::Guard => {
            crate::dump::guard::stand();
            return ExitCode::SUCCESS;
        }
        _ => crate::dump::guard::arm(),
    }
    if let Err(failure) = limits::open_files().and_then(|()| limits::threads()) {
        return end(&failure);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            return end(&Failure::new(
                Exit::Failed,
                format!("cannot start: {error}"),
            ));
        }
    };
    let result = runtime.block_on(async {
        let signals = Signals::catch()?;
        dispatch(args, signals).await
    });
    terminal::restore();
    // What still runs in the background is over with the process.
    runtime.shutdown_background();
    match (result, console::untold()) {
        (Err(failure), _) | (Ok(Exit::Good), Some(failure)) => end(&failure),
        (Ok(exit), _) => exit.into(),
    }
}

/// Says why the program ends other than well.
fn end(failure: &Failure) -> ExitCode {
    console::error(failure);
    failure.exit.into()
}

/// What every task works with.
struct Session {
    /// The inventory's file.
    config: PathBuf,
    display: Display,
    signals: Signals,
}

impl Session {
    /// Reads the inventory, and says what should be looked at.
    fn inventory(&self) -> Result<Inventory, Failure> {
        let inventory = Inventory::load(&self.config)?;
        warn_of(&inventory);
        Ok(inventory)
    }

    /// The inventory, or one that is nothing but the store which the command line names.
    fn inventory_or(&self, options: &FromOptions) -> Result<Inventory, Failure> {
        let mut inventory = match &options.from {
            None => self.inventory()?,
            Some(url) => {
                let (endpoint, region) = (options.endpoint.as_deref(), options.region.as_deref());
                Inventory::of_store(url, endpoint, region)?
            }
        };
        if !options.trusted_signer.is_empty() {
            inventory
                .signatures
                .trusted
                .0
                .clone_from(&options.trusted_signer);
        }
        Ok(inventory)
    }
}

fn warn_of(inventory: &Inventory) {
    for warning in &inventory.warnings {
        tracing::warn!("{warning}");
    }
}

async fn dispatch(args: Args, signals: Signals) -> Result<Exit, Failure> {
    let mut session = Session {
        config: config_path(args.config.as_deref()),
        display: Display::new(),
        signals,
    };
    let session = &mut session;
    // A service has no other words than its log.
    let is_service = matches!(args.task, Task::Serve { .. });
    let verbose = args
        .verbose
        .max(u8::from(is_service && session.display.is_terminal()));
    log::start(args.log_format, verbose, args.quiet, &session.display);
    match args.task {
        Task::Backup(options) => backup::backup(session, &options).await,
        Task::Restore(options) => restore::restore_backup(session, &options).await,
        Task::Verify(options) => verify::verify(session, &options).await,
        Task::Bench(options) => bench::bench(session, &options).await,
        Task::List(options) => list::list(session, &options).await,
        Task::Show(options) => show::show(session, &options).await,
        Task::Status(options) => status::status(session, &options).await,
        Task::Serve {
            listen,
            token_file,
            allow_actions,
        } => serve::serve(session, listen, token_file.as_deref(), allow_actions).await,
        Task::Notify { test: _ } => notify::test(session).await,
        Task::Prune(options) => prune::prune(session, &options).await,
        Task::Cleanup(options) => cleanup::cleanup(session, &options).await,
        Task::Check(options) => check::check(session, &options).await,
        Task::Copy(options) => copy::copy(session, &options).await,
        Task::Keygen(options) => keygen::keygen(&options),
        Task::Init { file, force } => init(file.or(args.config), force),
        #[cfg(feature = "demo")]
        Task::S3Server { discard } => session.signals.unless(s3_server(discard)).await,
        #[cfg(feature = "demo")]
        Task::Demo => demo::demo(session).await,
        Task::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "tapline", &mut script);
            console::out(&String::from_utf8_lossy(&script));
            Ok(Exit::Good)
        }
        Task::Man { folder } => {
            clap_mangen::generate_to(Args::command(), folder)?;
            Ok(Exit::Good)
        }
        Task::SqliteDump { .. } | Task::Synthetic { .. } | Task::Guard => {
            unreachable!("a child process is not dispatched")
        }
    }
}

/// The inventory that is asked for, or the first that is there.
fn config_path(asked: Option<&Path>) -> PathBuf {
    let local = PathBuf::from("tapline.toml");
    let home =
        std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/tapline/tapline.toml"));
    let usual = [
        Some(local.clone()),
        home,
        Some("/etc/tapline/tapline.toml".into()),
    ];
    let found = usual.into_iter().flatten().find(|path| path.is_file());
    asked.map(Path::to_owned).or(found).unwrap_or(local)
}

/// Writes an inventory to start from, to `tapline.toml` when no file is given, to stdout for `-`.
fn init(file: Option<PathBuf>, force: bool) -> Result<Exit, Failure> {
    let file = file.unwrap_or_else(|| "tapline.toml".into());
    if file == Path::new("-") {
        console::out(crate::config::TEMPLATE);
        return Ok(Exit::Good);
    }
    let shown = file.display();
    let failed = |why: String| Failure::new(Exit::Config, why).step("init");
    if file.exists() && !force {
        return Err(failed(format!("{shown} exists; --force overwrites it")));
    }
    std::fs::write(&file, crate::config::TEMPLATE)
        .map_err(|error| failed(format!("cannot write {shown}: {error}")))?;
    let with = if file == Path::new("tapline.toml") {
        String::new()
    } else {
        format!(" -c {}", crate::dump::quote(&shown.to_string()))
    };
    console::remark(&format!(
        "Wrote {shown}. Next: edit it, `tapline{with} check`, `tapline{with} backup`.\n"
    ));
    Ok(Exit::Good)
}

#[cfg(feature = "demo")]
async fn s3_server(discard: bool) -> Result<Exit, Failure> {
    let server = crate::s3_server::S3Server::start(discard).await?;
    console::out(&format!("{}\n", server.endpoint()));
    std::future::pending().await
}

fn sqlite_dump(path: &Path, lock_timeout: f64) -> ExitCode {
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    let limit = Duration::try_from_secs_f64(lock_timeout).unwrap_or(Duration::MAX);
    match crate::engine::sqlite::dump(path, &mut out, limit).and_then(|_| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => end(&Failure::new(
            Exit::Failed,
            format!("{}: {error}", path.display()),
        )),
    }
}

fn synthetic(source: Synthetic) -> ExitCode {
    match source.write(&mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => end(&Failure::new(Exit::Failed, error.to_string())),
    }
}
