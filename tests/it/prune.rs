//! What `tapline prune` removes, in which order, and what it never touches.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use tapline::archive::Compression;
use tapline::catalog::{
    Archive, BackupId, Entry, Manifest, Mode, Retention, Volume, archive_key, manifest_key, plan,
};
use tapline::s3_server::{Fault, Op};
use tapline::store::memory::Effect;

use super::world::World;

const VOLUME: &str = "not much of an archive";

/// Three databases with policies of their own, and one without.
const INVENTORY: &str = "[defaults]\nengine = \"command\"\ncommand = [\"echo\", \"x\"]\n\
    [databases.shop]\nkeep_last = 5\nkeep_daily = 14\nkeep_monthly = 24\n\
    [databases.all]\nengine = \"postgres\"\ndatabase = \"*\"\nkeep_weekly = 30\nkeep_within = \"2mo\"\n\
    [databases.app]\nkeep_hourly = 48\nkeep_yearly = 3\n\
    [databases.free]\n";

pub fn id(text: &str) -> BackupId {
    format!("{text}-aaaaaa").parse().unwrap()
}

/// Puts a backup into the store as if it had been made, and tells the keys of its volume and its
/// manifest.
pub fn put_backup(world: &World, database: &str, id: &BackupId) -> [String; 2] {
    put_backup_as(world, database, id, |_| {})
}

/// The same of a backup of which the manifest says something else.
pub fn put_backup_as(
    world: &World,
    database: &str,
    id: &BackupId,
    change: impl FnOnce(&mut Manifest),
) -> [String; 2] {
    let volume = archive_key(database, id, "tar.gz");
    let name = volume.rsplit_once('/').unwrap().1.to_owned();
    let size = VOLUME.len() as u64;
    let mut manifest = Manifest {
        signed_by: None,
        format: Manifest::FORMAT,
        tapline: "0".into(),
        database: database.into(),
        backup_id: id.clone(),
        engine: "command".into(),
        source: None,
        properties: None,
        warnings: 0,
        dump_format: "dump".into(),
        tool: "echo".into(),
        mode: Mode::Streamed,
        started: id.time(),
        finished: id.time(),
        parallel: None,
        entries: vec![Entry {
            name: "x".into(),
            size: 2,
            sha256: "0".repeat(64),
        }],
        archive: Archive {
            container: "tar".into(),
            compression: Compression::Gzip,
            size,
            volumes: vec![Volume {
                name,
                size,
                parts: 1,
                crc64nvme: "AAAAAAAAAAA=".into(),
                crc32: None,
                digest: None,
            }],
            encryption: None,
        },
    };
    change(&mut manifest);
    let keys = [volume, manifest_key(database, id)].map(|key| format!("backups/{key}"));
    world.server.store().overwrite(&keys[0], VOLUME.into());
    world
        .server
        .store()
        .overwrite(&keys[1], manifest.to_json().into());
    keys
}

/// 1,200 backups: `shop` and `all/one` over five years, every few days, `app` every few hours of late.
fn many(world: &World) -> BTreeMap<&'static str, Vec<BackupId>> {
    let begin: Timestamp = "2021-11-03T02:30:00Z".parse().unwrap();
    let mut made: BTreeMap<&str, Vec<BackupId>> = BTreeMap::new();
    for (database, count, every) in [("shop", 400, 108), ("all/one", 300, 141), ("app", 500, 3)] {
        for n in 0..count {
            let id = BackupId::at(begin + SignedDuration::from_hours(n * every));
            put_backup(world, database, &id);
            made.entry(database).or_default().push(id);
        }
    }
    made
}

fn policy(rules: &[(&str, &str)]) -> Retention {
    let mut policy = Retention::default();
    for (rule, value) in rules {
        match *rule {
            "last" => policy.last = value.parse().ok(),
            "hourly" => policy.hourly = value.parse().ok(),
            "daily" => policy.daily = value.parse().ok(),
            "weekly" => policy.weekly = value.parse().ok(),
            "monthly" => policy.monthly = value.parse().ok(),
            "yearly" => policy.yearly = value.parse().ok(),
            _ => policy.within = value.parse().ok(),
        }
    }
    policy
}

#[test]
fn of_1200_backups_exactly_those_stay_that_the_rules_keep() {
    let world = World::new(INVENTORY);
    let made = many(&world);
    let stranger = put_backup(&world, "stranger", &id("20200101T000000Z"));
    let free = put_backup(&world, "free", &id("20200101T000000Z"));
    let half = format!(
        "backups/{}",
        archive_key("shop", &id("20200101T000000Z"), "tar.gz")
    );
    world
        .server
        .store()
        .overwrite(&half, "half a backup".into());
    let before = world.server.store().keys();
    assert_eq!(before.len(), 2400 + 5);
    let policies = [
        (
            "shop",
            policy(&[("last", "5"), ("daily", "14"), ("monthly", "24")]),
        ),
        ("all/one", policy(&[("weekly", "30"), ("within", "2mo")])),
        ("app", policy(&[("hourly", "48"), ("yearly", "3")])),
    ];
    let mut expected: BTreeSet<String> = stranger.into_iter().chain(free).chain([half]).collect();
    let mut gone = 0;
    for (database, policy) in &policies {
        let begun: Vec<_> = made[database].iter().map(BackupId::time).collect();
        let kept_by = plan(policy, &begun, jiff::Timestamp::now());
        for (id, kept_by) in made[database].iter().zip(kept_by) {
            if kept_by.is_empty() {
                gone += 1;
            } else {
                let (volume, manifest) = (
                    archive_key(database, id, "tar.gz"),
                    manifest_key(database, id),
                );
                expected.extend([volume, manifest].map(|key| format!("backups/{key}")));
            }
        }
    }
    assert!((1000..1200).contains(&gone), "{gone}");

    let dry = world.run(&["prune", "app"]);
    assert_eq!(dry.code, Some(0));
    assert!(
        dry.stdout.contains("of 500 backups would go")
            && dry.stdout.contains("dry run: nothing was removed")
    );
    assert!(
        dry.stdout
            .lines()
            .filter(|line| line.ends_with(" remove"))
            .count()
            > 400
    );
    assert_eq!(world.server.store().keys(), before);

    let effects = world.server.store().effects().len();
    let run = world.run(&["prune", "--confirm"]);
    assert_eq!(run.code, Some(0));
    for words in [
        &format!("{gone} of 1200 backups removed"),
        "not in the inventory, left alone: stranger",
        "without a keep_… rule, left alone: free",
        "newest, last, daily, monthly",
        "newest, weekly, within",
    ] {
        assert!(run.stdout.contains(words), "{words:?} is missing");
    }
    assert_eq!(
        run.stdout
            .lines()
            .filter(|line| line.ends_with(" remove"))
            .count(),
        gone
    );
    let after: BTreeSet<String> = world.server.store().keys().into_iter().collect();
    assert_eq!(after, expected);
    let mut without_manifest = BTreeSet::new();
    for effect in &world.server.store().effects()[effects..] {
        let Effect::Deleted(key) = effect else {
            panic!("{effect:?} is not for prune to do")
        };
        let (folder, file) = key.rsplit_once('/').unwrap();
        if file == "manifest.json" {
            without_manifest.insert(folder);
        } else {
            assert!(
                without_manifest.contains(folder),
                "{key} was deleted before its manifest"
            );
        }
    }

    let again = world.run(&["prune", "--confirm"]);
    assert!(again.stdout.contains("0 of"));
    assert_eq!(world.server.store().keys().len(), expected.len());
}

/// A host whose clock was a day ahead made a backup, and after that others with a right one.
#[test]
fn a_backup_of_a_clock_that_was_ahead_is_not_the_latest_and_pushes_no_real_one_out() {
    let world = World::new(
        "[databases.x]\nengine = \"command\"\ncommand = [\"echo\", \"x\"]\nexpect_every = \"1h\"\n",
    );
    let now = Timestamp::now();
    put_backup(
        &world,
        "x",
        &BackupId::at(now - SignedDuration::from_hours(2)),
    );
    let ahead = BackupId::at(now + SignedDuration::from_hours(24));
    put_backup(&world, "x", &ahead);
    // As long as it is the newest it is the latest, and its age is told by the store's clock.
    let shown = || world.run(&["show", "x", "--json"]).stdout;
    assert!(shown().contains(ahead.as_str()));
    let status = world.run(&["status"]);
    assert_eq!(status.code, Some(0));
    let said = format!("the clock of the host that made {ahead} is ahead");
    assert!(status.words().contains(&said));

    let real = BackupId::at(now + SignedDuration::from_secs(5));
    put_backup(&world, "x", &real);
    assert!(shown().contains(real.as_str()));
    let latest = world.run(&["verify", "--quick"]);
    assert!(latest.words().contains(real.as_str()));
    assert!(
        world
            .run(&["show", "x"])
            .stderr
            .contains("is not the latest")
    );
    let prune = world.run(&["prune", "x", "--keep-last", "1", "--confirm"]);
    assert_eq!(prune.code, Some(0));
    let left = world.keys("x");
    assert!(
        left.len() == 2 && left[0].contains(real.as_str()),
        "{left:?}"
    );
}

/// Where the store tells no times this host's clock is all there is: of two that differ nobody knows
/// which is wrong, and nothing goes for the sake of what is from the future.
#[test]
fn what_is_from_the_future_takes_no_other_backups_place() {
    let world = World::new(
        "[databases.x]\nengine = \"command\"\ncommand = [\"echo\", \"x\"]\nkeep_last = 1\n",
    );
    let folder = world.path("disk");
    std::fs::create_dir(&folder).unwrap();
    world.write(
        "tapline.toml",
        format!(
            "[stores.disk]\nurl = \"file://{}\"\n[databases.x]\nengine = \"command\"\n\
             command = [\"echo\", \"x\"]\nkeep_last = 1\n",
            folder.display()
        ),
    );
    for _ in 0..2 {
        assert_eq!(world.run(&["backup"]).code, Some(0));
    }
    // The disk's host had the same wrong clock.
    let future = BackupId::at(Timestamp::now() + SignedDuration::from_hours(24));
    let mut backups: Vec<_> = std::fs::read_dir(folder.join("x"))
        .unwrap()
        .flatten()
        .collect();
    backups.sort_by_key(std::fs::DirEntry::path);
    let old = backups[0].file_name().into_string().unwrap();
    let moved = folder.join("x").join(future.as_str());
    std::fs::rename(backups[0].path(), &moved).unwrap();
    let manifest = std::fs::read_to_string(moved.join("manifest.json")).unwrap();
    std::fs::write(
        moved.join("manifest.json"),
        manifest.replace(&old, future.as_str()),
    )
    .unwrap();
    for name in ["manifest.json", "x.tar.gz"] {
        let file = std::fs::File::options()
            .append(true)
            .open(moved.join(name))
            .unwrap();
        let tomorrow = std::time::SystemTime::now() + std::time::Duration::from_hours(24);
        file.set_modified(tomorrow).unwrap();
    }
    let prune = world.run(&["prune", "--confirm"]);
    assert!(prune.stdout.contains("a clock that is ahead"));
    assert_eq!(std::fs::read_dir(folder.join("x")).unwrap().count(), 2);
}

#[test]
fn a_broken_backup_counts_for_no_rule_and_is_kept_and_named() {
    let world =
        World::new("[databases.shop]\nengine = \"command\"\ncommand = [\"x\"]\nkeep_last = 1\n");
    let store = world.server.store();
    let ids = [
        "20260101T000000Z",
        "20260102T000000Z",
        "20260103T000000Z",
        "20260104T000000Z",
        "20260105T000000Z",
    ];
    let [old, good, short, missing, unreadable] =
        ids.map(|time| put_backup(&world, "shop", &id(time)));
    store.overwrite(&short[0], "short".into());
    world
        .block_on(tapline::store::Store::delete(store, &missing[0]))
        .unwrap();
    store.overwrite(&unreadable[1], "{".into());
    let run = world.run(&["prune", "--confirm"]);
    assert_eq!(run.code, Some(0));
    for words in [
        "broken: shop.tar.gz has 5 bytes and not 22; look at it with `tapline verify`, delete it by hand",
        "broken: shop.tar.gz is missing",
        "the manifest is damaged",
        "newest, last",
        "1 of 5 backups removed",
    ] {
        assert!(run.stdout.contains(words), "{words:?} is missing");
    }
    let left: Vec<String> = store.keys();
    let mut expected = [good, short, unreadable].concat();
    expected.push(missing[1].clone());
    expected.sort();
    assert_eq!(left, expected);
    assert!(old.iter().all(|key| !left.contains(key)));
}

#[test]
fn a_manifest_that_cannot_be_fetched_stops_the_prune_before_anything_is_removed() {
    let world = World::new(
        "[run]\nretry_for = \"1s\"\n[databases.shop]\nengine = \"command\"\ncommand = [\"x\"]\nkeep_last = 1\n",
    );
    for day in 1..=5 {
        put_backup(&world, "shop", &id(&format!("2026010{day}T000000Z")));
    }
    world.server.faults().on(Op::Get).meets(Fault::Denied);
    let run = world.run(&["prune", "--confirm"]);
    assert_eq!(run.code, Some(4));
    assert!(run.stderr.contains("reading the manifest of shop@2026010"));
    assert_eq!(world.server.store().keys().len(), 10);
}

#[test]
fn options_stand_for_the_whole_policy_and_reach_what_the_inventory_does_not_have() {
    let world = World::new(INVENTORY);
    for database in ["old", "all/one", "shop", "app"] {
        for day in 1..=4 {
            put_backup(&world, database, &id(&format!("2026010{day}T000000Z")));
        }
    }
    assert_eq!(world.run(&["prune", "old"]).code, Some(3));
    assert_eq!(
        world.run(&["prune", "nope", "--keep-last", "1"]).code,
        Some(6)
    );
    assert_eq!(
        world.run(&["prune", "shop", "--keep-last", "0"]).code,
        Some(2)
    );
    assert_eq!(
        world.run(&["prune", "shop", "--keep-within", "6m"]).code,
        Some(2)
    );
    assert_eq!(
        world
            .run(&["prune", "old", "--keep-last", "1", "--confirm"])
            .code,
        Some(0)
    );
    assert_eq!(
        world
            .run(&["prune", "all", "app", "--keep-within", "1d", "--confirm"])
            .code,
        Some(0)
    );
    let count = |database| world.keys(database).len() / 2;
    assert_eq!(
        [count("old"), count("all/one"), count("app"), count("shop")],
        [1, 2, 2, 4]
    );
    assert_eq!(
        world.run(&["prune", "--keep-last", "1", "--confirm"]).code,
        Some(0)
    );
    assert_eq!(
        [count("old"), count("all/one"), count("app"), count("shop")],
        [1, 1, 1, 1]
    );
}

#[test]
fn show_tells_what_a_backup_is_and_its_manifest_as_stored() {
    let world = World::new(INVENTORY);
    put_backup(&world, "app", &id("20260101T000000Z"));
    let [_, manifest] = put_backup(&world, "app", &id("20260102T000000Z"));
    let json = world.run(&["show", "app", "--json"]);
    assert_eq!(
        json.stdout.as_bytes(),
        world.server.store().read(&manifest).unwrap()
    );
    let people = world.run(&["show", "app@20260101T000000Z-aaaaaa"]);
    assert_eq!(people.code, Some(0));
    for words in [
        "backup      app@20260101T000000Z-aaaaaa\n",
        "store       s3://bucket/backups/app/20260101T000000Z-aaaaaa/\n",
        "begun       2026-01-01 00:00:00 UTC",
        "app.tar.gz - | tar xzO > x\n",
        "--endpoint-url http://127.0.0.1:",
    ] {
        assert!(people.stdout.contains(words), "{words:?} is missing");
    }
    let missing = world.run(&["show", "shop"]);
    assert_eq!(missing.code, Some(6));
    assert!(missing.stderr.contains("there are backups of: app"));
    assert_eq!(
        world.run(&["show", "app", "--store", "other"]).code,
        Some(3)
    );
    assert_eq!(world.run(&["show", "app@yesterday"]).code, Some(6));
    assert_eq!(world.run(&["show", "app@2026"]).code, Some(2));
}

#[test]
fn a_database_is_pruned_after_its_own_success_only() {
    let world = World::new(
        "[run]\nprune_after_backup = true\n[defaults]\nengine = \"command\"\nkeep_last = 2\n\
         [databases.good]\ncommand = [\"echo\", \"x\"]\n[databases.bad]\ncommand = [\"false\"]\n",
    );
    let fill = || {
        for day in 1..=4 {
            put_backup(&world, "good", &id(&format!("2026010{day}T000000Z")));
            put_backup(&world, "bad", &id(&format!("2026010{day}T000000Z")));
        }
    };
    fill();
    let plan = world.run(&["backup", "--dry-run"]);
    assert!(plan.stdout.contains("then     prune, keeping last 2"));
    let run = world.run(&["backup", "--report", "report.json"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stdout
            .contains("1 of 2 stored, 1 failed, 3 earlier backups pruned")
    );
    assert_eq!(
        (world.keys("good").len(), world.keys("bad").len()),
        (2 * 2, 4 * 2)
    );
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(world.path("report.json")).unwrap()).unwrap();
    assert_eq!(
        (
            report["jobs"][0]["pruned"].as_u64(),
            report["jobs"][1]["pruned"].as_u64()
        ),
        (Some(3), Some(0))
    );

    fill();
    world
        .server
        .faults()
        .on(Op::Delete)
        .key("manifest.json")
        .nth(1)
        .meets(Fault::Denied);
    let run = world.run(&["backup", "good"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stdout.contains("1 of 1 stored")
            && run
                .stdout
                .contains("stored, but pruning failed: good@20260")
    );
}

#[test]
fn pruning_after_a_backup_is_as_patient_with_the_store_as_the_backup_was() {
    let world = World::new(
        "[run]\nprune_after_backup = true\n[databases.x]\nengine = \"command\"\n\
         command = [\"echo\", \"x\"]\nkeep_last = 1\n",
    );
    put_backup(&world, "x", &id("20260101T000000Z"));
    let faults = world.server.faults();
    let old = faults.on(Op::Delete).key("20260101T");
    old.times(2).meets(Fault::SlowDown);
    let run = world.run(&["backup"]);
    assert_eq!(run.code, Some(0));
    assert!(run.stdout.contains("1 earlier backup pruned"));
    assert_eq!(world.keys("x").len(), 2);
}
