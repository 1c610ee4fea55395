//! A backup into a database: one that is there, one that is made for it, or one that only lives for a drill.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{RestoreError, Stored, Target, check, restore};
use crate::engine::{Contents, Engine, Load};

/// Restores a backup into the engine's database. One that is not there is made, and taken away again when the restore
/// fails; one that holds something is refused, or with `replace` emptied.
///
/// # Errors
/// [`RestoreError`]. The store is asked for the volumes before the database is touched.
pub async fn restore_into(
    stored: Arc<Stored>,
    engine: &dyn Engine,
    replace: bool,
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

    let (target, keeps_a_part) = match load {
        Load::Client { command, at_once } => (Target::client(&command), !at_once),
        Load::File { path, stale } => (Target::file(&path, stale), false),
    };
    let result = match target {
        Ok(target) => restore(stored, target, cancel).await,
        Err(error) => Err(error),
    };
    let Err(error) = result else { return Ok(()) };
    if contents == Contents::Absent {
        if let Err(left) = engine.remove().await {
            tracing::error!("the database that was made for the restore could not be removed again: {left}");
        }
    } else if keeps_a_part {
        tracing::error!("the target holds a part of the dump now: this engine cannot load a dump in one transaction");
    }
    Err(error)
}

/// Restores a backup into a scratch database that the engine stands for, counts its tables, and removes it. `None` where
/// the engine has no tables to count.
///
/// # Errors
/// [`RestoreError`], also when something of that name is there already or cannot be removed.
pub async fn drill(
    stored: Arc<Stored>,
    engine: &dyn Engine,
    cancel: &CancellationToken,
) -> Result<Option<u64>, RestoreError> {
    if engine.contents().await? != Contents::Absent {
        return Err(RestoreError::Target("the scratch database is there already".into()));
    }
    restore_into(stored, engine, false, cancel).await?;
    let tables = engine.count_tables().await;
    engine.remove().await?;
    Ok(tables?)
}
