//! A client that loads a dump, and what feeds it.
//!
//! ```text
//! dump ────────────────────────▶ script ─▶ client's stdin
//! dump ─▶ converter ─▶ (a task) ─▶ script ─▶ client's stdin
//! ```
//!
//! The client's stdin stays open until the dump is proven to be whole, and the converter to have
//! ended well: a client must never see an end that is not one.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};
use tokio_util::task::AbortOnDropHandle;

use super::RestoreError;
use crate::dump::{Child, ChildError};
use crate::engine::{ClientLoad, Script, Unit};

/// How long a client that has closed its stdin may take to exit and say why.
const EXIT_GRACE: Duration = Duration::from_secs(10);
/// What a task reads from a converter at once, in bytes.
const PIECE: usize = 256 << 10;

/// A running client.
pub struct Client {
    // Before its stdin: whoever is dropped first goes first.
    child: Child,
    feed: Feed,
    unit: Unit,
}

enum Feed {
    Text(Text),
    Converted {
        converter: Child,
        stdin: Option<ChildStdin>,
        pump: AbortOnDropHandle<Result<Text, FeedError>>,
    },
}

/// The client's stdin, and what is changed on the way there.
struct Text {
    stdin: ChildStdin,
    script: Option<Script>,
}

enum FeedError {
    /// Nobody reads any more; who that was says why.
    Closed,
    Other(RestoreError),
}

impl From<ChildError> for FeedError {
    fn from(error: ChildError) -> Self {
        Self::Other(error.into())
    }
}

/// What a client's complaint says of a way out, by the codes that its server gives.
const HINTS: &[(&[&str], &str)] = &[
    (
        // undefined_object
        &[":  42704: "],
        "Where a role is missing: restore the globals first, or give --no-owner --no-privileges",
    ),
    (
        // undefined_function, undefined_table
        &[":  42883: ", ":  42P01: "],
        "Where a function of the dump names things without their schema: --set search_path=public \
         lets it find them",
    ),
    (
        // insufficient_privilege
        &[":  42501: "],
        "Where the user may not give something to its owner, or the owner may not have it there: \
         --no-owner makes all of it the user's own",
    ),
    (
        // dependent_objects_still_exist
        &[":  2BP01: "],
        "What depends on a table would go with it: drop that first and make it again, or restore \
         into another database with --to",
    ),
    (
        // foreign_key_violation
        &[":  23503: "],
        "Where rows come before those that they refer to: --set session_replication_role=replica \
         loads without looking at foreign keys and triggers",
    ),
    (
        // out_of_memory's neighbour: a transaction holds a lock on all that it makes and drops.
        &["max_locks_per_transaction"],
        "In place all is one transaction, and holds a lock on everything: without --in-place there \
         is no such limit",
    ),
    (
        // A definer that one may not set, or that is not there.
        &["ERROR 1227 ", "ERROR 1449 "],
        "Where a definer is in the way: --skip-definer defines everything as who restores it",
    ),
    (
        // A packet that is too large; a connection that is gone, which often is the same.
        &["ERROR 1153 ", "ERROR 2006 "],
        "Where a row is too large for the server: raise its max_allowed_packet (SET GLOBAL \
         max_allowed_packet = 1073741824), and restore again",
    ),
];

impl From<ChildError> for RestoreError {
    fn from(error: ChildError) -> Self {
        let mut text = error.to_string();
        for (codes, hint) in HINTS {
            if codes.iter().any(|code| text.contains(code)) {
                text = format!("{text}\n{hint}");
            }
        }
        Self::Target(text)
    }
}

impl Client {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started, or does not even take what comes before the dump.
    pub(super) async fn start(load: ClientLoad) -> Result<Self, RestoreError> {
        let (child, stdin) = Child::writing(&load.client)?;
        if let Unit::Lenient(matters) = load.unit {
            child.watch_for(matters);
        }
        let script = load.rules.map(Script::new);
        let mut client = Self {
            child,
            feed: Feed::Text(Text { stdin, script }),
            unit: load.unit,
        };
        let prelude = load.prelude;
        client
            .while_it_lasts(async |feed| match feed {
                Feed::Text(text) => text.send(prelude.as_bytes()).await,
                Feed::Converted { .. } => Ok(()),
            })
            .await?;
        match load.converter {
            Some(command) => {
                let (converter, stdin, stdout) = Child::talking(&command)?;
                Ok(client.fed_by(converter, Some(stdin), stdout))
            }
            None => Ok(client),
        }
    }

    /// Starts it, fed by its converter from the folder at `path`.
    ///
    /// # Errors
    /// As for [`Client::start`].
    pub(super) async fn start_on_folder(
        mut load: ClientLoad,
        path: &Path,
    ) -> Result<Self, RestoreError> {
        let Some(converter) = load.converter.take() else {
            return Err(RestoreError::Target(
                "nothing is known that reads a folder".into(),
            ));
        };
        let client = Self::start(load).await?;
        let (converter, stdout) = Child::reading(&converter.args([path.display().to_string()]))?;
        Ok(client.fed_by(converter, None, stdout))
    }

    fn fed_by(self, converter: Child, stdin: Option<ChildStdin>, stdout: ChildStdout) -> Self {
        let Self { child, feed, unit } = self;
        let feed = match feed {
            Feed::Text(text) => Feed::Converted {
                converter,
                stdin,
                pump: AbortOnDropHandle::new(tokio::spawn(pump(stdout, text))),
            },
            Feed::Converted { .. } => feed,
        };
        Self { child, feed, unit }
    }

    /// Takes the next bytes of the dump.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.while_it_lasts(async |feed| feed.write(bytes).await)
            .await
    }

    /// The dump is whole: lets the client see its end.
    pub(super) async fn finish(mut self) -> Result<(), RestoreError> {
        let after = match self.unit {
            Unit::Transaction(after) => after,
            Unit::None | Unit::Lenient(_) => "",
        };
        let converted = self.while_it_lasts(async |feed| feed.end().await).await;
        let result = match converted {
            Ok(()) => {
                self.while_it_lasts(async |feed| feed.last(after).await)
                    .await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            self.kill().await;
            return Err(error);
        }
        let Self {
            mut child,
            feed,
            unit,
        } = self;
        drop(feed);
        child.wait().await?;
        if let Unit::Lenient(_) = unit {
            let errors = child.matching().await;
            if errors.count > 0 {
                return Err(RestoreError::Target(format!(
                    "{} statements failed, and the others were carried out:\n{}",
                    errors.count,
                    errors.first.join("\n")
                )));
            }
        }
        let said = child.last_words().await;
        if !said.is_empty() {
            tracing::warn!("{} said: {said}", child.program());
        }
        Ok(())
    }

    /// Ends it before it has seen the end of its input.
    pub(super) async fn kill(&mut self) {
        self.child.kill().await;
        if let Feed::Converted {
            converter, pump, ..
        } = &mut self.feed
        {
            pump.abort();
            converter.kill().await;
        }
    }

    /// Does something with the feed unless the client ends before, which is the better reason.
    async fn while_it_lasts(
        &mut self,
        work: impl AsyncFnOnce(&mut Feed) -> Result<(), FeedError>,
    ) -> Result<(), RestoreError> {
        let Self { child, feed, .. } = self;
        let mut work = std::pin::pin!(work(feed));
        let done = loop {
            tokio::select! {
                biased;
                // A client that failed may leave its stdin open in a process of its own.
                ended = child.wait(), if !child.has_exited_well() => ended?,
                done = &mut work => break done,
            }
        };
        match done {
            Ok(()) => Ok(()),
            Err(FeedError::Other(error)) => Err(error),
            Err(FeedError::Closed) => {
                if let Ok(ended) = tokio::time::timeout(EXIT_GRACE, child.wait()).await {
                    ended?;
                }
                Err(RestoreError::Target(format!(
                    "{} exited before it had read the whole dump",
                    child.program()
                )))
            }
        }
    }
}

impl Feed {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), FeedError> {
        let (converter, stdin, pump) = match self {
            Feed::Text(text) => return text.write(bytes).await,
            Feed::Converted {
                converter,
                stdin,
                pump,
            } => (converter, stdin, pump),
        };
        let Some(stdin) = stdin else {
            return Err(FeedError::Closed);
        };
        tokio::select! {
            biased;
            pumped = pump => Err(match flat(pumped) {
                Err(error) => error,
                // The converter has ended, and has not read everything.
                Ok(_) => match converter.wait().await {
                    Err(error) => error.into(),
                    Ok(()) => FeedError::Closed,
                },
            }),
            written = stdin.write_all(bytes) => match written {
                Ok(()) => Ok(()),
                Err(_) => Err(match converter.wait().await {
                    Err(error) => error.into(),
                    Ok(()) => FeedError::Closed,
                }),
            },
        }
    }

    /// The dump has ended; so does a converter, and must do so well.
    async fn end(&mut self) -> Result<(), FeedError> {
        if let Feed::Converted {
            converter,
            stdin,
            pump,
        } = self
        {
            drop(stdin.take());
            let text = flat(pump.await)?;
            converter.wait().await?;
            *self = Feed::Text(text);
        }
        Ok(())
    }

    /// What is left, and what this program says after it.
    async fn last(&mut self, after: &str) -> Result<(), FeedError> {
        let Feed::Text(text) = self else {
            return Ok(());
        };
        let rest = match &mut text.script {
            Some(script) => script.end().map_err(refused)?,
            None => bytes::Bytes::new(),
        };
        text.send(&rest).await?;
        text.send(after.as_bytes()).await
    }
}

impl Text {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), FeedError> {
        match &mut self.script {
            Some(script) => {
                let edited = script.edit(bytes).map_err(refused)?;
                self.send(&edited).await
            }
            None => self.send(bytes).await,
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), FeedError> {
        let sent = self.stdin.write_all(bytes).await;
        sent.map_err(|_| FeedError::Closed)
    }
}

fn refused(why: String) -> FeedError {
    FeedError::Other(RestoreError::Target(why))
}

fn flat(
    joined: Result<Result<Text, FeedError>, tokio::task::JoinError>,
) -> Result<Text, FeedError> {
    joined.unwrap_or_else(|error| {
        let why = format!("feeding the client broke down: {error}");
        Err(FeedError::Other(RestoreError::Target(why)))
    })
}

/// Carries what the converter writes to the client, and gives the client's stdin back.
async fn pump(mut from: ChildStdout, mut to: Text) -> Result<Text, FeedError> {
    let failed = |error: io::Error| {
        FeedError::Other(RestoreError::Target(format!(
            "what the converter writes cannot be read: {error}"
        )))
    };
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece).await.map_err(failed)? {
            0 => return Ok(to),
            read => to.write(&piece[..read]).await?,
        }
    }
}
