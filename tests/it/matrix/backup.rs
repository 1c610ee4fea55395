//! Every request of a backup meets every fault, once and for ever.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tapline::s3_server::{Fault, Op};
use tempfile::TempDir;

use super::super::world::World;
use super::cells::{After, BackupCell, Often};
use super::judge::{Leftovers, STORED, judge, let_go};

/// Three parts of an archive that does not compress.
const DUMP: usize = 14_000_000;
/// So little memory that parts are hardly larger than the smallest that a store takes.
const OPTIONS: [&str; 10] = [
    "backup",
    "--memory",
    "28MiB",
    "--compression",
    "zstd",
    "--level",
    "1",
    "--no-progress",
    "--retry-for",
    "1s",
];

/// A dump that fits one part.
const SMALL: usize = 100_000;

/// A file of random bytes, made once.
pub fn dump() -> &'static Path {
    static DUMP_FILE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    file_of(DUMP, &DUMP_FILE)
}

/// Another, that fits one part.
fn small() -> &'static Path {
    static SMALL_FILE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    file_of(SMALL, &SMALL_FILE)
}

fn file_of(size: usize, made: &'static OnceLock<(TempDir, PathBuf)>) -> &'static Path {
    let (_, file) = made.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dump");
        let mut dump = vec![0; size];
        fastrand::Rng::with_seed(8).fill(&mut dump);
        std::fs::write(&file, dump).unwrap();
        (folder, file)
    });
    file
}

/// A world whose only database is [`dump`], by a tool that then ends with `status`. `store` are more
/// keys of the store.
pub fn world(status: u8, store: &str) -> World {
    World::new(&format!(
        "{store}[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \"cat {}; exit {status}\"]\n",
        dump().display()
    ))
}

/// A world whose only database is [`small`], and known to be.
fn small_world(store: &str) -> World {
    World::new(&format!(
        "{store}[databases.x]\nengine = \"command\"\ncommand = [\"cat\", \"{}\"]\n\
         expected_size = {SMALL}\n",
        small().display()
    ))
}

pub fn options() -> [&'static str; 10] {
    OPTIONS
}

#[test]
fn a_backup_is_stored_or_absent_or_says_what_is_left_whatever_a_request_meets() {
    let good = world(0, "");
    let run = good.quietly(&OPTIONS);
    assert_eq!(
        judge(&good, dump(), &run, Leftovers::AreWrong),
        Ok(STORED),
        "{}",
        run.words()
    );
    let asked = good.server.log().all();
    assert!(
        asked.iter().filter(|asked| asked.op == Op::Part).count() >= 3,
        "{asked:?}"
    );

    let cells = super::chosen(4, BackupCell::all());
    super::run_all("backup", cells, BackupCell::name, |cell| {
        let store = if cell.is_silent() { super::SILENCE } else { "" };
        let (world, dump) = match cell.step.after {
            After::Small => (small_world(store), small()),
            after => (world(u8::from(after == After::DumpFailed), store), dump()),
        };
        cell.script(world.server.faults());
        let run = world.at_most(super::PATIENCE, &OPTIONS);
        let outcome = judge(&world, dump, &run, leftovers(cell))?;
        if cell.often == Often::Once {
            let_go(&world, outcome)
        } else {
            Ok(outcome)
        }
    });
}

/// Something may be left where the store refuses to take it away, and where it never answers the
/// manifest's put, which may then still come.
fn leftovers(cell: &BackupCell) -> Leftovers {
    let unanswered_manifest = cell.step.name.ends_with("manifest")
        && !matches!(cell.fault.1, Fault::Denied | Fault::SlowBody { .. });
    let failed = [After::DumpFailed, After::ManifestDenied].contains(&cell.step.after);
    let removes = failed || cell.step.name == "head";
    if cell.often == Often::ForEver && (removes || unanswered_manifest) {
        Leftovers::AreToBeTold
    } else {
        Leftovers::AreWrong
    }
}
