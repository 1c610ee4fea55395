//! A dump of many files into a new database, by several clients at once.
//!
//! ```text
//! 0-pre-data   ──▶ one client, to its end
//! 1-data/…     ──▶ whichever client is free: each file is a script of its own
//! 2-post-data  ──▶ kept, and taken apart when all is proven to be whole: indexes and keys side by
//!                  side, then foreign keys, the rest in its order
//!
//! memory = clients × the largest file + what comes behind the rows
//! ```
//!
//! Nothing keeps the database from holding a part of the dump meanwhile, so it is one that goes when
//! the restore fails. A client that fails fails all.

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use super::RestoreError;
use super::client::Client;
use crate::engine::{ClientLoad, Task, steps};

/// Pieces that wait for a client: as many as the largest file has, so that nobody waits for a client
/// that is not free.
const PIECES: usize = 17;
/// The most that may come behind the rows, in bytes: the definitions of a million indexes.
const MOST_BEHIND: usize = 256 << 20;

/// So many tasks of a step for each client: a client for each task, where there are not thousands.
const TASKS_EACH: usize = 64;

/// The clients.
pub struct Sessions {
    load: ClientLoad,
    at_once: usize,
    /// Those that wait for a file, and those that have one.
    idle: Vec<Client>,
    busy: JoinSet<Result<Client, RestoreError>>,
    /// The script that is being read: its files' names, but for their numbers.
    script: String,
    feed: Feed,
}

/// Where the bytes of a file go.
enum Feed {
    Nowhere,
    Definitions(Box<Client>),
    Rows(mpsc::Sender<Bytes>),
    Last(Vec<u8>),
}

impl Sessions {
    /// As many as `at_once`, each begun when there is work for it.
    pub(super) fn new(load: ClientLoad, at_once: usize) -> Self {
        Self {
            load,
            at_once,
            idle: Vec::new(),
            busy: JoinSet::new(),
            script: String::new(),
            feed: Feed::Nowhere,
        }
    }

    /// The next file begins.
    pub(super) async fn begin(&mut self, name: &str) -> Result<(), RestoreError> {
        let script = script_of(name);
        if script == self.script {
            return Ok(());
        }
        script.clone_into(&mut self.script);
        let place = script.split_once('/').map_or(script, |(_, place)| place);
        match std::mem::replace(&mut self.feed, Feed::Nowhere) {
            Feed::Definitions(client) => client.finish().await?,
            Feed::Last(_) => return Err(misplaced(name)),
            Feed::Rows(_) | Feed::Nowhere => {}
        }
        self.feed = match place.as_bytes() {
            [b'0', b'-', ..] => Feed::Definitions(Box::new(self.client().await?)),
            [b'1', b'-', ..] => {
                let client = self.free_client().await?;
                let (sender, rows) = mpsc::channel(PIECES);
                self.busy.spawn(load(client, rows));
                Feed::Rows(sender)
            }
            [b'2', b'-', ..] => {
                self.end_all().await?;
                Feed::Last(Vec::new())
            }
            _ => return Err(misplaced(name)),
        };
        Ok(())
    }

    /// Takes the file's next bytes.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), RestoreError> {
        match &mut self.feed {
            Feed::Nowhere => Ok(()),
            Feed::Definitions(client) => client.write(&bytes).await,
            Feed::Last(text) if text.len() + bytes.len() > MOST_BEHIND => {
                Err(RestoreError::Target(format!(
                    "what comes behind the rows is larger than {} MiB: restore without --jobs",
                    MOST_BEHIND >> 20
                )))
            }
            Feed::Last(text) => {
                text.extend_from_slice(&bytes);
                Ok(())
            }
            Feed::Rows(rows) => {
                if rows.send(bytes).await.is_ok() {
                    return Ok(());
                }
                // It has failed, and says why.
                self.end_all().await
            }
        }
    }

    /// The dump is whole: does what comes behind the rows.
    pub(super) async fn finish(mut self) -> Result<(), RestoreError> {
        let feed = std::mem::replace(&mut self.feed, Feed::Nowhere);
        if let Feed::Definitions(client) = feed {
            return client.finish().await;
        }
        self.end_all().await?;
        let Feed::Last(text) = feed else {
            return Ok(());
        };
        let steps = steps(&text);
        drop(text);
        for step in steps {
            self.step(step).await?;
        }
        Ok(())
    }

    /// All tasks of a step, at once where they are not in each other's way.
    async fn step(&mut self, tasks: Vec<Task>) -> Result<(), RestoreError> {
        let each = tasks.len().div_ceil(TASKS_EACH * self.at_once);
        let mut tasks = tasks.into_iter().peekable();
        let mut waiting = Vec::new();
        while tasks.peek().is_some() {
            waiting.push(Task::joined(tasks.by_ref().take(each)));
        }
        let (mut clients, mut at_work) = (JoinSet::new(), Vec::<(usize, Task)>::new());
        let mut begun = 0;
        loop {
            let free = |task: &Task| {
                !at_work
                    .iter()
                    .any(|(_, other)| task.is_in_the_way_of(other))
            };
            if clients.len() < self.at_once
                && let Some(at) = waiting.iter().position(free)
            {
                let mut task = waiting.remove(at);
                let text = std::mem::take(&mut task.text);
                let (mut client, number) = (self.client().await?, begun);
                clients.spawn(async move {
                    client.write(&text).await?;
                    client.finish().await.map(|()| number)
                });
                at_work.push((begun, task));
                begun += 1;
                continue;
            }
            let Some(done) = clients.join_next().await else {
                return Ok(());
            };
            let done = done.map_err(broke_down)??;
            at_work.retain(|(number, _)| *number != done);
        }
    }

    /// Ends all clients before they have seen an end.
    pub(super) async fn kill(&mut self) {
        if let Feed::Definitions(client) = &mut self.feed {
            client.kill().await;
        }
        // What is dropped is ended, too.
        self.busy.shutdown().await;
        for mut client in self.idle.drain(..) {
            client.kill().await;
        }
    }

    async fn client(&mut self) -> Result<Client, RestoreError> {
        let another = self.load.another();
        let none = || RestoreError::Target("there is no client for another session".into());
        Client::start(another.ok_or_else(none)?).await
    }

    /// A client that has nothing to do.
    async fn free_client(&mut self) -> Result<Client, RestoreError> {
        // What has ended by now, and whether well.
        while let Some(done) = self.busy.try_join_next() {
            self.idle.push(done.map_err(broke_down)??);
        }
        if let Some(client) = self.idle.pop() {
            return Ok(client);
        }
        if self.busy.len() < self.at_once {
            return self.client().await;
        }
        match self.busy.join_next().await {
            Some(done) => done.map_err(broke_down)?,
            None => self.client().await,
        }
    }

    /// Waits until all that was given out is loaded, and lets the clients go.
    async fn end_all(&mut self) -> Result<(), RestoreError> {
        self.feed = Feed::Nowhere;
        while let Some(done) = self.busy.join_next().await {
            self.idle.push(done.map_err(broke_down)??);
        }
        let all = try_join_all(self.idle.drain(..).map(Client::finish)).await;
        all.map(drop)
    }
}

/// Gives a client all of a script.
async fn load(mut client: Client, mut rows: mpsc::Receiver<Bytes>) -> Result<Client, RestoreError> {
    while let Some(bytes) = rows.recv().await {
        client.write(&bytes).await?;
    }
    Ok(client)
}

/// The script that a file belongs to: further files of one are `….part0002.sql` and so on.
fn script_of(file: &str) -> &str {
    let name = file.strip_suffix(".sql").unwrap_or(file);
    match name.rsplit_once(".part") {
        Some((script, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => script,
        _ => name,
    }
}

fn misplaced(name: &str) -> RestoreError {
    RestoreError::Damaged(format!("its file {name:?} is not where it can be loaded"))
}

#[expect(clippy::needless_pass_by_value, reason = "as it is given")]
fn broke_down(error: JoinError) -> RestoreError {
    RestoreError::Target(format!("feeding a client broke down: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_one_script_are_told_from_the_next_ones() {
        for (file, script) in [
            ("shop/0-pre-data.sql", "shop/0-pre-data"),
            ("shop/0-pre-data.part0002.sql", "shop/0-pre-data"),
            ("shop/1-data/s.t.0001.sql", "shop/1-data/s.t.0001"),
            ("shop/1-data/s.t.0001.part10002.sql", "shop/1-data/s.t.0001"),
            (
                "shop/1-data/s.part0002.0001.sql",
                "shop/1-data/s.part0002.0001",
            ),
            ("a.partly/1-data/s.t.0001.sql", "a.partly/1-data/s.t.0001"),
        ] {
            assert_eq!(script_of(file), script);
        }
    }
}
