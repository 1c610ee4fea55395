//! The client that a restore loads by ends at any byte, in any way: the target is what it was, and
//! nothing is left beside it.

use super::super::servers::{Mariadb, PASSWORD, Postgres};
use super::super::world::World;

const RESTORED: &str = "restored: exit 0, and the target is the backup";
const UNTOUCHED: &str = "untouched: exit not 0, and the target is what it was";

/// How much of a dump the client takes before it ends, in percent; all of it, and then ends badly.
const TAKEN: [u64; 5] = [0, 1, 50, 99, 100];
/// How it ends.
const ENDS: [&str; 2] = ["kill -KILL $$", "exit 3"];
const GOOD: &str = "exit 0";
const SOURCES: [(&str, &str); 3] = [
    ("plain", "PostgreSQL by psql"),
    ("custom", "PostgreSQL by pg_restore and psql"),
    ("mariadb", "MariaDB"),
];

pub struct Cell {
    /// Its number, for a target of its own.
    number: usize,
    source: &'static str,
    what: &'static str,
    taken: u64,
    end: &'static str,
}

impl Cell {
    pub fn all() -> Vec<(usize, Self)> {
        let mut cells = Vec::new();
        for (row, (source, what)) in SOURCES.into_iter().enumerate() {
            let mut push = |number, taken, end| {
                let cell = Self {
                    number: cells.len(),
                    source,
                    what,
                    taken,
                    end,
                };
                cells.push((number, cell));
            };
            for (column, taken) in TAKEN.into_iter().enumerate() {
                for (turn, end) in ENDS.into_iter().enumerate() {
                    push(row + column + turn, taken, end);
                }
            }
            // A good one in every run, so that the others fail for what they are meant to.
            push(0, 100, GOOD);
        }
        cells
    }

    fn name(&self) -> String {
        format!("{} / {} % / {}", self.what, self.taken, self.end)
    }
}

/// The real client behind a script that gives it the first bytes of what it is to load and then
/// ends; what asks questions is left alone.
fn client(program: &str, loads: &str, bytes: u64, end: &str) -> String {
    let real = super::super::world::tool(std::process::Command::new("which").arg(program));
    let real = String::from_utf8(real).unwrap();
    let real = real.trim();
    format!(
        "#!/bin/sh\ncase \"$*\" in\n*{loads}*) ;;\n*) exec {real} \"$@\" ;;\nesac\n\
         head -c {bytes} | {real} \"$@\"\n{end}\n"
    )
}

#[test]
fn a_client_that_ends_at_any_byte_of_a_restore_leaves_what_was_there() {
    let (postgres, mariadb) = (Postgres::start(), Mariadb::start());
    let rows = "(id int primary key, note text)";
    postgres.sql("postgres", "create database source");
    postgres.sql(
        "source",
        &format!(
            "create table t {rows}; insert into t select g, repeat(md5(g::text), 20)
             from generate_series(1, 500) g; create view v as select count(*) as n from t"
        ),
    );
    mariadb.sql(&format!(
        "create database source; use source; create table t {rows};
         insert into t select seq, repeat(md5(seq), 20) from seq_1_to_500;
         create view v as select count(*) as n from t"
    ));
    let cells = super::chosen(3, Cell::all());
    for cell in &cells {
        let target = format!("target{}", cell.number);
        let old = format!("create table t {rows}; insert into t values (0, 'precious')");
        if cell.source == "mariadb" {
            mariadb.sql(&format!("create database {target}; use {target}; {old}"));
        } else {
            postgres.sql("postgres", &format!("create database {target}"));
            postgres.sql(&target, &old);
        }
    }
    let inventory = format!(
        "[defaults]\nuser = \"admin\"\npassword = {{ file = \"password\" }}\nhost = \"127.0.0.1\"\n\
         database = \"source\"\ntools = \"tools\"\n\
         [databases.plain]\nengine = \"postgres\"\nport = {0}\n\
         [databases.custom]\nengine = \"postgres\"\nport = {0}\nformat = \"custom\"\n\
         [databases.mariadb]\nengine = \"mariadb\"\nport = {1}\n",
        postgres.port(),
        mariadb.port()
    );
    let good = World::new(&inventory.replace("tools = \"tools\"\n", ""));
    good.write("password", PASSWORD);
    assert_eq!(good.quietly(&["backup"]).code, Some(0));
    let text = std::fs::read_to_string(good.path("tapline.toml")).unwrap();
    let text = text.replace(
        "user = \"admin\"\n",
        "user = \"admin\"\ntools = \"tools\"\n",
    );

    super::run_all("restore's client", cells, Cell::name, |cell| {
        let size = good.manifest(cell.source).entries[0].size;
        // A script of pg_restore's is some other length than the dump that it is made of.
        let bytes = size * cell.taken / 100 + if cell.taken == 100 { 1 << 20 } else { 0 };
        let here = World::new("");
        let write = |name: &str, content: &[u8]| here.write(name, content);
        write("tapline.toml", text.as_bytes());
        write("password", PASSWORD.as_bytes());
        std::fs::create_dir(here.path("tools")).unwrap();
        for (program, loads) in [
            ("psql", "VERBOSITY=verbose"),
            ("mariadb", "--max-allowed-packet=1G"),
        ] {
            let name = format!("tools/{program}");
            write(&name, client(program, loads, bytes, cell.end).as_bytes());
            here.executable(&name);
        }
        for program in ["pg_restore", "pg_dump", "mariadb-dump"] {
            let real = super::super::world::tool(std::process::Command::new("which").arg(program));
            let real = String::from_utf8(real).unwrap();
            std::os::unix::fs::symlink(real.trim(), here.path("tools").join(program)).unwrap();
        }
        let target = format!("target{}", cell.number);
        let run = here.at_most(
            super::PATIENCE,
            &["restore", cell.source, "--to", &target, "--overwrite"],
        );
        let (holds, beside) = if cell.source == "mariadb" {
            let beside = format!(
                "select count(*) from information_schema.schemata
                 where schema_name like '%{target}\\_%' or schema_name like '%tapline%{target}%'"
            );
            let holds = format!("select count(*), min(note) from {target}.t");
            (mariadb.sql(&holds).replace('\t', "|"), mariadb.sql(&beside))
        } else {
            let beside =
                format!("select count(*) from pg_database where datname ~ '^{target}_tapline'");
            let holds = "select count(*), min(note) from t";
            (
                postgres.sql(&target, holds),
                postgres.sql("postgres", &beside),
            )
        };
        match (run.code, holds.trim(), beside.trim()) {
            (Some(0), holds, "0") if cell.end == GOOD && holds.starts_with("500|") => Ok(RESTORED),
            (Some(1), "1|precious", "0") if cell.end != GOOD => Ok(UNTOUCHED),
            (code, holds, beside) => Err(format!(
                "exit {code:?}, the target holds {holds}, {beside} beside it\n{}",
                run.words()
            )),
        }
    });
}
