//! A session that stays: what it holds, such as a lock, goes with this program, whatever ends it.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};
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

    /// Runs statements, and returns the lines that they answered.
    pub(super) async fn run(&mut self, statements: &str) -> Result<Vec<String>, ToolError> {
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
        match timeout(ADMIN_TIMEOUT, talk).await {
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
                limit: ADMIN_TIMEOUT,
            }),
        }
    }
}
