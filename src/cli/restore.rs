//! `tapline restore`: a backup back into a database, a file, or stdout.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args::RestoreOptions as Options;
use super::exit::{Exit, Failure};
use super::{Session, console, keys, text};
use crate::access::{access, open_patient_stores};
use crate::catalog::{BackupName, Manifest, Named, look_up_one_source};
use crate::config::{Database, Inventory, Secret, SecretFrom, Selection};
use crate::engine::{self, Contents, Engine, LoadOptions, Part};
use crate::restore::{Patience, RestoreError, RestoreOptions, Target, restore, restore_into};
use crate::upkeep::{restore_target, stored};

pub(super) async fn restore_backup(
    session: &mut Session,
    options: &Options,
) -> Result<Exit, Failure> {
    let inventory = session.inventory_or(&options.from)?;
    let display = session.display.clone();
    let work = async {
        let stores = open_patient_stores(&inventory, options.store.as_deref()).await?;
        let source = options.source.as_deref();
        let formerly = inventory.formerly(&options.name.database);
        let named = {
            let trusted = &inventory.signatures.trusted;
            let copies = inventory.stores_of(&options.name.database);
            look_up_one_source(&stores, copies, &options.name, source, formerly, trusted).await?
        };
        let place = Place::choose(&inventory, options, &named.manifest).await?;
        Ok((named, place))
    };
    let (named, place) = session.signals.unless(work).await?;
    let Named {
        store, manifest, ..
    } = named;
    let name = BackupName {
        database: manifest.database.clone(),
        id: Some(manifest.backup_id.clone()),
    };
    let how = how(options, &inventory);
    let keys = keys::identities(session, &inventory, &options.keys, [&manifest].into_iter());
    let identities = keys.await?;
    if options.dry_run || asks(options) {
        let plan = place.plan(&name, &manifest, &how).await?;
        if options.dry_run {
            console::out(&if options.json {
                text::json(
                    &json!({ "version": 1, "name": name.to_string(), "result": "planned",
                    "to": place.to_string(), "replaces": plan.replaces, "words": plan.words }),
                )
            } else {
                format!("{}\n", plan.words)
            });
            return Ok(Exit::Good);
        }
        if plan.replaces && !confirmed(&plan.words)? {
            let why = format!("{name} was not restored: nothing was done");
            return Err(Failure::new(Exit::Failed, why).step("restore"));
        }
    }
    let (backup, cancel, start) = (
        stored(store, manifest, &inventory.run, identities),
        CancellationToken::new(),
        Instant::now(),
    );
    let work = async {
        let restored = async {
            match &place {
                Place::Stdout => {
                    restore(backup.clone(), Target::Stdout(tokio::io::stdout()), &cancel).await
                }
                Place::Folder(path) => {
                    restore(backup.clone(), Target::folder(path)?, &cancel).await
                }
                Place::File(path) => {
                    restore(
                        backup.clone(),
                        Target::file(path, options.overwrite)?,
                        &cancel,
                    )
                    .await
                }
                Place::Database(engine, _) => {
                    let unpack_in = &inventory.staged.dir;
                    let into = restore_into(backup.clone(), &**engine, &how, unpack_in, &cancel);
                    Box::pin(into).await
                }
            }
        };
        tokio::select! {
            restored = restored => restored,
            () = display.show_read(&name, &backup, !options.no_progress) => {
                unreachable!("progress is shown until the restore is over")
            }
        }
    };
    let (restored, interrupted) = session
        .signals
        .tidy(&display, "ending the client", &cancel, || false, work)
        .await?;
    display.clear();
    match (restored, interrupted) {
        (Ok(()), _) => {
            let (size, seconds) = (backup.progress.written(), start.elapsed().as_secs_f64());
            let what = format!(
                "{name} restored to {place}: {} in {}, {} MB/s; size and SHA-256 are right\n",
                text::size(size),
                text::time(seconds),
                text::rate(size, seconds)
            );
            if options.json {
                let done = json!({ "version": 1, "name": name.to_string(), "result": "restored",
                    "to": place.to_string(), "bytes": size, "seconds": seconds });
                console::out(&text::json(&done));
            } else if matches!(place, Place::Stdout) {
                console::aside(&what);
            } else {
                console::remark(&what);
            }
            Ok(Exit::Good)
        }
        (Err(RestoreError::Cancelled), Some(exit)) => {
            Err(Failure::new(exit, format!("{name} was not restored")).step("restore"))
        }
        (Err(error), _) => {
            let (exit, hint) = match error {
                RestoreError::Store(_) => (Exit::Store, String::new()),
                RestoreError::Damaged(_) => (Exit::Check, String::new()),
                RestoreError::Locked(_) => (Exit::Config, String::new()),
                RestoreError::Target(_) if backup.progress.written() > 0 => (
                    Exit::Failed,
                    format!("\n`tapline verify {name}` tells whether the backup itself is whole"),
                ),
                RestoreError::Target(_) | RestoreError::Cancelled => (Exit::Failed, String::new()),
            };
            Err(
                Failure::new(exit, format!("{name} was not restored: {error}{hint}"))
                    .step("restore"),
            )
        }
    }
}

/// How the command line wants it to be restored.
fn how(options: &Options, inventory: &Inventory) -> RestoreOptions {
    RestoreOptions {
        replace: options.overwrite,
        in_place: options.in_place,
        jobs: usize::from(options.jobs),
        load: LoadOptions {
            no_owner: options.no_owner,
            no_privileges: options.no_privileges,
            role: options.role.clone(),
            skip_definer: options.skip_definer,
            table: options.table.clone(),
            part: match (options.schema_only, options.data_only) {
                (true, _) => Part::Definitions,
                (_, true) => Part::Rows,
                _ => Part::All,
            },
            set: options.set.clone(),
            force: options.force,
            lock_timeout: options.lock_timeout,
        },
        patience: Patience {
            lock: options.lock_timeout,
            stall: inventory.run.stall_timeout,
        },
    }
}

/// Whether there is somebody to ask before something is replaced.
fn asks(options: &Options) -> bool {
    options.overwrite && !options.yes && std::io::stdin().is_terminal()
}

/// Asks on the terminal.
fn confirmed(plan: &str) -> std::io::Result<bool> {
    eprint!("{plan}\nGo on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What a restore would do.
struct Plan {
    words: String,
    /// Whether something that is there goes.
    replaces: bool,
}

/// Where a backup is restored to.
enum Place {
    Stdout,
    File(PathBuf),
    Folder(PathBuf),
    Database(Arc<dyn Engine>, String),
}

impl Place {
    async fn choose(
        inventory: &Inventory,
        options: &Options,
        manifest: &Manifest,
    ) -> Result<Self, Failure> {
        let to_stdout = options.stdout || options.output.as_deref() == Some(Path::new("-"));
        if to_stdout && options.json {
            let why = "--json and the dump would both be on stdout: give --output FILE";
            return Err(Failure::new(Exit::Usage, why));
        }
        if to_stdout && manifest.dump_format == "directory" {
            let why = "a dump of several files that only together make sense: \
                       give --output FOLDER instead of stdout";
            return Err(Failure::new(Exit::Usage, why));
        }
        if to_stdout {
            return Ok(Self::Stdout);
        }
        if let Some(path) = &options.output {
            let folder = manifest.file_names().len() > 1 || manifest.dump_format == "directory";
            if folder && path.exists() {
                let why = format!(
                    "{} exists: nothing was done; name a folder that does not",
                    path.display()
                );
                return Err(Failure::new(Exit::Failed, why));
            }
            if path.exists() && !options.overwrite {
                let why = format!(
                    "{} exists: nothing was done; --overwrite replaces it",
                    path.display()
                );
                return Err(Failure::new(Exit::Failed, why));
            }
            return Ok(if folder {
                Self::Folder(path.clone())
            } else {
                Self::File(path.clone())
            });
        }
        let password = match (&options.password_env, &options.password_file) {
            (Some(name), _) => Some((SecretFrom::Env(name.clone()), "--password-env")),
            (None, Some(path)) => Some((SecretFrom::File(path.clone()), "--password-file")),
            (None, None) => None,
        };
        let password = password.map(|(from, flag)| Secret {
            from,
            place: flag.into(),
        });
        let database = restore_target(inventory, manifest, options.to.as_deref(), password)?;
        let engine = engine::open(
            &database,
            access(&database, &inventory.run, std::env::current_exe()?).await?,
        );
        Ok(Self::Database(engine, describe(&database)))
    }
}

impl Place {
    /// What a restore to here would do, in words.
    async fn plan(
        &self,
        name: &BackupName,
        manifest: &Manifest,
        how: &RestoreOptions,
    ) -> Result<Plan, Failure> {
        let size = manifest.dump_size().unwrap_or(manifest.archive.size);
        let from = format!("{name} ({})", text::size(size));
        let is_there = |path: &Path| path.exists();
        let (what, replaces) = match self {
            Place::Stdout => ("is written there".to_owned(), false),
            Place::File(path) if is_there(path) => ("is there and would be replaced".into(), true),
            Place::File(_) | Place::Folder(_) => ("is made".to_owned(), false),
            Place::Database(..) if manifest.dump_format == "globals" => {
                ("keeps what it has, and gets what it has not".into(), false)
            }
            Place::Database(engine, _) => {
                let contents = engine.contents().await.map_err(|error| {
                    Failure::new(Exit::Failed, error.to_string()).step("restore")
                })?;
                match contents {
                    Contents::Absent => ("is not there and would be made".into(), false),
                    Contents::Empty => ("is there and empty".into(), false),
                    Contents::Unknown if !how.replace => (
                        "cannot be asked what it holds: without --overwrite nothing would be done"
                            .into(),
                        false,
                    ),
                    Contents::Unknown => (
                        "is asked for nothing: what it holds cannot be told".into(),
                        true,
                    ),
                    Contents::Holds(holds) if !how.replace => (
                        format!("holds {holds}: without --overwrite nothing would be done"),
                        false,
                    ),
                    Contents::Holds(holds) if how.in_place => (
                        format!("holds {holds}: they would be replaced in place"),
                        true,
                    ),
                    Contents::Holds(holds) => (
                        format!(
                            "holds {holds}: they would be replaced in one step, once all is loaded"
                        ),
                        true,
                    ),
                }
            }
        };
        let words = format!("restore of {from}\n  to {self}\n  which {what}");
        Ok(Plan { words, replaces })
    }
}

fn describe(database: &Database) -> String {
    let kind = database.engine.name();
    let port = |host: &String| match database.port {
        Some(port) => format!("{host}:{port}"),
        None => host.clone(),
    };
    let at = match (&database.host, &database.socket) {
        (Some(host), _) => format!(" on {}", port(host)),
        (None, Some(socket)) => format!(" on {}", socket.display()),
        (None, None) => String::new(),
    };
    match (&database.database, &database.path) {
        (Selection::One(name), _) => format!("{kind} database {name:?}{at}"),
        (_, Some(path)) => path.display().to_string(),
        _ => format!("{kind}{at}"),
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Stdout => f.write_str("stdout"),
            Place::File(path) | Place::Folder(path) => write!(f, "{}", path.display()),
            Place::Database(_, what) => f.write_str(what),
        }
    }
}
