//! What a person types and sees: arguments, dispatch, progress, report, exit codes.

mod args;
mod backup;
mod bench;
mod check;
mod cleanup;
#[cfg(feature = "demo")]
mod demo;
mod exit;
mod interrupt;
mod inventory;
mod list;
mod log;
mod progress;
mod prune;
mod report;
mod restore;
mod show;
mod text;
mod verify;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Args, Task};
use exit::{Exit, Failure};

use crate::bench::synthetic::Synthetic;

/// Parses the command line, does what it says, and tells the exit code.
pub fn main() -> ExitCode {
    let args = Args::parse();
    // A child process of a run writes its dump to stdout and has nothing else to do.
    match args.task {
        Task::SqliteDump { path } => return sqlite_dump(&path),
        Task::Synthetic { source } => return synthetic(source),
        Task::Guard => {
            crate::dump::guard::stand();
            return ExitCode::SUCCESS;
        }
        _ => crate::dump::guard::arm(),
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(Exit::Failed, format!("cannot start: {error}")).print(),
    };
    let result = runtime.block_on(dispatch(args));
    // What still runs in the background is over with the process.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => failure.print(),
    }
}

async fn dispatch(args: Args) -> Result<Exit, Failure> {
    let display = progress::Display::new();
    log::start(args.log_format, args.verbose, args.quiet, &display);
    let config = || config_path(args.config.as_deref());
    match args.task {
        Task::Backup(options) => backup::backup(&config(), &options, &display).await,
        Task::Restore(options) => restore::restore_backup(&config(), &options, &display).await,
        Task::Verify(options) => verify::verify(&config(), &options, &display).await,
        Task::Bench(options) => bench::bench(&config(), &options, &display).await,
        Task::List { name, json } => list::list(&config(), name.as_deref(), json).await,
        Task::Show { name, store, json } => {
            show::show(&config(), &name, store.as_deref(), json).await
        }
        Task::Prune(options) => prune::prune(&config(), &options).await,
        Task::Cleanup(options) => cleanup::cleanup(&config(), &options).await,
        Task::Check { names } => check::check(&config(), &names).await,
        Task::Init { file, force } => init(&file, force),
        #[cfg(feature = "demo")]
        Task::S3Server { discard } => s3_server(discard).await,
        #[cfg(feature = "demo")]
        Task::Demo => demo::demo(&display).await,
        Task::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "tapline", &mut script);
            text::out(&String::from_utf8_lossy(&script));
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

fn init(file: &Path, force: bool) -> Result<Exit, Failure> {
    if file.exists() && !force {
        return Err(Failure::new(
            Exit::Config,
            format!("{} exists; --force overwrites it", file.display()),
        ));
    }
    std::fs::write(file, crate::config::TEMPLATE).map_err(|error| {
        Failure::new(
            Exit::Config,
            format!("cannot write {}: {error}", file.display()),
        )
    })?;
    text::out(&format!(
        "Wrote {}. Next: edit it, `tapline check`, `tapline backup`.\n",
        file.display()
    ));
    Ok(Exit::Good)
}

#[cfg(feature = "demo")]
async fn s3_server(discard: bool) -> Result<Exit, Failure> {
    let server = crate::s3_server::S3Server::start(discard).await?;
    text::out(&format!("{}\n", server.endpoint()));
    std::future::pending().await
}

fn sqlite_dump(path: &Path) -> ExitCode {
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    match crate::engine::sqlite::dump(path, &mut out).and_then(|_| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::new(Exit::Failed, format!("{}: {error}", path.display())).print(),
    }
}

fn synthetic(source: Synthetic) -> ExitCode {
    match source.write(&mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::new(Exit::Failed, error.to_string()).print(),
    }
}
