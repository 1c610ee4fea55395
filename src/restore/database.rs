//! A backup into a database: one that is there, one that is made for it, or one that only lives for
//! a drill.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::target::failed;
use super::{RestoreError, Stored, Target, check, restore};
use crate::dump::Child;
use crate::engine::{Contents, Engine, Load, Unit};
use crate::scratch::RunFolder;
use crate::scratch::check_free;

/// Restores a backup into the engine's database. One that is not there is made, and taken away
/// again when the restore fails; one that holds something is refused, or with `replace` emptied.
///
/// # Errors
/// [`RestoreError`]; what was unpacked for a client that reads a folder is gone again. The store is
/// asked for the volumes before the database is touched.
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
    let parts_stay = matches!(
        load,
        Load::Client {
            unit: Unit::None | Unit::Lenient,
            ..
        }
    );
    let (made, is_file) = (
        contents == Contents::Absent,
        matches!(load, Load::File { .. }),
    );
    if let Load::Folder(_) = load {
        let what = "the dump, which its client reads from a folder";
        std::fs::create_dir_all(unpack_in)
            .and_then(|()| check_free(unpack_in, stored.manifest.dump_size(), what))
            .map_err(failed(unpack_in))?;
    }
    if replaces && parts_stay {
        // What is there goes before the dump comes, and cannot come back: first be sure of every
        // byte.
        tracing::info!("reading the whole backup before the target is emptied");
        restore(stored.once_more(), Target::Nowhere, cancel).await?;
    }
    match contents {
        Contents::Absent => engine.create().await?,
        Contents::Holds(_) => engine.clear().await?,
        Contents::Empty | Contents::Unknown => {}
    }

    let Err(error) = into(stored, load, !made, unpack_in, cancel).await else {
        return Ok(());
    };
    // A file has had another name until it was whole: what has its name now is not this one's.
    if made && !is_file {
        if let Err(left) = engine.remove().await {
            tracing::error!(
                "the database that was made for the restore could not be removed again: {left}"
            );
        }
    } else if parts_stay && !made {
        tracing::error!(
            "the target holds a part of the dump now: this engine cannot load a dump in one transaction"
        );
    }
    Err(error)
}

async fn into(
    stored: Arc<Stored>,
    load: Load,
    is_there: bool,
    unpack_in: &Path,
    cancel: &CancellationToken,
) -> Result<(), RestoreError> {
    match load {
        Load::Client { command, unit } => {
            restore(stored, Target::client(&command, unit).await?, cancel).await
        }
        Load::File { path, stale } => {
            let stale = is_there.then_some(stale);
            restore(stored, Target::file(&path, stale)?, cancel).await
        }
        Load::Folder(command) => {
            // Dropped, it is removed with all that is in it; when this program is killed, by the
            // next that makes one.
            let folder = RunFolder::create(unpack_in).map_err(failed(unpack_in))?;
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

/// Restores a backup into a scratch database that the engine stands for, counts its tables, and
/// removes it. `None` where the engine has no tables to count.
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
        return Err(RestoreError::Target(
            "the scratch database is there already".into(),
        ));
    }
    restore_into(stored, engine, false, unpack_in, cancel).await?;
    let tables = engine.count_tables().await;
    engine.remove().await?;
    Ok(tables?)
}
