//! Where a script of PostgreSQL's can be cut into scripts that can be carried out by themselves, in
//! any order: behind a statement, or between two rows of a COPY, which is then begun again.

use super::lexer::Lexer;
use super::{Dialect, tokens};

/// A longer COPY is not begun again: its rows are not cut.
const LONGEST: usize = 16 << 10;

/// Follows a script through its bytes and remembers the last place at which it can be cut.
pub struct Cutter {
    lexer: Lexer,
    /// The statement under way, as far as it is known; nothing of one that is too long to be begun
    /// again.
    statement: Option<Vec<u8>>,
    /// The COPY whose rows come now.
    copy: Option<Vec<u8>>,
    in_transaction: bool,
    /// How many bytes have gone by.
    at: u64,
    place: Option<Place>,
}

/// A place to cut at.
#[derive(Clone)]
struct Place {
    at: u64,
    /// Between rows of this COPY.
    copy: Option<Vec<u8>>,
}

/// What a cut puts between two scripts.
#[derive(Debug, PartialEq, Eq)]
pub struct Cut {
    /// How many bytes of those that have gone by last come behind the cut.
    pub behind: usize,
    /// Whether rows are to be ended before it.
    pub in_rows: bool,
    /// What is to be said behind it before those bytes.
    pub again: Vec<u8>,
}

impl Default for Cutter {
    fn default() -> Self {
        Self {
            lexer: Lexer::new(Dialect::Postgres),
            statement: Some(Vec::new()),
            copy: None,
            in_transaction: false,
            at: 0,
            place: None,
        }
    }
}

impl Cutter {
    /// The next bytes of the script.
    pub fn see(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let in_rows = self.lexer.in_rows();
            let (length, ends) = self.lexer.next(rest);
            let piece;
            (piece, rest) = rest.split_at(length);
            if in_rows {
                self.rows(piece, ends);
            } else {
                self.text(piece, ends);
            }
            self.at += length as u64;
        }
    }

    fn rows(&mut self, piece: &[u8], ends: bool) {
        if ends {
            self.copy = None;
            self.may_cut(piece.len(), None);
        } else if let (Some(last), Some(copy)) = (memchr::memrchr(b'\n', piece), &self.copy) {
            let copy = copy.clone();
            self.may_cut(last + 1, Some(copy));
        }
    }

    fn text(&mut self, piece: &[u8], ends: bool) {
        let room = self.statement.as_ref().map(|known| LONGEST - known.len());
        match room {
            Some(room) if piece.len() <= room => {
                self.statement
                    .get_or_insert_default()
                    .extend_from_slice(piece);
            }
            _ => self.statement = None,
        }
        if !ends {
            return;
        }
        let statement = self.statement.replace(Vec::new());
        if self.lexer.in_rows() {
            self.copy = statement;
            return;
        }
        let words = tokens(
            Dialect::Postgres,
            statement.as_deref().unwrap_or_default(),
            2,
        );
        match words.as_slice() {
            [word, end] if word.is("begin") && end.is(";") => self.in_transaction = true,
            [word, end] if word.is("commit") && end.is(";") => self.in_transaction = false,
            // With this a script ends, and what would be said behind it is said.
            [sign, word] if sign.is("\\") && word.is("unrestrict") => return,
            _ => {}
        }
        self.may_cut(piece.len(), None);
    }

    fn may_cut(&mut self, length: usize, copy: Option<Vec<u8>>) {
        if !self.in_transaction {
            let at = self.at + length as u64;
            self.place = Some(Place { at, copy });
        }
    }

    /// The last place to cut at, when no more than `most` bytes come behind it; it is taken then.
    pub fn cut(&mut self, most: usize) -> Option<Cut> {
        let behind = usize::try_from(self.at - self.place.as_ref()?.at).ok()?;
        if behind > most {
            return None;
        }
        let Place { copy, .. } = self.place.take()?;
        let in_rows = copy.is_some();
        let mut again = copy.unwrap_or_default();
        if in_rows {
            again.push(b'\n');
        }
        Some(Cut {
            behind,
            in_rows,
            again,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\\restrict x\n--\n-- Data for Name: a; Type: TABLE DATA\n--\n\n\
        COPY public.\"a;\nb\" (x) FROM stdin;\n1\nBEGIN;\n\\\\.\n3\n\\.\n\n\
        SELECT pg_catalog.setval('public.\"s'';\nCOPY x FROM stdin;\"', 1, true);\n\
        BEGIN;\n\nSELECT pg_catalog.lo_open('1', 131072);\nSELECT pg_catalog.lowrite(0, '\\x00');\n\
        COMMIT;\n\nCOPY b (y) FROM stdin;\n\\.\n\n--\n-- done\n--\n\n\\unrestrict x\n";

    /// The script in pieces of `length` bytes, cut wherever it can be.
    fn cut(length: usize, most: usize) -> Vec<String> {
        let (mut cutter, mut scripts, mut now) = (Cutter::default(), Vec::new(), String::new());
        for piece in SCRIPT.as_bytes().chunks(length) {
            cutter.see(piece);
            now += str::from_utf8(piece).unwrap();
            if let Some(Cut {
                behind,
                in_rows,
                again,
            }) = cutter.cut(most)
            {
                let rest = now.split_off(now.len() - behind);
                scripts.push(now + if in_rows { "\\.\n" } else { "" });
                now = String::from_utf8(again).unwrap() + &rest;
            }
        }
        scripts.push(now);
        scripts
    }

    #[test]
    fn each_script_is_whole_and_none_is_lost_wherever_the_input_is_cut() {
        let copy = "COPY public.\"a;\nb\" (x) FROM stdin;\n";
        for length in 1..80 {
            let scripts = cut(length, 1000);
            let joined = scripts.concat();
            assert_eq!(joined.matches("BEGIN;\n").count(), 2, "{scripts:#?}");
            for once in [
                "\n1\n",
                "\n\\\\.\n",
                "\n3\n",
                "setval",
                "lo_open",
                "lowrite",
            ] {
                let times = joined.matches(once).count();
                assert_eq!(times, 1, "{once:?} in pieces of {length}: {scripts:#?}");
            }
            for script in &scripts {
                let opens = script.matches("\nBEGIN;\n\nSELECT").count()
                    + usize::from(script.starts_with("BEGIN;\n\nSELECT"));
                assert_eq!(opens, script.matches("COMMIT;").count(), "{script}");
                let copies = script.matches(copy).count()
                    + script.matches("\nCOPY b (y) FROM stdin;\n").count()
                    + usize::from(script.starts_with("COPY b"));
                let ends = script.matches("\n\\.\n").count();
                assert_eq!(copies, ends, "in pieces of {length}: {script}");
            }
        }
        assert!(cut(3, 1000).len() > 8 && cut(1000, 0).len() == 1);
    }
}
