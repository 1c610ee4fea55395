//! What is copied by many sessions, and in which parts: pure but for the questions' texts.

use std::collections::VecDeque;

use super::super::parallel::{Copy, Table};
use super::super::unhex;

/// A table smaller than this, with what it keeps elsewhere, is the dump tool's: to copy it alone
/// would cost more than it brings.
const LARGE: u64 = 1 << 20;
/// So many tables are copied at most, the largest: each is named on the dump tool's command line.
const MOST_TABLES: usize = 500;
/// A part of a table, in bytes of the server's files: some seconds at most for the session that is
/// the last at work, and many for the one that waits for none.
const PART: std::ops::RangeInclusive<u64> = (4 << 20)..=(128 << 20);
/// Parts for each session, so that all end at about the same time.
const PARTS_EACH: u64 = 16;
/// Gives back what a copy has locked besides, such as indexes.
const LET_GO: &[u8] = b"rollback to savepoint copies;\n";
/// The longest part of a file's name that is a table's.
const LONGEST_NAME: usize = 100;
/// From this version on a range of rows' places is read as a range of pages; before, all pages are
/// read for each.
const RANGES_SINCE: u32 = 14;

/// The tables that a dump holds, but for those of extensions: statements that lock those that the
/// session `holder` has not locked yet, so many each, a line each.
pub(super) fn locks(holder: &str, each: usize) -> String {
    format!(
        "select encode(convert_to('lock table ' || string_agg(name, ', ') || ' in access share mode',
             pg_client_encoding()), 'hex')
         from (
           select format('only %I.%I', n.nspname, c.relname) as name,
                  row_number() over (order by c.oid) / {each} as line
           from pg_class c join pg_namespace n on n.oid = c.relnamespace
           where c.relkind in ('r', 'p') and c.relpersistence <> 't'
             and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
             and not exists (select from pg_depend d
               where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
             and c.oid not in (select relation from pg_locks
               where locktype = 'relation' and pid = {holder} and granted and database =
                 (select oid from pg_database where datname = current_database()))
         ) tables group by line order by line;\n"
    )
}

/// Tables that can be copied like any other, of those that are locked: ordinary ones whose rows are
/// where rows are, of no extension and in no extension's schema. A name that a database in another
/// encoding cannot give to the dump tool is left to that.
pub(super) fn candidates() -> String {
    format!(
        "select c.oid, encode(convert_to(n.nspname, 'UTF8'), 'hex'),
           encode(convert_to(c.relname, 'UTF8'), 'hex'),
           pg_relation_size(c.oid) / current_setting('block_size')::int, pg_table_size(c.oid),
           encode(convert_to(format('%I.%I', n.nspname, c.relname), pg_client_encoding()), 'hex'),
           encode(convert_to(columns, pg_client_encoding()), 'hex')
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         cross join lateral (
           select string_agg(quote_ident(attname), ', ' order by attnum) as columns
           from pg_attribute a where attrelid = c.oid and attnum > 0 and not attisdropped
             and coalesce(to_jsonb(a)->>'attgenerated', '') = ''
         ) a
         where c.relkind = 'r' and c.relpersistence = 'p' and columns is not null
           and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
           and c.relam in (0, (select oid from pg_am where amname = 'heap'))
           and not exists (select from pg_depend d where d.deptype = 'e' and
             (d.classid, d.objid) in (('pg_class'::regclass, c.oid), ('pg_namespace'::regclass, n.oid)))
           and c.oid in (select relation from pg_locks
             where locktype = 'relation' and pid = pg_backend_pid() and granted)
           and (getdatabaseencoding() = 'UTF8' or n.nspname || c.relname ~ '^[ -~]*$')
           and pg_table_size(c.oid) >= {LARGE}
         order by pg_table_size(c.oid) desc limit {MOST_TABLES}"
    )
}

/// A table as the server describes it.
pub(super) struct Candidate {
    oid: String,
    schema: String,
    name: String,
    pages: u64,
    bytes: u64,
    /// Qualified and quoted, in the client's encoding.
    qualified: Vec<u8>,
    /// So are its columns.
    columns: Vec<u8>,
}

impl Candidate {
    /// Reads a line of the answer to [`candidates`].
    pub(super) fn read(line: &str) -> Option<Self> {
        let mut fields = line.split('|');
        let oid = fields.next()?.to_owned();
        let (schema, name) = (unhex(fields.next()?)?, unhex(fields.next()?)?);
        let (pages, bytes) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self {
            oid,
            schema,
            name,
            pages,
            bytes,
            qualified: bytes_of(fields.next()?)?,
            columns: bytes_of(fields.next()?)?,
        })
    }

    /// The lock that a session takes on it, or does without at once.
    pub(super) fn lock(&self) -> Vec<u8> {
        [
            b"lock table only ",
            &self.qualified[..],
            b" in access share mode nowait;\n",
        ]
        .concat()
    }

    /// The dump tool's option that leaves its rows out. In quotes a pattern is a name.
    pub(super) fn exclusion(&self) -> String {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let (schema, name) = (quoted(&self.schema), quoted(&self.name));
        format!("--exclude-table-data={schema}.{name}")
    }

    /// How much of each segment is not its rows, in bytes.
    pub(super) fn copy_len(&self) -> usize {
        self.copy().len()
    }

    /// What a script of its rows begins with.
    fn copy(&self) -> Vec<u8> {
        [
            b"COPY ",
            &self.qualified[..],
            b" (",
            &self.columns,
            b") FROM stdin;\n",
        ]
        .concat()
    }

    /// Its name as a file's: no two are the same.
    fn file(&self) -> String {
        let safe = |name: &str| {
            name.bytes().fold(String::new(), |safe, byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => {
                    safe + &char::from(byte).to_string()
                }
                _ => safe + &format!("%{byte:02X}"),
            })
        };
        let name = format!("{}.{}", safe(&self.schema), safe(&self.name));
        if name.len() <= LONGEST_NAME {
            return name;
        }
        format!("{}~{}", &name[..LONGEST_NAME - 12], self.oid)
    }

    /// What copies its rows from page to page, the last one to whatever end there is.
    fn statement(&self, from: u64, to: Option<u64>, ranges: bool) -> Vec<u8> {
        let (columns, qualified) = (&self.columns[..], &self.qualified[..]);
        if !ranges {
            return [
                b"copy ",
                qualified,
                b" (",
                columns,
                b") to stdout;\n",
                LET_GO,
            ]
            .concat();
        }
        let to = to.map_or(String::new(), |page| format!(" and ctid < '({page},0)'"));
        let range = format!(" where ctid >= '({from},0)'{to}) to stdout;\n");
        [
            b"copy (select ",
            columns,
            b" from only ",
            qualified,
            range.as_bytes(),
            LET_GO,
        ]
        .concat()
    }
}

/// Bytes from hex digits.
pub(super) fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Which parts of which tables `sessions` copy, from a server of this version.
pub(super) fn split(
    candidates: &[Candidate],
    sessions: usize,
    server: u32,
) -> (Vec<Table>, VecDeque<Copy>) {
    let total: u64 = candidates.iter().map(|table| table.bytes).sum();
    let part = (total / (sessions as u64 * PARTS_EACH)).clamp(*PART.start(), *PART.end());
    let (mut tables, mut copies) = (Vec::new(), VecDeque::new());
    for (at, table) in candidates.iter().enumerate() {
        tables.push(Table {
            file: table.file(),
            copy: table.copy(),
        });
        // What a row keeps elsewhere goes with its page.
        let parts = if server < RANGES_SINCE {
            1
        } else {
            (table.bytes / part).clamp(1, table.pages.max(1))
        };
        let page = |n: u64| table.pages * n / parts;
        copies.extend((0..parts).map(|n| Copy {
            table: at,
            statement: table.statement(page(n), (n + 1 < parts).then(|| page(n + 1)), parts > 1),
        }));
    }
    (tables, copies)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, pages: u64, bytes: u64) -> Candidate {
        let hex = |text: &str| crate::archive::hex(text.as_bytes());
        let line = format!(
            "7|{}|{}|{pages}|{bytes}|{}|{}",
            hex("s"),
            hex(name),
            hex("s.t"),
            hex("a, b")
        );
        Candidate::read(&line).unwrap()
    }

    #[test]
    fn the_parts_of_a_table_are_all_of_it_and_the_last_has_no_end() {
        for (pages, bytes) in [
            (1, 1 << 30),
            (131_072, 1 << 30),
            (0, 2 << 20),
            (999, 8 << 20),
        ] {
            let (_, copies) = split(&[table("t", pages, bytes)], 2, 15);
            let texts: Vec<String> = copies
                .iter()
                .map(|copy| String::from_utf8(copy.statement.clone()).unwrap())
                .collect();
            if let [one] = texts.as_slice() {
                assert_eq!(
                    one,
                    "copy s.t (a, b) to stdout;\nrollback to savepoint copies;\n"
                );
                continue;
            }
            let mut next = 0;
            for (at, text) in texts.iter().enumerate() {
                let start = format!("copy (select a, b from only s.t where ctid >= '({next},0)'");
                let rest = text.strip_prefix(&start).expect(text);
                if at + 1 == texts.len() {
                    assert_eq!(rest, ") to stdout;\nrollback to savepoint copies;\n");
                } else {
                    let end = rest.strip_prefix(" and ctid < '(").unwrap();
                    next = end.split_once(',').unwrap().0.parse().unwrap();
                    assert!(next > 0 && next < pages);
                }
            }
            assert_eq!(texts.len() as u64, if pages == 999 { 2 } else { 32 });
        }
        let (_, copies) = split(&[table("t", 131_072, 1 << 30)], 4, 13);
        assert_eq!(copies.len(), 1);
    }

    #[test]
    fn odd_names_are_files_names_that_lead_nowhere_and_are_not_the_same() {
        let long = "ü".repeat(31);
        let names = ["a.b", "a/b", "..", "a b", "A", "a", "ü", "x%2Ey", &long];
        let files: Vec<String> = names.iter().map(|name| table(name, 1, 1).file()).collect();
        for file in &files {
            assert!(
                file.parse::<crate::archive::EntryName>().is_ok() && file.len() <= LONGEST_NAME
            );
        }
        let different: std::collections::HashSet<_> = files.iter().collect();
        assert_eq!(different.len(), files.len(), "{files:?}");
        assert_eq!(
            table("a\"b*", 1, 1).exclusion(),
            "--exclude-table-data=\"s\".\"a\"\"b*\""
        );
    }
}
