//! A client that is told one statement after the other, in one session, and whose answers are read
//! like a dump: psql, which honours all that the dump tool does (TLS, password files, services).
//!
//! An answer ends with a line `\.`, which the client is told to print behind the statement. No row
//! of a COPY is that line (a backslash in a row is written as two), psql comes to it only after the
//! server has said that the COPY is complete, and it is how the rows end in a script: so it is the
//! proof and the text in one.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::time::timeout;

use super::output::Output;
use super::source::{DumpError, Flaw};
use super::{Child, ToolCommand};
use crate::meter::Meter;

/// How an answer ends.
pub const ROWS_END: &[u8] = b"\\.\n";
/// What makes psql print that.
const ECHO_END: &[u8] = b"\n\\echo '\\\\.'\n";
/// The longest answer that is no copy, in bytes: a list of tables.
const LONGEST_ANSWER: usize = 64 << 20;
/// How long a client that has closed its stdout may take to exit and say why, and what one that has
/// exited has left behind may hold it in silence.
const EXIT_GRACE: Duration = Duration::from_secs(10);

/// A running client.
pub struct Copier {
    output: Output,
    stdin: Option<ChildStdin>,
    /// The last bytes of the answer.
    last: [u8; 4],
    /// Whether the answer's end has not been read.
    answers: bool,
}

impl Copier {
    /// Starts it.
    ///
    /// # Errors
    /// [`DumpError::Tool`].
    pub fn start(command: &ToolCommand) -> Result<Self, DumpError> {
        let (child, stdin, stdout) = Child::talking(command)?;
        Ok(Self {
            output: Output::new(child, stdout)?,
            stdin: Some(stdin),
            last: [0; 4],
            answers: false,
        })
    }

    /// Tells it statements; their answer is to be read to its end before the next.
    pub async fn tell(&mut self, statements: &[u8]) {
        // As if behind the end of a line.
        self.last = [0, 0, 0, b'\n'];
        self.answers = true;
        if let Some(stdin) = &mut self.stdin {
            let text = [statements, ECHO_END].concat();
            // Who does not read has ended, and whoever reads its answer is told why.
            let _ = stdin.write_all(&text).await;
        }
    }

    /// Tells it statements and returns what they answer, as text.
    ///
    /// # Errors
    /// When a statement fails, with the server's words.
    pub async fn ask(&mut self, statements: &[u8]) -> Result<String, DumpError> {
        self.tell(statements).await;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<String, DumpError> {
        let (mut answer, meter) = (Vec::new(), Meter::default());
        loop {
            let limit = answer.len() + (64 << 10);
            answer.reserve(64 << 10);
            if self.fill(&mut answer, limit, &meter).await? {
                break;
            }
            if answer.len() > LONGEST_ANSWER {
                return Err(self.flawed().await);
            }
        }
        answer.truncate(answer.len() - ROWS_END.len());
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Reads on until `segment` has `limit` bytes, or the answer's end is in it: whether it is.
    ///
    /// # Errors
    /// When the statement fails, or the client ends.
    pub async fn fill(
        &mut self,
        segment: &mut Vec<u8>,
        limit: usize,
        meter: &Meter,
    ) -> Result<bool, DumpError> {
        while segment.len() < limit {
            let start = segment.len();
            let read = self.output.read(segment, limit, EXIT_GRACE, meter);
            if read.await? == 0 {
                return Err(self.flawed().await);
            }
            for byte in &segment[start.max(segment.len().saturating_sub(self.last.len()))..] {
                self.last.rotate_left(1);
                self.last[3] = *byte;
            }
            if self.last == *b"\n\\.\n" {
                self.answers = false;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// It has ended before its answer has.
    async fn flawed(&mut self) -> DumpError {
        match timeout(EXIT_GRACE, self.output.child.wait()).await {
            Ok(Err(error)) => return error.into(),
            Ok(Ok(())) => {}
            Err(_) => self.output.child.kill().await,
        }
        DumpError::Flawed {
            program: self.output.child.program().to_owned(),
            flaw: Flaw::EndMarker("\\."),
            last_words: self.output.child.last_words().await,
        }
    }

    /// Lets it go: it must carry out a last statement, which shows that its session is still the one
    /// that it was, and exit 0 within `exit_timeout`. What it said on its stderr, a line each.
    ///
    /// # Errors
    /// When it does not.
    pub async fn end(
        &mut self,
        last: &[u8],
        exit_timeout: Duration,
    ) -> Result<Vec<String>, DumpError> {
        // Whoever asked before may have given up waiting.
        if self.answers {
            self.answer().await?;
        }
        self.ask(last).await?;
        drop(self.stdin.take());
        self.output.end(exit_timeout).await
    }

    /// Ends it and every process of its group.
    pub async fn kill(&mut self) {
        self.output.child.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell that reads statements: it knows `\echo '\\.'` and runs anything else.
    fn shell() -> Copier {
        let script = r#"while IFS= read -r line; do case $line in \\echo*) printf '\\.\n';; *) eval "$line";; esac; done"#;
        Copier::start(&ToolCommand::new("sh").args(["-ec", script])).unwrap()
    }

    #[tokio::test]
    async fn an_answer_ends_where_it_says_so_however_it_is_cut() {
        let mut copier = shell();
        for limit in 1..12 {
            let meter = Meter::default();
            copier.tell(b"printf 'a\\\\.\\nb\\n'").await;
            let (mut answer, mut segment) = (Vec::new(), Vec::with_capacity(64));
            while !copier.fill(&mut segment, limit, &meter).await.unwrap() {
                answer.append(&mut segment);
            }
            answer.append(&mut segment);
            assert_eq!(answer, b"a\\.\nb\n\\.\n", "{limit}");
        }
        assert_eq!(copier.ask(b"true").await.unwrap(), "");
        assert_eq!(
            copier.end(b"true", EXIT_GRACE).await.unwrap(),
            Vec::<String>::new()
        );
    }

    #[tokio::test]
    async fn a_client_that_ends_before_its_answer_does_is_an_error_with_its_words() {
        for (statement, words) in [
            (
                "printf 'row\\n'; echo no such luck >&2; exit 3",
                "no such luck",
            ),
            ("printf 'row\\n'; exit 0", "not whole"),
        ] {
            let error = shell().ask(statement.as_bytes()).await.unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
