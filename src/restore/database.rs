//! A backup into a database: one that is there, one that is made for it, or one that only lives for a drill.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{RestoreError, Stored, Target, check, restore};
use crate::disk::check_free;
use crate::engine::{Child, Contents, Engine, Load};

/// Restores a backup into the engine's database. One that is not there is made, and taken away again when the restore
/// fails; one that holds something is refused, or with `replace` emptied.
///
/// # Errors
/// [`RestoreError`]; what was unpacked for a client that reads a folder is gone again. The store is asked for the volumes before the database is touched.
pub async fn restore_into(
    stored: Arc<Stored>,
    engine: &dyn Engine,
    replace: bool,
    unpack_in: &Path,
    cancel: &CancellationToken,
) -> Result<(), RestoreError> {
    check(&stored).await?;
    let contents = engine.contents().await?;
    let replaces = match &contents {
        Contents::Holds(what) if !replace => {
            return Err(RestoreError::Target(format!(
                "the target holds {what}: nothing was done; --overwrite replaces them, --to names another target"
            )));
        }
        Contents::Holds(_) => true,
        Contents::Absent | Contents::Empty | Contents::Unknown => false,
    };
    let load = engine.load(&stored.manifest.dump_format, replaces)?;
    match contents {
        Contents::Absent => engine.create().await?,
        Contents::Holds(_) => engine.clear().await?,
        Contents::Empty | Contents::Unknown => {}
    }

    let keeps_a_part = matches!(load, Load::Client { at_once: false, .. });
    let Err(error) = into(stored, load, unpack_in, cancel).await else { return Ok(()) };
    if contents == Contents::Absent {
        if let Err(left) = engine.remove().await {
            tracing::error!("the database that was made for the restore could not be removed again: {left}");
        }
    } else if keeps_a_part {
        tracing::error!("the target holds a part of the dump now: this engine cannot load a dump in one transaction");
    }
    Err(error)
}

async fn into(
    stored: Arc<Stored>,
    load: Load,
    unpack_in: &Path,
    cancel: &CancellationToken,
) -> Result<(), RestoreError> {
    match load {
        Load::Client { command, .. } => restore(stored, Target::client(&command)?, cancel).await,
        Load::File { path, stale } => restore(stored, Target::file(&path, stale)?, cancel).await,
        Load::Folder(command) => {
            let disk = |error: std::io::Error| RestoreError::Target(format!("{}: {error}", unpack_in.display()));
            check_free(unpack_in, stored.manifest.dump_size(), "the dump, which its client reads from a folder")
                .map_err(disk)?;
            // Dropped, it is removed with all that is in it.
            let folder = tempfile::Builder::new().prefix("tapline-restore-").tempdir_in(unpack_in).map_err(disk)?;
            let dump = folder.path().join("dump");
            restore(stored, Target::folder(&dump)?, cancel).await?;
            let (mut client, stdin) = Child::writing(&command.args([dump.display().to_string()]))?;
            drop(stdin);
            let result = tokio::select! {
                biased;
                () = cancel.cancelled() => Err(RestoreError::Cancelled),
                ended = client.wait() => ended.map_err(RestoreError::from),
            };
            if result.is_err() {
                client.kill().await;
            }
            result
        }
    }
}

/// Restores a backup into a scratch database that the engine stands for, counts its tables, and removes it. `None` where
/// the engine has no tables to count.
///
/// # Errors
/// [`RestoreError`], also when something of that name is there already or cannot be removed.
pub async fn drill(
    stored: Arc<Stored>,
    engine: &dyn Engine,
    unpack_in: &Path,
    cancel: &CancellationToken,
) -> Result<Option<u64>, RestoreError> {
    if engine.contents().await? != Contents::Absent {
        return Err(RestoreError::Target("the scratch database is there already".into()));
    }
    restore_into(stored, engine, false, unpack_in, cancel).await?;
    let tables = engine.count_tables().await;
    engine.remove().await?;
    Ok(tables?)
}
