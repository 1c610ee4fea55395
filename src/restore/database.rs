//! A backup into a database: one that is there, one that is made for it, or one that only lives for
//! a drill.
//!
//! Where the engine can have databases beside one another, the dump is loaded into a new one, which
//! takes the target's place when all of it has been read, checked and loaded: whatever ends this
//! program, the target is what it was or what was restored. Elsewhere, and where a person says so,
//! the target's own content is replaced.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::target::failed;
use super::unlock::properties;
use super::watch::{Patience, watch};
use super::{RestoreError, Stored, Target, check, restore, unlock};
use crate::catalog::Properties;
use crate::engine::{
    Beside, Contents, Destination, Engine, Load, LoadOptions, Part, Purpose, Replacement, Unit,
};
use crate::scratch::{RunFolder, check_free};

/// How a backup is to be restored into a database.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Whether what the target holds may be replaced.
    pub replace: bool,
    /// Whether it is replaced in place.
    pub in_place: bool,
    /// How many sessions load a dump that several have made.
    pub jobs: usize,
    /// How the dump is loaded.
    pub load: LoadOptions,
    /// How long it waits.
    pub patience: Patience,
}

/// What is the same for every way to restore one backup.
struct Work<'a> {
    stored: Arc<Stored>,
    options: &'a RestoreOptions,
    /// Where a dump is unpacked whose client reads a folder.
    unpack_in: &'a Path,
    cancel: &'a CancellationToken,
}

/// Restores a backup into the engine's database. One that holds something is refused, or replaced.
///
/// # Errors
/// [`RestoreError`]. The store is asked for the volumes before the database is touched.
pub async fn restore_into(
    stored: Arc<Stored>,
    engine: &dyn Engine,
    options: &RestoreOptions,
    unpack_in: &Path,
    cancel: &CancellationToken,
) -> Result<(), RestoreError> {
    check(&stored).await?;
    unlock(&stored).await?;
    // Roles and tablespaces are added to a server's, and no database's content.
    let is_of_server = stored.manifest.dump_format == "globals";
    let contents = if is_of_server {
        Contents::Unknown
    } else {
        engine.contents().await?
    };
    let of_table = options.load.table.as_deref();
    let contents = match (of_table, contents) {
        (_, Contents::Absent) if options.load.part == Part::Rows => {
            return Err(RestoreError::Target(
                "there is no such database, and --data-only loads rows into tables that are there: \
                 nothing was done"
                    .into(),
            ));
        }
        // Rows are added to what is there, and replace nothing.
        (_, Contents::Holds(_) | Contents::Empty) if options.load.part == Part::Rows => {
            Contents::Empty
        }
        (Some(table), Contents::Holds(_)) => engine.holds_table(table).await?,
        (_, contents) => contents,
    };
    if let Contents::Holds(what) = &contents
        && !options.replace
    {
        return Err(RestoreError::Target(format!(
            "the target holds {what}: nothing was done; --overwrite replaces them, --to names \
             another target"
        )));
    }
    // What its program replaces, only a command knows.
    if contents == Contents::Unknown && !is_of_server && !options.replace {
        return Err(RestoreError::Target(
            "what the target of a command holds is not known, and its restore program may replace \
             it: nothing was done; --overwrite lets it"
                .into(),
        ));
    }
    let work = Work {
        stored,
        options,
        unpack_in,
        cancel,
    };
    if !options.in_place && !is_of_server && options.load.part != Part::Rows {
        let said = stored_said(&work.stored).await?;
        let made = engine.beside(Purpose::Restore, said.as_ref(), &options.load);
        match made.await? {
            Replacement::Beside(mut beside) => {
                work.beside(&mut *beside).await?;
                // From here on nothing is given up: it is one step, and short.
                if let Err(error) = beside.switch().await {
                    discard(&mut *beside).await;
                    return Err(error.into());
                }
                return Ok(());
            }
            Replacement::InPlace(why) if !matches!(contents, Contents::Empty) => {
                let what = match contents {
                    Contents::Absent => "cannot be made",
                    _ => "cannot be replaced by one beside it",
                };
                let way = match contents {
                    Contents::Absent => "let somebody make it, and restore again",
                    _ => "--in-place replaces its content, and says what that risks",
                };
                return Err(RestoreError::Target(format!(
                    "the database {what}: {why}; nothing was done; {way}"
                )));
            }
            Replacement::InPlace(_) | Replacement::Other => {}
        }
    }
    work.in_place(engine, contents).await
}

/// What the backup says about the database itself.
async fn stored_said(stored: &Stored) -> Result<Option<Properties>, RestoreError> {
    let said = properties(stored).await?;
    if said.as_ref().is_some_and(Properties::is_newer) {
        tracing::warn!(
            "a newer tapline ({}) has written what is said about the database itself: what this \
             one does not know of it is not restored",
            stored.manifest.tapline
        );
    }
    Ok(said)
}

async fn discard(beside: &mut dyn Beside) {
    if let Err(left) = beside.discard().await {
        tracing::error!(
            "the database that was made for the restore could not be removed again; the next \
             restore tries to: {left}"
        );
    }
}

impl Work<'_> {
    /// Into a new database, which goes again when that fails.
    async fn beside(&self, beside: &mut dyn Beside) -> Result<(), RestoreError> {
        let loaded = self.load(beside.engine(), Destination::Scratch).await;
        if loaded.is_err() {
            discard(beside).await;
        }
        loaded
    }

    /// Into the database itself.
    async fn in_place(&self, engine: &dyn Engine, contents: Contents) -> Result<(), RestoreError> {
        let replace = matches!(contents, Contents::Holds(_));
        let into = Destination::Place { replace };
        let made = contents == Contents::Absent;
        let format = &self.stored.manifest.dump_format;
        let load = engine.load(format, into, &self.options.load).await?;
        let (is_file, is_whole) = match &load {
            Load::File { .. } => (true, true),
            Load::Client(load) | Load::Folder(load) => {
                (false, matches!(load.unit, Unit::Transaction(_)))
            }
        };
        if replace && !is_whole {
            tracing::warn!(
                "the content is replaced in place, which this engine cannot do in one transaction: \
                 if it fails, what the target held is gone"
            );
            // First be sure of every byte.
            tracing::info!("reading the whole backup before the target is emptied");
            restore(self.stored.once_more(), Target::Nowhere, self.cancel).await?;
        }
        if made && !is_file {
            let said = stored_said(&self.stored).await?;
            engine.create(said.as_ref()).await?;
        } else if replace && self.options.load.table.is_none() {
            engine.clear().await?;
        }
        let Err(error) = self.put(engine, load, replace).await else {
            return Ok(());
        };
        // A file has had another name until it was whole: what has its name now is not this one's.
        if made && !is_file {
            if let Err(left) = engine.remove().await {
                tracing::error!(
                    "the database that was made for the restore could not be removed again: {left}"
                );
            }
        } else if !is_whole && contents != Contents::Unknown {
            tracing::error!("the target holds a part of the dump now");
        }
        Err(error)
    }

    async fn load(&self, engine: &dyn Engine, into: Destination) -> Result<(), RestoreError> {
        let format = &self.stored.manifest.dump_format;
        let load = engine.load(format, into, &self.options.load).await?;
        self.put(engine, load, false).await
    }

    /// The dump to where it goes, unless it takes too long.
    async fn put(
        &self,
        engine: &dyn Engine,
        load: Load,
        replace: bool,
    ) -> Result<(), RestoreError> {
        // What was begun must be ended in any case, so the watch only fires a token.
        let given_up = self.cancel.child_token();
        let mut why = None;
        let mut put = Box::pin(self.carry(load, replace, &given_up));
        let watch = watch(engine, &self.stored.progress, self.options.patience);
        let result = tokio::select! {
            done = &mut put => done,
            error = watch => {
                why = Some(error);
                given_up.cancel();
                put.await
            }
        };
        match (result, why) {
            (Err(RestoreError::Cancelled), Some(why)) => Err(why),
            (result, _) => result,
        }
    }

    async fn carry(
        &self,
        load: Load,
        replace: bool,
        cancel: &CancellationToken,
    ) -> Result<(), RestoreError> {
        let stored = self.stored.clone();
        match load {
            Load::Client(load) => {
                let many = stored.manifest.parallel.is_some();
                let at_once = if many { self.options.jobs } else { 1 };
                let target = Target::client(load, at_once).await?;
                if self.options.jobs > 1 && !matches!(target, Target::Sessions(_)) {
                    let why = if many {
                        "a part of a backup, and one that replaces in place, is one transaction"
                    } else {
                        "it is in one file (see parallel)"
                    };
                    tracing::info!("one session loads the backup, and not several: {why}");
                }
                restore(stored, target, cancel).await
            }
            Load::File { path, settle } => {
                restore(
                    stored,
                    Target::database_file(&path, replace, settle)?,
                    cancel,
                )
                .await
            }
            Load::Folder(load) => {
                let unpack_in = self.unpack_in;
                let what = "the dump, which its client reads from a folder";
                let manifest = &stored.manifest;
                let size = manifest.dump_size().unwrap_or(manifest.archive.size);
                std::fs::create_dir_all(unpack_in)
                    .and_then(|()| check_free(unpack_in, size, what))
                    .map_err(failed(unpack_in))?;
                // Dropped, it is removed with all that is in it; when this program is killed, by
                // the next that makes one.
                let folder = RunFolder::create(unpack_in).map_err(failed(unpack_in))?;
                let dump = folder.path().join("dump");
                restore(stored, Target::folder(&dump)?, cancel).await?;
                let client = Client::start_on_folder(load, &dump).await?;
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => Err(RestoreError::Cancelled),
                    loaded = client.finish() => loaded,
                }
            }
        }
    }
}

/// Restores a backup into a scratch database beside the engine's, looks at it, and removes it: how
/// many tables it has. `None` where the engine has no tables to count.
///
/// # Errors
/// [`RestoreError`], also when it cannot be made, is not sound, or cannot be removed.
pub async fn drill(
    stored: Arc<Stored>,
    engine: &dyn Engine,
    patience: Patience,
    unpack_in: &Path,
    cancel: &CancellationToken,
) -> Result<Option<u64>, RestoreError> {
    check(&stored).await?;
    unlock(&stored).await?;
    let options = RestoreOptions {
        replace: false,
        in_place: false,
        jobs: 1,
        load: LoadOptions::default(),
        patience,
    };
    let work = Work {
        stored,
        options: &options,
        unpack_in,
        cancel,
    };
    let said = stored_said(&work.stored).await?;
    match engine
        .beside(Purpose::Drill, said.as_ref(), &options.load)
        .await?
    {
        Replacement::Beside(mut beside) => {
            work.beside(&mut *beside).await?;
            let tables = beside.engine().examine().await;
            beside.discard().await?;
            Ok(tables?)
        }
        Replacement::InPlace(why) => Err(RestoreError::Target(format!(
            "there cannot be a scratch database: {why}"
        ))),
        Replacement::Other => Err(RestoreError::Target(
            "there is no scratch database for it".into(),
        )),
    }
}
