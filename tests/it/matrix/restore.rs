//! Every request of a restore meets every fault, once and for ever: afterwards the target is the
//! backup or what it was before, and the exit code tells which.

use tapline::s3_server::{Fault, S3Server};
use tapline::store::memory::MemoryStore;

use super::super::world::{Run, World};
use super::cells::{Named, OFTEN, Often, READ_FAULTS, READS, is_silent};

const RESTORED: &str = "restored: exit 0, and the target is the backup";
const UNTOUCHED: &str = "untouched: exit not 0, and the target is what it was";

struct Cell {
    read: usize,
    fault: Named,
    often: Often,
}

impl Cell {
    fn name(&self) -> String {
        format!(
            "{} / {} / {}",
            READS[self.read].0,
            self.fault.0,
            self.often.name()
        )
    }
}

const INVENTORY: &str = "[databases.x]\nengine = \"sqlite\"\npath = \"x.db\"\n";

/// A SQLite database whose pages do not compress: some twenty MB.
fn make(world: &World) -> Vec<u8> {
    let database = rusqlite::Connection::open(world.path("x.db")).unwrap();
    database
        .execute_batch(
            "create table t (data blob);
             insert into t with recursive n(i) as (select 1 union all select i + 1 from n where i < 20)
             select randomblob(1000000) from n",
        )
        .unwrap();
    drop(database);
    std::fs::read(world.path("x.db")).unwrap()
}

#[test]
fn a_restore_gives_the_backup_or_leaves_what_was_there_whatever_a_request_meets() {
    let world = World::new(INVENTORY);
    let backup = make(&world);
    assert_eq!(
        world
            .quietly(&["backup", "--compression", "zstd", "--level", "1"])
            .code,
        Some(0)
    );
    let store = world.server.store();

    let mut cells = Vec::new();
    for (row, fault) in READ_FAULTS.into_iter().enumerate() {
        for (turn, often) in OFTEN.into_iter().enumerate() {
            for read in 0..READS.len() {
                cells.push((row + read + turn, Cell { read, fault, often }));
            }
        }
    }
    let cells = super::chosen(3, cells);
    super::run_all("restore", cells, Cell::name, |cell| {
        restore(cell, store, &backup)
    });
}

fn restore(cell: &Cell, store: &MemoryStore, backup: &[u8]) -> Result<&'static str, String> {
    let world = World::with(INVENTORY, |runtime| {
        runtime.block_on(S3Server::serving(store.copy())).unwrap()
    });
    let before = b"what was there before";
    world.write("x.db", before);
    let rule = (READS[cell.read].2)(world.server.faults());
    cell.often.of(rule).meets(cell.fault.1);
    let store = if is_silent(cell.fault.1) {
        super::SILENCE
    } else {
        ""
    };
    let inventory = std::fs::read_to_string(world.path("tapline.toml")).unwrap();
    world.write(
        "tapline.toml",
        format!(
            "[run]\nretry_for = \"1s\"\n{}",
            inventory.replacen("[databases", &format!("{store}[databases"), 1)
        ),
    );
    let Run {
        code,
        stdout,
        stderr,
    } = world.at_most(super::PATIENCE, &["restore", "x", "--overwrite"]);
    let after = std::fs::read(world.path("x.db")).unwrap();
    let beside: Vec<String> = std::fs::read_dir(world.folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["x.db", "tapline.toml", "access", "secret"].contains(&name.as_str()))
        .collect();
    if code == Some(137) {
        return Err("it never ended".into());
    }
    if !beside.is_empty() {
        return Err(format!(
            "left beside the target: {beside:?}\n{stdout}{stderr}"
        ));
    }
    // What a damaged backup says must not be said of a network that is.
    let damaged = matches!(cell.fault.1, Fault::WrongReply | Fault::ShortReply);
    match code {
        Some(0) if after == backup => Ok(RESTORED),
        Some(5) if !damaged => Err(format!("said to be damaged\n{stdout}{stderr}")),
        Some(code) if code != 0 && after == before => Ok(UNTOUCHED),
        code => Err(format!(
            "exit {code:?}, and the target is {}\n{stdout}{stderr}",
            if after == backup {
                "the backup"
            } else if after == before {
                "what it was"
            } else {
                "neither"
            }
        )),
    }
}
