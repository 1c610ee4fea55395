//! Where statements end, as the clients see it; byte by byte, over any cut of the input.

use super::Dialect;
use super::token::tokens;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Outside of everything.
    Plain,
    /// In quotes; whether a backslash takes the next byte with it.
    Quote { quote: u8, escapes: bool },
    /// Behind that backslash.
    Escaped { quote: u8 },
    /// Behind a closing quote, which another one would make part of the text.
    Closed { quote: u8, escapes: bool },
    /// A comment to the end of its line.
    Line,
    /// Behind the `/*`, or the `/*M`, of what may be one of MySQL's conditional comments.
    Opened,
    /// A comment in stars; how deep, and the byte before.
    Block { depth: u32, before: u8 },
    /// The tag of a dollar quote, as far as it is known.
    Tag(Vec<u8>),
    /// In dollar quotes, with the bytes of their end and how many of them stand here.
    Dollar { end: Vec<u8>, matched: usize },
    /// A command of the client's own, to the end of its line.
    Command,
    /// The rest of the line of a COPY.
    CopyLine,
    /// COPY's rows: how much of a line that is only `\.` stands here; `None` in any other line.
    Rows(Option<u8>),
}

/// As many bytes of a statement's front as `DELIMITER` and its delimiter take, spaces left out.
const FRONT: usize = 32;
/// How a COPY ends whose rows follow it, spaces left out.
const COPY_END: &[u8; 10] = b"FROMSTDIN;";

pub(super) struct Lexer {
    dialect: Dialect,
    state: State,
    /// The two bytes before, and the front's length before each of them: they may turn out to have
    /// begun a comment.
    before: [(u8, usize); 2],
    /// The statement's first bytes without comments and spaces.
    front: Vec<u8>,
    /// Its last ones.
    back: [u8; COPY_END.len()],
    delimiter: Vec<u8>,
    matched: usize,
    /// MySQL: whether a backslash escapes, which is a mode of the session.
    escapes: bool,
}

impl Lexer {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            state: State::Plain,
            before: [(0, 0); 2],
            front: Vec::new(),
            back: [0; COPY_END.len()],
            delimiter: b";".to_vec(),
            matched: 0,
            escapes: true,
        }
    }

    /// Whether rows come next, which are no statement.
    pub(super) fn in_rows(&self) -> bool {
        matches!(self.state, State::CopyLine | State::Rows(_))
    }

    /// Takes bytes up to the end of a statement, or all: how many, and whether one ends there.
    pub(super) fn next(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.skip(&bytes[at..]);
            let Some(byte) = bytes.get(at) else { break };
            at += 1;
            if self.step(*byte) {
                return (at, true);
            }
        }
        (bytes.len(), false)
    }

    /// A statement was this: it may change how those behind it are read.
    pub(super) fn after(&mut self, statement: &[u8]) {
        if self.dialect == Dialect::Mysql
            && let [set, mode, ..] = tokens(self.dialect, statement, 2).as_slice()
            && set.is("set")
            && (mode.is("sql_mode") || mode.is("@@sql_mode"))
        {
            self.escapes = memchr::memmem::find(statement, b"NO_BACKSLASH_ESCAPES").is_none();
        }
    }

    /// How many bytes are surely nothing new.
    fn skip(&self, bytes: &[u8]) -> usize {
        let next = match &self.state {
            State::Quote {
                quote,
                escapes: true,
            } => memchr::memchr2(*quote, b'\\', bytes),
            State::Quote { quote, .. } => memchr::memchr(*quote, bytes),
            State::Line | State::Rows(None) | State::CopyLine => memchr::memchr(b'\n', bytes),
            State::Dollar { matched: 0, .. } => memchr::memchr(b'$', bytes),
            _ => return 0,
        };
        next.unwrap_or(bytes.len())
    }

    /// Takes a byte; whether a statement ends with it.
    #[expect(clippy::match_same_arms, reason = "a table, a row for each state")]
    fn step(&mut self, byte: u8) -> bool {
        let state = std::mem::replace(&mut self.state, State::Plain);
        self.state = match state {
            State::Plain => return self.plain(byte),
            State::Quote { quote, escapes } if byte == quote => State::Closed { quote, escapes },
            State::Quote {
                quote,
                escapes: true,
            } if byte == b'\\' => State::Escaped { quote },
            State::Quote { .. } => state,
            State::Escaped { quote } => State::Quote {
                quote,
                escapes: true,
            },
            State::Closed { quote, escapes } if byte == quote => State::Quote { quote, escapes },
            State::Closed { .. } => return self.plain(byte),
            State::Line if byte == b'\n' => State::Plain,
            State::Opened if byte == b'!' => State::Plain,
            State::Opened if byte == b'M' => State::Opened,
            State::Opened => self.block(1, 0, byte),
            State::Block { depth, before } => self.block(depth, before, byte),
            State::Tag(tag) if byte == b'$' => State::Dollar {
                end: [b"$", tag.as_slice(), b"$"].concat(),
                matched: 0,
            },
            State::Tag(mut tag) if of_name(byte) => {
                tag.push(byte);
                State::Tag(tag)
            }
            State::Tag(_) => return self.plain(byte),
            State::Dollar { end, matched } => {
                let matched = match byte {
                    _ if byte == end[matched] => matched + 1,
                    b'$' => 1,
                    _ => 0,
                };
                if matched == end.len() {
                    State::Plain
                } else {
                    State::Dollar { end, matched }
                }
            }
            State::Command if byte == b'\n' => return self.end(),
            State::CopyLine if byte == b'\n' => State::Rows(Some(0)),
            State::Line | State::Command | State::CopyLine => state,
            State::Rows(line) => match (line, byte) {
                (Some(2), b'\n') => return self.end(),
                (_, b'\n') => State::Rows(Some(0)),
                (Some(0), b'\\') => State::Rows(Some(1)),
                (Some(1), b'.') | (Some(2), b'\r') => State::Rows(Some(2)),
                _ => State::Rows(None),
            },
        };
        false
    }

    fn block(&self, depth: u32, before: u8, byte: u8) -> State {
        // PostgreSQL's comments nest. `/*/` is a front and no end.
        let (depth, before) = match (before, byte) {
            (b'*', b'/') => (depth - 1, 0),
            (b'/', b'*') if self.dialect == Dialect::Postgres => (depth + 1, 0),
            _ => (depth, byte),
        };
        if depth == 0 {
            State::Plain
        } else {
            State::Block { depth, before }
        }
    }

    fn plain(&mut self, byte: u8) -> bool {
        let postgres = self.dialect == Dialect::Postgres;
        let [(earlier, at_earlier), (before, at_before)] = self.before;
        let at = self.front.len();
        self.before = [self.before[1], (byte, at)];
        let space = byte.is_ascii_whitespace();
        if !space {
            self.back.rotate_left(1);
            self.back[COPY_END.len() - 1] = byte;
            if at < FRONT {
                self.front.push(byte);
            }
        }
        let front = b"delimiter";
        if !postgres && at >= front.len() && self.front[..front.len()].eq_ignore_ascii_case(front) {
            if byte == b'\n' {
                self.delimiter = self.front.split_off(front.len());
                if self.delimiter.is_empty() {
                    self.delimiter.push(b';');
                }
                return self.end();
            }
            return false;
        }
        self.matched = match byte {
            _ if byte == self.delimiter[self.matched] => self.matched + 1,
            _ => usize::from(byte == self.delimiter[0]),
        };
        if self.matched == self.delimiter.len() {
            return self.end();
        }
        let mut comment = |state, front: usize| {
            self.front.truncate(front);
            self.before = [(0, 0); 2];
            self.state = state;
        };
        match byte {
            b'-' if postgres && before == b'-' => comment(State::Line, at_before),
            // MySQL wants a space behind the dashes.
            b'\n' if !postgres && (earlier, before) == (b'-', b'-') => {
                comment(State::Plain, at_earlier);
            }
            _ if !postgres && space && (earlier, before) == (b'-', b'-') => {
                comment(State::Line, at_earlier);
            }
            b'#' if !postgres => comment(State::Line, at),
            b'*' if before == b'/' && postgres => {
                let depth = 1;
                comment(State::Block { depth, before: 0 }, at_before);
            }
            b'*' if before == b'/' => comment(State::Opened, at_before),
            b'\'' | b'"' => {
                let of_postgres =
                    byte == b'\'' && matches!(before, b'e' | b'E') && !of_name(earlier);
                self.state = State::Quote {
                    quote: byte,
                    escapes: if postgres { of_postgres } else { self.escapes },
                };
            }
            b'`' if !postgres => {
                let escapes = false;
                self.state = State::Quote {
                    quote: byte,
                    escapes,
                };
            }
            b'$' if postgres && !of_name(before) => self.state = State::Tag(Vec::new()),
            b'\\' if postgres && at == 0 => self.state = State::Command,
            _ => {}
        }
        false
    }

    fn end(&mut self) -> bool {
        let copies = self.dialect == Dialect::Postgres
            && self
                .front
                .get(..4)
                .is_some_and(|word| word.eq_ignore_ascii_case(b"copy"))
            && self.back.eq_ignore_ascii_case(COPY_END);
        self.state = if copies {
            State::CopyLine
        } else {
            State::Plain
        };
        self.front.clear();
        self.back = [0; COPY_END.len()];
        self.before = [(0, 0); 2];
        self.matched = 0;
        true
    }
}

fn of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}
