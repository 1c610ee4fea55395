//! A dump by several children from one snapshot, as an engine begins it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::dump::{Copier, DumpError, Source, ToolError};

/// How often it is looked whether a child waits for one that waits for us.
const LOOK: Duration = Duration::from_secs(5);

/// All children of a dump: each has begun, sees the same, and has its locks.
pub struct Streams {
    /// What comes before any row.
    pub pre_data: Source,
    /// The rows of all that is not copied, and what else is data.
    pub rest: Source,
    /// What comes behind all rows.
    pub post_data: Source,
    /// Clients that copy.
    pub copiers: Vec<Copier>,
    /// What is copied, the largest first.
    pub work: VecDeque<Copy>,
    /// The tables that copies are of.
    pub tables: Vec<Table>,
    /// What a script of one of the tables begins with.
    pub prologue: Vec<u8>,
    /// What any script that is cut ends with.
    pub epilogue: Vec<u8>,
    /// Who holds the snapshot and the locks.
    pub keeper: Keeper,
}

/// A table that is copied.
pub struct Table {
    /// Its name as a file's.
    pub file: String,
    /// `COPY … FROM stdin;` and the end of the line.
    pub copy: Vec<u8>,
}

/// A part of a table.
pub struct Copy {
    /// Which table.
    pub table: usize,
    /// What a client is told.
    pub statement: Vec<u8>,
}

/// A session that keeps the snapshot and all locks until the last byte.
pub struct Keeper {
    session: Copier,
    /// Asks for a session that waits for one of ours and is waited for by another.
    circle: String,
}

impl Keeper {
    /// Keeps what `session` holds; `circle` is the question after circles.
    pub(super) fn new(session: Copier, circle: String) -> Self {
        Self { session, circle }
    }

    /// Who stands between two of our sessions, one of which waits for it while it waits for the
    /// other. The server does not see that they belong together, and nothing would ever end it.
    pub(super) async fn in_between(&mut self) -> Result<Option<String>, DumpError> {
        let answer = self.session.ask(self.circle.as_bytes()).await?;
        let answer = answer.trim();
        Ok((!answer.is_empty()).then(|| super::unhex(answer).unwrap_or_default()))
    }

    /// Returns when the dump cannot go on.
    pub async fn watch(&mut self) -> DumpError {
        let mut before = None;
        loop {
            tokio::time::sleep(LOOK).await;
            match self.in_between().await {
                // What is seen once may be on its way.
                Ok(Some(who)) if before.as_ref() == Some(&who) => {
                    return DumpError::Begin(ToolError::Cannot(format!(
                        "two sessions of this dump wait for each other, with one between them that \
                         waits for a lock: {who}"
                    )));
                }
                Ok(who) => before = who,
                Err(error) => return error,
            }
        }
    }

    /// Lets go of everything.
    ///
    /// # Errors
    /// When it does not exit as it should: what it held may not have been held all the time.
    pub async fn end(&mut self, exit_timeout: Duration) -> Result<(), DumpError> {
        // What it has said is about tables that went while they were being locked.
        self.session
            .end(Streams::COMMIT, exit_timeout)
            .await
            .map(drop)
    }

    /// Ends it.
    pub async fn kill(&mut self) {
        self.session.kill().await;
    }
}

impl Streams {
    /// The last that a session is told.
    pub const COMMIT: &[u8] = b"commit;\n";

    /// Ends all children, at once.
    pub async fn kill(&mut self) {
        let sources = [&mut self.pre_data, &mut self.rest, &mut self.post_data];
        let sources = sources.map(|source| Box::pin(source.kill()));
        let copiers = self.copiers.iter_mut().map(Copier::kill);
        tokio::join!(
            futures_util::future::join_all(sources),
            futures_util::future::join_all(copiers),
            self.keeper.kill()
        );
    }
}
