//! What of a PostgreSQL dump is wanted: one table, definitions alone, rows alone.
//!
//! The dump goes by statement by statement, and each says what it is about. The one thing that is
//! said too late is whose a sequence is: those are held until it is known.

use std::collections::{HashMap, HashSet};

use super::super::load::Part;
use super::super::script::{Dialect, Kind, Token, Verdict, tokens};
use super::load::quoted;

/// A table's name, as a person gives it: `table`, which is in `public`, or `schema.table`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) schema: String,
    pub(super) name: String,
}

impl TableName {
    pub(super) fn parse(text: &str) -> Self {
        let mut at = 0;
        let mut in_quotes = false;
        let dot = text.bytes().position(|byte| {
            in_quotes ^= byte == b'"';
            byte == b'.' && !in_quotes
        });
        let part = |text: &str| plain(text.as_bytes());
        if let Some(dot) = dot {
            at = dot + 1;
        }
        Self {
            schema: dot.map_or("public".into(), |dot| part(&text[..dot])),
            name: part(&text[at..]),
        }
    }

    /// As an identifier.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

/// What is wanted, and what has been learnt on the way.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Only this table.
    pub(super) table: Option<TableName>,
    /// Definitions, rows, or both.
    pub(super) part: Part,
    /// Whether what the table belongs to or leads to is there: a parent, a publication, the tables
    /// of its foreign keys, the functions of its triggers.
    pub(super) attach: bool,
    /// Sequences whose owner is not known yet.
    held: HashMap<String, Vec<u8>>,
    /// Sequences of the table.
    owned: HashSet<String>,
    /// Indexes and constraints of the table.
    indexes: HashSet<String>,
    /// What of the table has been left out, because what it leads to is not there.
    left_out: HashSet<String>,
    /// What makes it a partition, which it becomes when it has its own indexes: before, its parent's
    /// would give it others.
    last: Vec<u8>,
    found: bool,
}

/// What a statement is about.
#[derive(Debug, PartialEq, Eq)]
enum About {
    /// The session.
    Session,
    /// Rows of a table.
    Rows(TableName),
    /// The value of a sequence.
    Value(String),
    /// Large objects, and what is computed of rows.
    Content,
    /// The definition of a table, or of something of it.
    Table(TableName),
    /// That a table is a partition.
    Partition(TableName),
    /// That a table belongs to something else.
    Member(TableName),
    /// An index.
    Index(String),
    /// A sequence.
    Sequence(String),
    /// Whose a sequence is.
    Owned(String, TableName),
    /// Anything else.
    Other,
}

impl Wanted {
    pub(super) fn new(table: Option<TableName>, part: Part, attach: bool) -> Self {
        Self {
            table,
            part,
            attach,
            held: HashMap::new(),
            owned: HashSet::new(),
            indexes: HashSet::new(),
            left_out: HashSet::new(),
            last: Vec::new(),
            found: false,
        }
    }

    /// Whether a statement is a part of that.
    ///
    /// # Errors
    /// In words, when the table cannot come back by itself.
    pub(super) fn decide(&mut self, head: &[u8], words: &[Token]) -> Result<Verdict, String> {
        let about = about(words);
        let Some(table) = &self.table else {
            let wanted = match about {
                About::Session => true,
                About::Rows(_) | About::Value(_) | About::Content => self.part.has_rows(),
                _ => self.part.has_definitions(),
            };
            return Ok(verdict(wanted));
        };
        let wanted = match about {
            About::Session => true,
            About::Rows(of) => {
                self.found |= of == *table;
                self.part.has_rows() && of == *table
            }
            About::Value(sequence) => self.part.has_rows() && self.owned.contains(&sequence),
            About::Table(of) if self.held.contains_key(&joined(&of)) => {
                // Its owner, as older versions say it.
                if let Some(text) = self.held.get_mut(&joined(&of)) {
                    text.extend_from_slice(head);
                }
                false
            }
            About::Table(of) if of == *table => {
                self.found = true;
                if words[0].is("create") && is_partitioned(head) {
                    return Err(format!(
                        "the table {} is partitioned, and its rows are its partitions': nothing was \
                         done; restore those by their names, or all into another database with --to",
                        table.quoted()
                    ));
                }
                if !self.attach && self.leads_away(words) {
                    return Ok(Verdict::Drop);
                }
                self.indexes.extend(index_name(words));
                self.owned.extend(identity(words));
                self.part.has_definitions()
            }
            About::Partition(of) if of == *table => {
                if self.part.has_definitions() && self.attach {
                    self.last.extend_from_slice(head);
                }
                false
            }
            About::Table(_) | About::Content | About::Other | About::Partition(_) => false,
            About::Member(of) => self.part.has_definitions() && self.attach && of == *table,
            About::Index(index) => {
                self.part.has_definitions() && self.attach && self.indexes.contains(&index)
            }
            About::Sequence(name) if self.owned.contains(&name) => self.part.has_definitions(),
            About::Sequence(name) => {
                let text = self.held.entry(name).or_default();
                text.extend_from_slice(head);
                false
            }
            About::Owned(sequence, of) => {
                let made = self.held.remove(&sequence).unwrap_or_default();
                if of != *table {
                    return Ok(Verdict::Drop);
                }
                self.owned.insert(sequence);
                if self.part.has_definitions() {
                    return Ok(Verdict::Replace([&made, head].concat()));
                }
                false
            }
        };
        Ok(verdict(wanted))
    }

    /// Whether a statement about the table leads to what is not there in a database that is made
    /// for it: that is left out, and what is said about it.
    fn leads_away(&mut self, words: &[Token]) -> bool {
        let behind = |word: &str| Some(names(&words[position(words, word)? + 1..]));
        let of = match () {
            () if words[0].is("create") => {
                let of_function = behind("function").or_else(|| behind("procedure"));
                // One of PostgreSQL's own has no schema.
                let trigger =
                    behind("trigger").filter(|_| of_function.is_some_and(|f| f.len() > 1));
                trigger.or_else(|| behind("rule"))
            }
            () if words[0].is("alter") => behind("constraint").filter(|_| {
                let to = position(words, "references").and_then(|at| table(&words[at + 1..], &[]));
                to.is_some() && to != self.table
            }),
            () => None,
        };
        if let Some(name) = of.and_then(|mut names| names.pop()) {
            tracing::warn!(
                "{name} leads to what is not in a database that is made for one table, and is left \
                 out of it"
            );
            self.left_out.insert(name);
            return true;
        }
        // COMMENT ON TRIGGER name …, ALTER TABLE … ENABLE ALWAYS TRIGGER name.
        let said = ["constraint", "trigger", "rule"]
            .into_iter()
            .find_map(behind);
        let said = said.and_then(|mut names| names.pop());
        !words[0].is("create") && said.is_some_and(|name| self.left_out.contains(&name))
    }

    /// What is left to do when all has gone by.
    ///
    /// # Errors
    /// In words, when the table was not in it.
    pub(super) fn end(&mut self) -> Result<Vec<u8>, String> {
        match &self.table {
            Some(table) if !self.found => Err(format!(
                "the dump holds no table {}: nothing was done; a table that is not in public is \
                 named with its schema",
                table.quoted()
            )),
            _ => Ok(std::mem::take(&mut self.last)),
        }
    }
}

fn verdict(wanted: bool) -> Verdict {
    if wanted { Verdict::Keep } else { Verdict::Drop }
}

fn joined(name: &TableName) -> String {
    format!("{}.{}", name.schema, name.name)
}

/// A name without its quotes.
pub(super) fn plain(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    match inner {
        Some(inner) => inner.replace("\"\"", "\""),
        None => text.into_owned(),
    }
}

/// The names, joined by dots, that stand here.
fn names(words: &[Token]) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = words;
    while let [name, tail @ ..] = rest
        && name.names()
    {
        found.push(plain(name.text));
        match tail {
            [dot, tail @ ..] if dot.kind == Kind::Sign && dot.is(".") => rest = tail,
            _ => break,
        }
    }
    found
}

/// The table that is named behind these words.
fn table(words: &[Token], skip: &[&str]) -> Option<TableName> {
    let at = words
        .iter()
        .position(|word| !skip.iter().any(|skip| word.is(skip)))?;
    let mut names = names(&words[at..]).into_iter();
    let (first, second) = (names.next()?, names.next());
    Some(match second {
        Some(name) => TableName {
            schema: first,
            name,
        },
        None => TableName {
            schema: "public".into(),
            name: first,
        },
    })
}

fn position(words: &[Token], word: &str) -> Option<usize> {
    words.iter().position(|one| one.is(word))
}

/// The table behind the first of this word.
fn behind(words: &[Token], word: &str, skip: &[&str]) -> Option<TableName> {
    table(&words[position(words, word)? + 1..], skip)
}

const CONDITION: &[&str] = &["only", "if", "not", "exists"];

fn about(words: &[Token]) -> About {
    about_it(words).unwrap_or(About::Other)
}

fn about_it(words: &[Token]) -> Option<About> {
    let first = words.first()?;
    let starts = |front: &[&str]| {
        front.len() <= words.len() && front.iter().zip(words).all(|(text, word)| word.is(text))
    };
    let sequence = |words: &[Token]| table(words, CONDITION).map(|name| joined(&name));
    if first.is("\\") || first.is("set") || first.is("begin") || first.is("commit") {
        return Some(About::Session);
    }
    if first.is("copy") || starts(&["insert", "into"]) {
        return table(&words[1..], &["into", "only"]).map(About::Rows);
    }
    if starts(&["select", "pg_catalog", ".", "set_config"]) {
        return Some(About::Session);
    }
    if starts(&["select", "pg_catalog", ".", "setval", "("]) {
        let text = String::from_utf8_lossy(words.get(5)?.text).into_owned();
        let name = text.trim_matches('\'').replace("''", "'");
        return Some(About::Value(joined(&TableName::parse(&name))));
    }
    let large_objects = |words: &[Token]| {
        let mut pairs = words.windows(2);
        pairs.any(|pair| pair[0].is("large") && pair[1].is("object"))
    };
    if first.is("select") || first.is("refresh") || large_objects(words) {
        return Some(About::Content);
    }
    if first.is("create") {
        let kinds = [
            "or",
            "replace",
            "unlogged",
            "foreign",
            "unique",
            "constraint",
            "temporary",
            "local",
            "global",
        ];
        let at = 1 + words[1..]
            .iter()
            .position(|word| !kinds.iter().any(|kind| word.is(kind)))?;
        let (what, rest) = (&words[at], &words[at + 1..]);
        if what.is("sequence") {
            return sequence(rest).map(About::Sequence);
        }
        let of = match () {
            () if what.is("table") => table(rest, CONDITION),
            () if what.is("rule") => behind(rest, "to", &[]),
            () if what.is("statistics") => behind(rest, "from", &[]),
            () if ["index", "trigger", "policy"]
                .iter()
                .any(|text| what.is(text)) =>
            {
                behind(rest, "on", CONDITION)
            }
            () => None,
        };
        return of.map(About::Table);
    }
    if starts(&["alter", "table"]) || starts(&["alter", "foreign", "table"]) {
        let of = behind(words, "table", CONDITION)?;
        let attached = words
            .windows(2)
            .position(|pair| pair[0].is("attach") && pair[1].is("partition"));
        return Some(match attached {
            Some(at) => About::Partition(table(&words[at + 2..], &[])?),
            None => About::Table(of),
        });
    }
    if starts(&["alter", "index"]) {
        // One that becomes its parent's does so with its table.
        let attached = position(words, "attach").is_some();
        let name = names(&words[2..]).pop().filter(|_| !attached);
        return name.map(About::Index);
    }
    if starts(&["alter", "publication"]) {
        return behind(words, "table", CONDITION).map(About::Member);
    }
    if starts(&["alter", "sequence"]) {
        let name = sequence(&words[2..])?;
        let mut pairs = words.windows(2);
        let Some(at) = pairs.position(|pair| pair[0].is("owned") && pair[1].is("by")) else {
            return Some(About::Sequence(name));
        };
        return Some(About::Owned(name, table(&words[at + 2..], &[])?));
    }
    if first.is("comment") || first.is("security") {
        let on = position(words, "on")?;
        let what = words.get(on + 1)?;
        if what.is("table") || what.is("column") {
            return table(&words[on + 2..], &[]).map(About::Table);
        }
        if what.is("index") {
            return names(&words[on + 2..]).pop().map(About::Index);
        }
        if what.is("sequence") {
            return sequence(&words[on + 2..]).map(About::Sequence);
        }
        let of_table = ["constraint", "trigger", "policy", "rule"];
        if of_table.iter().any(|text| what.is(text)) {
            return behind(&words[on + 2..], "on", &[]).map(About::Table);
        }
    }
    if first.is("grant") || first.is("revoke") {
        let on = position(words, "on")?;
        let what = words.get(on + 1)?;
        if what.is("table") {
            return table(&words[on + 2..], &[]).map(About::Table);
        }
        if what.is("sequence") {
            return sequence(&words[on + 2..]).map(About::Sequence);
        }
    }
    None
}

/// Whether a table that is made has partitions.
fn is_partitioned(head: &[u8]) -> bool {
    let words = tokens(Dialect::Postgres, head, usize::MAX);
    let mut pairs = words.windows(2);
    pairs.any(|pair| pair[0].is("partition") && pair[1].is("by"))
}

/// The index or constraint that a statement about a table makes.
fn index_name(words: &[Token]) -> Option<String> {
    let at = position(words, "index").or_else(|| position(words, "constraint"))?;
    names(&words[at + 1..]).pop()
}

/// The sequence of a column that counts by itself.
fn identity(words: &[Token]) -> Option<String> {
    let at = words
        .windows(2)
        .position(|pair| pair[0].is("sequence") && pair[1].is("name"))?;
    table(&words[at + 2..], &[]).map(|name| joined(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about_text(text: &str) -> About {
        about(&tokens(Dialect::Postgres, text.as_bytes(), 64))
    }

    #[test]
    fn a_table_is_named_as_people_do() {
        let name = |schema: &str, name: &str| TableName {
            schema: schema.into(),
            name: name.into(),
        };
        assert_eq!(TableName::parse("t"), name("public", "t"));
        assert_eq!(TableName::parse("s.T"), name("s", "T"));
        assert_eq!(TableName::parse("\"a.b\".\"x\"\"y\""), name("a.b", "x\"y"));
    }

    #[test]
    fn each_statement_says_what_it_is_about() {
        let of = |text: &str| TableName::parse(text);
        for text in [
            "CREATE UNLOGGED TABLE public.t (a int);",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT t_pkey PRIMARY KEY (id);",
            "CREATE UNIQUE INDEX i ON ONLY public.t USING btree (a);",
            "CREATE CONSTRAINT TRIGGER x AFTER UPDATE OF \"on\" ON public.t FROM s.o NOT DEFERRABLE;",
            "CREATE RULE r AS ON INSERT TO public.t DO INSTEAD NOTHING;",
            "CREATE POLICY p ON public.t USING (true);",
            "CREATE STATISTICS public.s (ndistinct) ON a, b FROM public.t;",
            "COMMENT ON TABLE public.t IS 'x';",
            "COMMENT ON COLUMN public.t.a IS 'x';",
            "COMMENT ON CONSTRAINT c ON public.t IS 'on public.u';",
            "GRANT SELECT(a),UPDATE ON TABLE public.t TO x;",
        ] {
            assert_eq!(about_text(text), About::Table(of("t")), "{text}");
        }
        for text in [
            "CREATE VIEW public.t AS SELECT 1;",
            "CREATE FUNCTION table_on() AS $$ $$;",
            "CREATE FUNCTION public.index() AS 'f' LANGUAGE c; on public.t",
            "CREATE FOREIGN DATA WRAPPER trigger;",
        ] {
            assert_eq!(about_text(text), About::Other, "{text}");
        }
        assert_eq!(
            about_text("COPY public.t (a) FROM stdin;"),
            About::Rows(of("t"))
        );
        assert_eq!(
            about_text("SELECT pg_catalog.setval('public.\"T_id_seq\"', 3, true);"),
            About::Value("public.T_id_seq".into())
        );
        assert_eq!(
            about_text("SELECT pg_catalog.lo_create('1');"),
            About::Content
        );
        assert_eq!(
            about_text("ALTER LARGE OBJECT 1 OWNER TO x;"),
            About::Content
        );
        assert_eq!(
            about_text("ALTER TABLE ONLY public.p ATTACH PARTITION public.t DEFAULT;"),
            About::Partition(of("t"))
        );
        assert_eq!(
            about_text("ALTER SEQUENCE public.t_id_seq OWNED BY public.t.id;"),
            About::Owned("public.t_id_seq".into(), of("t"))
        );
    }
}
