//! Backups that are encrypted and signed, when requests of theirs go wrong: whole or nothing.

use std::sync::Mutex;
use std::time::Duration;

use tapline::s3_server::{Fault, Op};

use super::matrix::judge::ABSENT;
use super::world::{Run, World, backup_keys};

/// The requests, by operation, key, and part.
const STEPS: [(&str, Op, &str, Option<u32>); 6] = [
    ("create", Op::Create, "", None),
    ("part 2", Op::Part, "", Some(2)),
    ("part 1", Op::Part, "", Some(1)),
    ("complete", Op::Complete, "", None),
    ("signature", Op::Put, "manifest.json.minisig", None),
    ("manifest", Op::Put, "manifest.json", None),
];
const FAULTS: [(&str, Fault); 4] = [
    ("denied", Fault::Denied),
    ("error", Fault::InternalError),
    ("reply lost", Fault::ReplyLost),
    ("cut in body", Fault::CutInBody),
];
const PATIENCE: Duration = Duration::from_secs(80);

const KEYS: [&str; 2] = ["age.key", "sign.key"];

/// A folder with the keys, and the inventory's databases.
fn keys() -> (World, String) {
    let world = World::new("");
    let public = world.age_recipient();
    let signing = world.run(&["keygen", "--signing", "-o", "sign.key"]).stdout;
    let databases = format!(
        "[signatures]\n{signing}[defaults]\nencrypt_to = [\"{public}\"]\n[databases.x]\n\
         engine = \"command\"\ncommand = [\"cat\", \"{}\"]\ncompression = \"none\"\n",
        super::matrix::dump().display()
    );
    (world, databases)
}

/// What became of it, or why that is wrong.
fn judge(world: &World, run: &Run) -> Result<&'static str, String> {
    let store = world.server.store();
    let left = format!(
        "keys {:?}, {} open uploads",
        store.keys(),
        store.open_uploads()
    );
    world.server.faults().clear();
    match run.code {
        Some(0) => {
            let args = ["restore", "x", "--output", "back", "--identity", "age.key"];
            let back = world.quietly(&args);
            let is_dump =
                std::fs::read(world.path("back")).ok() == std::fs::read(super::matrix::dump()).ok();
            if back.code == Some(0) && is_dump && store.open_uploads() == 0 {
                return Ok("stored");
            }
            Err(format!("exit 0, and {left}\n{}", back.words()))
        }
        Some(_) if backup_keys(&world.server).is_empty() && store.open_uploads() == 0 => Ok(ABSENT),
        Some(1 | 4) if run.words().contains("tapline cleanup") => {
            store.age_by(Duration::from_hours(72));
            world.quietly(&["cleanup", "--confirm"]);
            let manifests = store
                .keys()
                .iter()
                .any(|key| key.ends_with("manifest.json"));
            if backup_keys(&world.server).is_empty()
                || manifests && run.words().contains("tapline verify")
            {
                return Ok("told");
            }
            Err(format!("after cleanup {:?}", store.keys()))
        }
        code => Err(format!("exit {code:?}, and {left}\n{}", run.words())),
    }
}

#[test]
fn an_encrypted_and_signed_backup_is_whole_or_nothing_whatever_a_request_meets() {
    let (made, databases) = keys();
    let mut cells = Vec::new();
    for (row, step) in STEPS.into_iter().enumerate() {
        for (column, fault) in FAULTS.into_iter().enumerate() {
            let number = |once| row + column + usize::from(once);
            cells.extend([true, false].map(|once| (number(once), (step, fault, once))));
        }
    }
    let cells = super::matrix::chosen(2, cells);
    let (count, cells) = (cells.len(), Mutex::new(cells));
    let (stored, wrong) = (Mutex::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some((step, fault, once)) = { cells.lock().unwrap().pop() } {
                    let world = World::new(&databases);
                    for key in KEYS {
                        std::fs::copy(made.path(key), world.path(key)).unwrap();
                    }
                    let (name, op, key, part) = step;
                    let mut rule = world.server.faults().on(op).key(key);
                    if let Some(part) = part {
                        rule = rule.part(part);
                    }
                    if once {
                        rule = rule.nth(1);
                    }
                    rule.meets(fault.1);
                    let run = world.at_most(
                        PATIENCE,
                        &[
                            "backup",
                            "--memory",
                            "40MiB",
                            "--no-progress",
                            "--retry-for",
                            "1s",
                        ],
                    );
                    match judge(&world, &run) {
                        Ok("stored") => *stored.lock().unwrap() += 1,
                        Ok(_) if !once || fault.0 == "denied" => {}
                        Ok(what) => {
                            let words = run.words();
                            let why = format!("{name}, {}, once: {what}: {words}", fault.0);
                            wrong.lock().unwrap().push(why);
                        }
                        Err(why) => {
                            let why = format!("{name}, {}, once {once}: {why}", fault.0);
                            wrong.lock().unwrap().push(why);
                        }
                    }
                }
            });
        }
    });
    let (stored, wrong) = (stored.into_inner().unwrap(), wrong.into_inner().unwrap());
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(stored * 8 >= count * 3, "{stored} of {count} were stored");
}
