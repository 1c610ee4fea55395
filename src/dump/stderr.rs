//! What a tool says on its stderr: read to its end, kept in bounds, and safe to print.
//!
//! A tool's words reach terminals and logs. So control characters are shown and not obeyed, and
//! table data in them (a statement that failed, a row in hex digits) is cut short: the reason stays
//! visible and a customer's data stays out of the log.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt};

use std::sync::{Arc, Mutex};

/// Of a line so many bytes of its beginning and of its end are looked at.
const LINE_HEAD: usize = 2 << 10;
const LINE_TAIL: usize = 256;
/// A longer word is data and no word.
const LONGEST_WORD: usize = 100;
/// A longer line is shown by its beginning and its end, in characters.
const LONGEST_LINE: usize = 480;
const SHOWN_HEAD: usize = 360;
const SHOWN_TAIL: usize = 100;
/// How many lines are kept: a tool's first complaint is often the cause of the others, and its last
/// one is why it gave up.
const FIRST_LINES: usize = 8;
const LAST_LINES: usize = 16;
/// What MySQL's and MariaDB's clients put around a statement that they show.
const RULE: &str = "--------------";

/// What was heard so far.
#[derive(Debug, Default)]
pub struct Complaints {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    /// Bytes of the current line that are in neither.
    skipped: u64,
    first: Vec<String>,
    last: VecDeque<String>,
    count: u64,
    in_statement: bool,
    watched: Option<fn(&str) -> bool>,
    matching: Matching,
}

/// The lines that somebody waits for, counted over all that was said.
#[derive(Debug, Default, Clone)]
pub struct Matching {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<String>,
}

impl Complaints {
    /// Counts the lines for which `matters` holds, from now on.
    pub fn watch(&mut self, matters: fn(&str) -> bool) {
        self.watched = Some(matters);
    }

    /// The lines that mattered.
    pub fn matching(&self) -> Matching {
        self.matching.clone()
    }

    /// All that was said: whole when it is short, else its first and its last lines.
    pub fn lines(&self) -> Vec<String> {
        let kept = (self.first.len() + self.last.len()) as u64;
        let left_out = match self.count - kept {
            0 => None,
            some => Some(format!("… {some} more lines …")),
        };
        let last = self.last.iter().cloned();
        self.first
            .iter()
            .cloned()
            .chain(left_out)
            .chain(last)
            .collect()
    }

    fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            self.extend(&rest[..end]);
            self.end_of_line();
            rest = &rest[end + 1..];
        }
        self.extend(rest);
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = LINE_HEAD - self.head.len();
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        let (passed, last) = rest.split_at(rest.len().saturating_sub(LINE_TAIL));
        self.tail.extend(last);
        let surplus = self.tail.len().saturating_sub(LINE_TAIL);
        self.tail.drain(..surplus);
        self.skipped += (passed.len() + surplus) as u64;
    }

    fn end_of_line(&mut self) {
        let (head, tail) = (
            std::mem::take(&mut self.head),
            std::mem::take(&mut self.tail),
        );
        let mut line = head;
        if std::mem::take(&mut self.skipped) > 0 {
            line.extend_from_slice(" … ".as_bytes());
        }
        line.extend(tail);
        let line = short(harmless(&String::from_utf8_lossy(&line)).trim_end());
        if line.is_empty() {
            return;
        }
        if line == RULE {
            self.in_statement = !self.in_statement;
            return;
        }
        // A statement has been begun and its end cut off: an error ends it, too.
        if self.in_statement && !line.starts_with("ERROR ") {
            return;
        }
        self.in_statement = false;
        self.keep(line);
    }

    fn keep(&mut self, line: String) {
        if self.watched.is_some_and(|matters| matters(&line)) {
            self.matching.count += 1;
            if self.matching.first.len() < FIRST_LINES {
                self.matching.first.push(line.clone());
            }
        }
        self.count += 1;
        if self.first.len() < FIRST_LINES {
            self.first.push(line);
        } else {
            self.last.push_back(line);
            let surplus = self.last.len().saturating_sub(LAST_LINES);
            self.last.drain(..surplus);
        }
    }
}

/// Reads a child's stderr for as long as it lasts, so that the child never blocks on it.
pub(super) async fn drain(mut stderr: impl AsyncRead + Unpin, heard: Arc<Mutex<Complaints>>) {
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        heard
            .lock()
            .expect("no holder panics")
            .push(&buffer[..read]);
    }
    heard.lock().expect("no holder panics").end_of_line();
}

/// Escape sequences, and characters that turn the direction of what follows, as text.
fn harmless(text: &str) -> String {
    let turns = |c| matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => shown.push(' '),
            c if c.is_control() || turns(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// A line with its long words, and then itself, cut short.
fn short(line: &str) -> String {
    let word = |word: &str| {
        if word.chars().count() <= LONGEST_WORD {
            return word.to_owned();
        }
        let start: String = word.chars().take(LONGEST_WORD / 4).collect();
        format!("{start}…({} bytes)", word.len())
    };
    let line = line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    let count = line.chars().count();
    if count <= LONGEST_LINE {
        return line;
    }
    let head: String = line.chars().take(SHOWN_HEAD).collect();
    let tail: String = line.chars().skip(count - SHOWN_TAIL).collect();
    format!("{head} … {tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(bytes: &[u8]) -> Vec<String> {
        let mut heard = Complaints::default();
        heard.push(bytes);
        heard.end_of_line();
        heard.lines()
    }

    #[test]
    fn what_a_tool_says_cannot_move_a_terminal() {
        let said =
            all_of(b"\x1b[2Jgone\x07 \xc2\x9b1m \xe2\x80\xaetxt\nprogress 1%\rprogress 2%\n");
        assert_eq!(said.len(), 3);
        assert!(
            said[0].contains("gone") && said[0].contains("u{1b}"),
            "{said:?}"
        );
        assert!(
            said.iter().all(|line| !line.chars().any(char::is_control)),
            "{said:?}"
        );
        assert!(!said[0].contains('\u{202e}'));
    }

    #[test]
    fn table_data_is_cut_and_the_reason_stays() {
        let row = "61".repeat(400_000);
        let said =
            all_of(format!("ERROR 1064 at line 5: syntax near '{row}' at line 1\n").as_bytes());
        assert_eq!(said.len(), 1);
        assert!(
            said[0].starts_with("ERROR 1064 at line 5: syntax near"),
            "{said:?}"
        );
        assert!(
            said[0].ends_with("at line 1") && said[0].len() < 600,
            "{said:?}"
        );
        assert!(!said[0].contains(&"61".repeat(60)), "{said:?}");
        let words = "secret ".repeat(100_000);
        let said = all_of(format!("--------------\nINSERT INTO t VALUES\n({words})\n--------------\n\nERROR 2013: lost\n").as_bytes());
        assert_eq!(said, ["ERROR 2013: lost"]);
        let said = all_of(format!("--------------\n{words}\nERROR 2013: lost\n").as_bytes());
        assert_eq!(said, ["ERROR 2013: lost"]);
    }

    #[test]
    fn a_flood_is_bounded_and_what_matters_in_it_is_counted() {
        let mut heard = Complaints::default();
        heard.watch(|line| line.contains("ERROR"));
        heard.push(b"ERROR: the first\n");
        for number in 0..100_000 {
            heard.push(format!("notice {number}\n").as_bytes());
        }
        heard.push(b"the last");
        heard.end_of_line();
        let said = heard.lines();
        assert!(said.len() <= FIRST_LINES + LAST_LINES + 1, "{said:?}");
        assert_eq!(said[0], "ERROR: the first");
        assert_eq!(said.last().unwrap(), "the last");
        assert!(said[FIRST_LINES].contains("99978 more lines"), "{said:?}");
        assert_eq!(heard.matching().count, 1);
    }
}
