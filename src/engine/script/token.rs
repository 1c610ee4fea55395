//! A statement's words, for rules that look at its front.

use std::ops::Range;

use super::Dialect;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A keyword, a plain name, or a number.
    Word,
    /// A name in quotes.
    Name,
    /// A string.
    Text,
    /// Any other single byte.
    Sign,
}

/// A token of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its bytes, quotes included.
    pub text: &'a [u8],
    /// Where it stands in the statement.
    pub at: Range<usize>,
}

impl Token<'_> {
    /// Whether it is this keyword.
    pub fn is(&self, word: &str) -> bool {
        self.kind != Kind::Text
            && self.kind != Kind::Name
            && self.text.eq_ignore_ascii_case(word.as_bytes())
    }

    /// Whether it can name something.
    pub fn names(&self) -> bool {
        matches!(self.kind, Kind::Word | Kind::Name)
    }

    /// As text.
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(self.text).into_owned()
    }
}

fn of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte == b'@' || byte >= 0x80
}

/// The first tokens of a statement, `most` of them; comments are left out, what stands in MySQL's
/// conditional comments is not.
pub fn tokens(dialect: Dialect, statement: &[u8], most: usize) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < statement.len() && found.len() < most {
        let rest = &statement[at..];
        let (length, kind) = match rest[0] {
            byte if byte.is_ascii_whitespace() => (1, None),
            b'-' if rest.starts_with(b"--") && is_comment(dialect, rest) => (line(rest), None),
            b'#' if dialect == Dialect::Mysql => (line(rest), None),
            b'/' if rest.starts_with(b"/*") => (comment(dialect, rest), None),
            b'*' if dialect == Dialect::Mysql && rest.starts_with(b"*/") => (2, None),
            quote @ (b'\'' | b'"' | b'`') => {
                let name = quote == b'`' || (quote == b'"' && dialect == Dialect::Postgres);
                let kind = if name { Kind::Name } else { Kind::Text };
                let escapes = dialect == Dialect::Mysql && quote != b'`';
                (quoted(rest, quote, escapes), Some(kind))
            }
            byte if of_word(byte) => {
                let length = rest.iter().take_while(|byte| of_word(**byte)).count();
                (length, Some(Kind::Word))
            }
            _ => (1, Some(Kind::Sign)),
        };
        let end = (at + length).min(statement.len());
        if let Some(kind) = kind {
            found.push(Token {
                kind,
                text: &statement[at..end],
                at: at..end,
            });
        }
        at = end;
    }
    found
}

/// MySQL wants a space behind the dashes.
fn is_comment(dialect: Dialect, rest: &[u8]) -> bool {
    dialect == Dialect::Postgres || rest.get(2).is_none_or(u8::is_ascii_whitespace)
}

fn line(rest: &[u8]) -> usize {
    memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1)
}

/// The length of a comment, or of the front of a conditional one, whose content counts.
fn comment(dialect: Dialect, rest: &[u8]) -> usize {
    let conditional = [b"/*!".as_slice(), b"/*M!"]
        .into_iter()
        .find(|front| dialect == Dialect::Mysql && rest.starts_with(front));
    // A version that no server has: MariaDB's client takes it for itself.
    if let Some(front) = conditional
        && !rest[front.len()..].starts_with(b"999999")
    {
        let digits = rest[front.len()..].iter();
        return front.len() + digits.take_while(|byte| byte.is_ascii_digit()).count();
    }
    // PostgreSQL's nest.
    let (mut depth, mut at) = (1, 2);
    while depth > 0 && at < rest.len() {
        let (step, change) = match &rest[at..] {
            [b'*', b'/', ..] => (2, -1),
            [b'/', b'*', ..] if dialect == Dialect::Postgres => (2, 1),
            _ => (1, 0),
        };
        at += step;
        depth += change;
    }
    at
}

/// The length of what is quoted; a doubled quote is part of it.
fn quoted(rest: &[u8], quote: u8, escapes: bool) -> usize {
    let mut at = 1;
    while let Some(byte) = rest.get(at) {
        let doubled = *byte == quote && rest.get(at + 1) == Some(&quote);
        if doubled || (escapes && *byte == b'\\') {
            at += 2;
        } else if *byte == quote {
            return at + 1;
        } else {
            at += 1;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_left_out_and_what_is_conditional_counts() {
        let words = |dialect, text: &str| -> Vec<String> {
            tokens(dialect, text.as_bytes(), 50)
                .iter()
                .map(Token::lossy)
                .collect()
        };
        assert_eq!(
            words(
                Dialect::Mysql,
                "-- x\n/* y */ # z\n/*!50106 CREATE*/ /*!50017 DEFINER=`a``b`@`%`*/ 'it\\'s'"
            ),
            ["CREATE", "DEFINER", "=", "`a``b`", "@", "`%`", r"'it\'s'"]
        );
        assert_eq!(
            words(
                Dialect::Mysql,
                "/*M!999999\\- enable the sandbox mode */ SET a"
            ),
            ["SET", "a"]
        );
        assert_eq!(
            words(Dialect::Postgres, "ALTER TABLE \"a\"\"b\" OWNER TO x;"),
            ["ALTER", "TABLE", "\"a\"\"b\"", "OWNER", "TO", "x", ";"]
        );
    }
}
