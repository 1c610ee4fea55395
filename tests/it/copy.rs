//! A second copy: the same backup in another store, whole or not at all, and never without proof.

use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use tapline::s3_server::{Fault, Op, S3Server};
use tapline::store::Store;

use super::world::{Run, World, is_long_run, signal, wait_until};

const PATIENCE: Duration = Duration::from_secs(80);

/// Two stores of one server, and a database whose dump is counted in the file `dumps`.
fn inventory(world: &World, dump: &str, more: &str, of_main: &str) {
    let endpoint = world.server.endpoint();
    let second = super::world::store(&endpoint)
        .replace("[stores.s3]", "[stores.offsite]")
        .replace("s3://bucket/backups", "s3://bucket/offsite");
    world.inventory(&format!(
        "{of_main}\n{second}\n{more}\n[databases.x]\nengine = \"command\"\nstore = \"s3\"\n\
         command = [\"sh\", \"-c\", \"echo 1 >> dumps; {dump}\"]\ncompression = \"none\"\n"
    ));
}

fn world(dump: &str) -> World {
    let world = World::new("");
    inventory(&world, dump, "", "");
    let run = world.quietly(&["backup"]);
    assert_eq!(run.code, Some(0), "{}", run.words());
    world
}

/// The objects of one of the two stores, with the keys below its prefix.
fn objects(world: &World, store: &str) -> Vec<(String, Vec<u8>)> {
    let all = world.server.store();
    let keys = super::world::backup_keys(&world.server).into_iter();
    let of_store = keys.filter_map(|key| {
        let below = key.strip_prefix(&format!("{store}/"))?.to_owned();
        Some((below, all.read(&key).unwrap()))
    });
    of_store.collect()
}

#[test]
fn a_copy_is_the_same_backup_in_another_store_without_the_database() {
    let world = World::new("");
    let public = world.age_recipient();
    let signing = world.run(&["keygen", "--signing", "-o", "sign.key"]).stdout;
    let more = format!("[signatures]\n{signing}[defaults]\nencrypt_to = [\"{public}\"]\n");
    // Volumes of two parts, which the second store needs not make.
    inventory(&world, "head -c 45000000 /dev/zero", &more, "max_parts = 2");
    let run = world.run(&["backup"]);
    assert_eq!(run.code, Some(0), "{}", run.words());
    let volumes = world.manifest("x").archive.volumes.len();
    assert!(volumes >= 3, "{volumes}");

    let copied = world.run(&["copy", "x", "--to", "offsite"]);
    assert_eq!(copied.code, Some(0), "{}", copied.words());
    let (main, offsite) = (objects(&world, "backups"), objects(&world, "offsite"));
    assert_eq!(main.len(), volumes + 2);
    assert!(main == offsite, "byte for byte, under the same keys");
    assert_eq!(world.server.store().open_uploads(), 0);
    // The last to come is the manifest, and before it the signature.
    let asked = world.server.log().all();
    let puts: Vec<&str> = asked
        .iter()
        .filter(|asked| asked.op == Op::Put)
        .map(|asked| asked.key.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(
        puts[puts.len() - 2..],
        ["manifest.json.minisig", "manifest.json"]
    );

    let again = world.run(&["copy", "x", "--to", "offsite"]);
    assert_eq!(again.code, Some(0));
    assert!(again.words().contains("already"), "{}", again.words());
    assert_eq!(std::fs::read_to_string(world.path("dumps")).unwrap(), "1\n");

    // One of two is enough, and which one it is need not be said.
    let identity = ["--identity", "age.key"];
    for store in [&[][..], &["--store", "offsite"]] {
        let args = [&["verify", "x"][..], &identity, store].concat();
        assert_eq!(world.run(&args).code, Some(0));
    }
    let listed = world.run(&["list"]);
    assert!(listed.stdout.contains("offsite"), "{}", listed.stdout);
    for (key, _) in main {
        let deleted = world
            .server
            .store()
            .delete(&format!("backups/{key}"))
            .now_or_never();
        deleted.unwrap().unwrap();
    }
    let back = world.run(&["restore", "x", "--output", "back", "--identity", "age.key"]);
    assert_eq!(back.code, Some(0), "{}", back.words());
    assert_eq!(
        std::fs::metadata(world.path("back")).unwrap().len(),
        45_000_000
    );
}

#[test]
fn what_is_damaged_or_not_signed_is_not_copied() {
    let world = world("seq 1000");
    let volume = world
        .keys("x")
        .into_iter()
        .find(|key| key.ends_with("/x.tar"))
        .unwrap();
    let whole = world.server.store().read(&volume).unwrap();
    let mut bytes = whole.clone();
    bytes[2000] ^= 1;
    world.server.store().overwrite(&volume, bytes.into());
    let refused = world.run(&["copy", "x", "--to", "offsite"]);
    assert_eq!(refused.code, Some(5), "{}", refused.words());
    assert!(
        refused.stderr.contains("the original: "),
        "{}",
        refused.stderr
    );
    assert_eq!(objects(&world, "offsite"), []);
    assert_eq!(world.server.store().open_uploads(), 0);

    world.server.store().overwrite(&volume, whole.into());
    let signing = world.run(&["keygen", "--signing", "-o", "sign.key"]).stdout;
    inventory(&world, "seq 9", &format!("[signatures]\n{signing}"), "");
    let refused = world.run(&["copy", "x", "--to", "offsite"]);
    assert_eq!(refused.code, Some(5), "{}", refused.words());
    assert_eq!(objects(&world, "offsite"), []);
}

/// One who can write to a store must not be able to keep the good backups out of the other.
#[test]
fn a_forged_backup_is_in_no_good_ones_way_and_is_told() {
    let world = World::new("");
    let signing = world.run(&["keygen", "--signing", "-o", "sign.key"]).stdout;
    let more = format!("keep_last = 1\n[signatures]\n{signing}");
    inventory(&world, "seq 1000", &more, "");
    let text = std::fs::read_to_string(world.path("tapline.toml")).unwrap();
    let both = text.replace("store = \"s3\"", "stores = [\"s3\", \"offsite\"]");
    assert_eq!(world.quietly(&["backup"]).code, Some(0));
    world.write("tapline.toml", both);
    let good = objects(&world, "backups");
    let store = world.server.store();
    let forged = tapline::catalog::BackupId::at("2030-01-01T00:00:00Z".parse().unwrap());
    let id = world.manifest("x").backup_id.to_string();
    // Newer than the good one, which one alone is kept.
    for (key, bytes) in &good {
        let key = key.replace(&id, forged.as_str());
        store.overwrite(&format!("backups/{key}"), bytes.clone().into());
    }
    let copied = world.run(&["copy", "--all", "--to", "offsite"]);
    assert_eq!(copied.code, Some(5), "{}", copied.words());
    assert!(
        copied.words().contains("somebody has moved it"),
        "{}",
        copied.words()
    );
    assert!(objects(&world, "offsite") == good, "{}", copied.words());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let world = world("seq 1000");
    for (args, code) in [
        (&["copy", "x", "--to", "nowhere"][..], 3),
        (&["copy", "y", "--to", "offsite"], 6),
        (&["copy", "x", "--to", "s3", "--store", "s3"], 2),
        (&["copy", "x"], 2),
        (&["copy", "x", "--to", "s3"], 6),
    ] {
        let run = world.run(args);
        assert_eq!(run.code, Some(code), "{args:?}: {}", run.words());
    }
}

#[test]
fn what_is_in_the_way_is_never_taken_away() {
    let world = world("seq 1000");
    let [(manifest, text), (volume, _)] = &objects(&world, "backups")[..] else {
        panic!("a volume and a manifest")
    };
    // A copy under way, or one that was killed.
    world
        .server
        .store()
        .overwrite(&format!("offsite/{volume}"), "half".into());
    let refused = world.run(&["copy", "x", "--to", "offsite"]);
    assert_eq!(refused.code, Some(1), "{}", refused.words());
    assert!(
        refused.stderr.contains("tapline cleanup --store offsite"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        objects(&world, "offsite"),
        [(volume.clone(), b"half".to_vec())]
    );
    world.server.store().age_by(Duration::from_hours(72));
    world.run(&["cleanup", "--store", "offsite", "--confirm"]);
    assert_eq!(world.run(&["copy", "x", "--to", "offsite"]).code, Some(0));
    // Another backup with this id.
    let other = String::from_utf8(text.clone())
        .unwrap()
        .replace("\"warnings\": 0", "\"warnings\": 1");
    assert!(other.as_bytes() != text);
    world
        .server
        .store()
        .overwrite(&format!("offsite/{manifest}"), other.into());
    let before = objects(&world, "offsite");
    let refused = world.run(&["copy", "x", "--to", "offsite"]);
    assert_eq!(refused.code, Some(1), "{}", refused.words());
    assert!(objects(&world, "offsite") == before);
}

#[test]
fn a_copy_is_whole_or_nothing_whatever_a_request_meets_and_the_original_stays() {
    const STEPS: [(&str, Op, Option<u32>); 7] = [
        ("get", Op::Get, None),
        ("create", Op::Create, None),
        ("part 1", Op::Part, Some(1)),
        ("part 3", Op::Part, Some(3)),
        ("complete", Op::Complete, None),
        ("lock", Op::Put, None),
        ("manifest", Op::Put, None),
    ];
    const FAULTS: [(&str, Fault); 4] = [
        ("denied", Fault::Denied),
        ("error", Fault::InternalError),
        ("reply lost", Fault::ReplyLost),
        ("cut in body", Fault::CutInBody),
    ];
    let mut cells = Vec::new();
    for (row, step) in STEPS.into_iter().enumerate() {
        for (column, fault) in FAULTS.into_iter().enumerate() {
            let both = [true, false].map(|once| (step, fault, once));
            // Once or for ever in turn, and both in a long run.
            let (at, turn) = (usize::from(!is_long_run()), (row + column) % 2);
            cells.extend(both.into_iter().skip(at * turn).step_by(1 + at));
        }
    }
    let count = cells.len();
    let (cells, wrong) = (Mutex::new(cells), Mutex::new(Vec::new()));
    let copied = Mutex::new(0);
    let dump = format!("cat {}", super::matrix::dump().display());
    let original = world(&dump);
    let cell = |step: (&str, Op, Option<u32>), fault: &Fault, once: bool| {
        let world = World::with("", |runtime| {
            let store = original.server.store().copy();
            runtime.block_on(S3Server::serving(store)).unwrap()
        });
        inventory(&world, &dump, "", "");
        let before = objects(&world, "backups");
        let mut rule = world.server.faults().on(step.1);
        rule = match step.0 {
            "get" => rule,
            "lock" => rule.key("copy-under-way"),
            "manifest" => rule.key("manifest.json"),
            _ => rule.key("offsite/"),
        };
        if let Some(part) = step.2 {
            rule = rule.part(part);
        }
        if once {
            rule = rule.nth(1);
        }
        rule.meets(*fault);
        // A second of patience instead of a quarter of an hour.
        let text = std::fs::read_to_string(world.path("tapline.toml")).unwrap();
        world.write("tapline.toml", format!("[run]\nretry_for = \"1s\"\n{text}"));
        let run = world.at_most(PATIENCE, &["copy", "x", "--to", "offsite", "--no-progress"]);
        world.server.faults().clear();
        assert!(objects(&world, "backups") == before, "the original stays");
        let (there, open) = (
            objects(&world, "offsite"),
            world.server.store().open_uploads(),
        );
        match run.code {
            Some(0) if there == before && open == 0 => {
                *copied.lock().unwrap() += 1;
                Ok(())
            }
            Some(1 | 4 | 5) if there.is_empty() && open == 0 => Ok(()),
            // The manifest's put was never answered: it may be there.
            Some(4) if !once && step.0 == "manifest" => {
                let told = run.words().contains("tapline verify");
                if told { Ok(()) } else { Err(run.words()) }
            }
            code => Err(format!(
                "exit {code:?}, {} there, {open} open: {}",
                there.len(),
                run.words()
            )),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some((step, fault, once)) = { cells.lock().unwrap().pop() } {
                    if let Err(why) = cell(step, &fault.1, once) {
                        let name = format!("{}, {}, once {once}", step.0, fault.0);
                        wrong.lock().unwrap().push(format!("{name}: {why}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let copied = copied.into_inner().unwrap();
    assert!(copied * 8 >= count * 3, "{copied} of {count} were copied");
}

#[test]
fn of_two_copies_at_once_one_is_made() {
    let world = world(&format!("cat {}", super::matrix::dump().display()));
    for _ in 0..5 {
        let runs = std::thread::scope(|scope| {
            let copy = || world.quietly(&["copy", "x", "--to", "offsite", "--no-progress"]);
            let both = [scope.spawn(copy), scope.spawn(copy)];
            both.map(|run| run.join().unwrap())
        });
        let good = runs.iter().filter(|run| run.code == Some(0)).count();
        let words = runs.each_ref().map(Run::words).join("\n");
        assert!(good > 0, "{words}");
        assert!(
            objects(&world, "backups") == objects(&world, "offsite"),
            "{words}"
        );
        assert_eq!(world.server.store().open_uploads(), 0);
        for (key, _) in objects(&world, "offsite") {
            let key = format!("offsite/{key}");
            let deleted = world.server.store().delete(&key).now_or_never();
            deleted.unwrap().unwrap();
        }
    }
}

#[test]
fn a_copy_that_is_ended_leaves_nothing_and_one_that_is_killed_is_no_backup() {
    for name in ["TERM", "KILL"] {
        let world = world(&format!("cat {}", super::matrix::dump().display()));
        world
            .server
            .faults()
            .on(Op::Part)
            .key("offsite/")
            .meets(Fault::Stalled);
        let mut copy = world.tapline(&["copy", "x", "--to", "offsite", "--no-progress"]);
        let mut running = copy
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until(|| world.server.store().open_uploads() > 0);
        std::thread::sleep(Duration::from_millis(300));
        signal(&running, name);
        let ended = running.wait().unwrap();
        assert!(!ended.success());
        world.server.faults().clear();
        let there = objects(&world, "offsite");
        let lock = |(key, _): &(String, Vec<u8>)| key.ends_with("/copy-under-way");
        assert!(
            there.iter().all(|object| name == "KILL" && lock(object)),
            "{name}"
        );
        if name == "TERM" {
            assert_eq!(world.server.store().open_uploads(), 0);
        } else {
            world.server.store().age_by(Duration::from_hours(72));
            let cleaned: Run = world.run(&["cleanup", "--confirm"]);
            assert_eq!(cleaned.code, Some(0));
            assert_eq!(world.server.store().open_uploads(), 0);
        }
        assert_eq!(world.run(&["copy", "x", "--to", "offsite"]).code, Some(0));
    }
}
