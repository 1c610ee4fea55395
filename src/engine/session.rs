//! A session that stays: what it holds, such as a lock, goes with this program, whatever ends it.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::ADMIN_TIMEOUT;
use crate::dump::{Child, ToolCommand, ToolError};

/// What ends an answer.
pub(super) const END: &str = "tapline: end of the answer";

/// A client, waiting for the next statement. Its stdin ends with this program, and the client with
/// its stdin.
pub(super) struct Session {
    child: Child,
    /// What makes the client print [`END`].
    end: &'static str,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Session {
    /// Starts the client, which prints what `end` asks for, [`END`], when it has come so far.
    pub(super) fn open(command: &ToolCommand, end: &'static str) -> Result<Self, ToolError> {
        let (child, stdin, stdout) = Child::talking(command)?;
        Ok(Self {
            child,
            end,
            stdin,
            lines: BufReader::new(stdout).lines(),
        })
    }

    /// What is answered to one query within `limit`.
    async fn answer(&mut self, query: &str, limit: Duration) -> Result<String, ToolError> {
        Ok(self.run_within(query, limit).await?.join("\n"))
    }

    /// Runs statements, and returns the lines that they answered.
    pub(super) async fn run(&mut self, statements: &str) -> Result<Vec<String>, ToolError> {
        self.run_within(statements, ADMIN_TIMEOUT).await
    }

    async fn run_within(
        &mut self,
        statements: &str,
        limit: Duration,
    ) -> Result<Vec<String>, ToolError> {
        let text = format!("{statements};\n{}\n", self.end);
        let talk = async {
            self.stdin.write_all(text.as_bytes()).await.ok()?;
            let mut answer = Vec::new();
            while let Some(line) = self.lines.next_line().await.ok()? {
                if line == END {
                    return Some(answer);
                }
                answer.push(line);
            }
            None
        };
        match timeout(limit, talk).await {
            Ok(Some(answer)) => Ok(answer),
            // It has ended, and says why.
            Ok(None) => match self.child.wait().await {
                Ok(()) => Err(ToolError::answer(
                    self.child.program(),
                    "it ended before it had answered",
                )),
                Err(error) => Err(error.into()),
            },
            Err(_) => Err(ToolError::Timeout {
                program: self.child.program().to_owned(),
                limit,
            }),
        }
    }
}

/// The questions that are asked of one database one after another, in one session as long as none
/// fails: a process and a login for each would take longer than all the answers.
#[derive(Default)]
pub(super) struct Interview(Mutex<Interviewee>);

/// Who is asked.
#[derive(Default)]
enum Interviewee {
    /// Nobody yet, or nobody any more: a client ends at an error.
    #[default]
    Absent,
    There(Box<Session>),
    /// It never came, and why.
    Silent(String),
}

impl Interview {
    /// Asks in the session, and opens it with `open` and the `greeting` first where there is none;
    /// `hear` is told what was answered to that. A server that does not answer is asked once.
    pub(super) async fn ask(
        &self,
        open: impl Fn() -> Result<Session, ToolError>,
        (greeting, hear): (&str, impl Fn(&str)),
        query: &str,
        limit: Duration,
    ) -> Result<String, ToolError> {
        let mut there = self.0.lock().await;
        let mut session = match std::mem::take(&mut *there) {
            Interviewee::There(session) => session,
            Interviewee::Silent(why) => {
                let error = ToolError::Cannot(why.clone());
                *there = Interviewee::Silent(why);
                return Err(error);
            }
            Interviewee::Absent => {
                let opened = async {
                    let mut session = open()?;
                    let heard = session.answer(greeting, limit).await?;
                    hear(&heard);
                    Ok(Box::new(session))
                };
                match opened.await {
                    Ok(session) => session,
                    Err(error) => {
                        *there = Interviewee::Silent(ToolError::to_string(&error));
                        return Err(error);
                    }
                }
            }
        };
        let answer = session.answer(query, limit).await;
        *there = match &answer {
            Ok(_) => Interviewee::There(session),
            Err(error @ ToolError::Timeout { .. }) => Interviewee::Silent(error.to_string()),
            Err(_) => Interviewee::Absent,
        };
        answer
    }
}
