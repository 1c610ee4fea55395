//! `tapline restore`: a backup back into a database, a file, or stdout.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::args::RestoreOptions;
use super::exit::{Exit, Failure};
use super::{Session, console, text};
use crate::access::{access, open_patient_stores};
use crate::catalog::{BackupName, Manifest, Named, look_up_one_source};
use crate::config::{Database, Inventory, Secret, SecretFrom, Selection};
use crate::engine::{self, Engine};
use crate::restore::{RestoreError, Target, restore, restore_into};
use crate::upkeep::{restore_target, stored};

pub(super) async fn restore_backup(
    session: &mut Session,
    options: &RestoreOptions,
) -> Result<Exit, Failure> {
    let inventory = session.inventory_or(&options.from)?;
    let display = session.display.clone();
    let work = async {
        let stores = open_patient_stores(&inventory, options.store.as_deref()).await?;
        let source = options.source.as_deref();
        let named = look_up_one_source(&stores, &options.name, source).await?;
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
    let (backup, cancel, start) = (
        stored(store, manifest, &inventory.run),
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
                        Target::file(path, options.overwrite.then(Vec::new))?,
                        &cancel,
                    )
                    .await
                }
                Place::Database(engine, _) => {
                    let unpack_in = &inventory.staged.dir;
                    restore_into(
                        backup.clone(),
                        &**engine,
                        options.overwrite,
                        unpack_in,
                        &cancel,
                    )
                    .await
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
            if matches!(place, Place::Stdout) {
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
        options: &RestoreOptions,
        manifest: &Manifest,
    ) -> Result<Self, Failure> {
        let to_stdout = options.stdout || options.output.as_deref() == Some(Path::new("-"));
        if to_stdout && manifest.dump_format == "directory" {
            let why = "a dump of several files that only together make sense: \
                       give --output FOLDER instead of stdout";
            return Err(Failure::new(Exit::Usage, why));
        }
        if to_stdout {
            return Ok(Self::Stdout);
        }
        if let Some(path) = &options.output {
            let folder = manifest.entries.len() > 1 || manifest.dump_format == "directory";
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

fn describe(database: &Database) -> String {
    let kind = database.engine.name();
    let at = match (&database.host, &database.socket) {
        (Some(host), _) => format!(" on {host}"),
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
