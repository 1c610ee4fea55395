//! How the databases stand, from what is in the store alone.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tapline::catalog::{BackupId, archive_key};
use tapline::s3_server::{Fault, Op};
use tapline::store::Store;

use super::prune::{put_backup, put_backup_as};
use super::world::{Run, World, backup_keys};

const INVENTORY: &str = "[defaults]\nengine = \"command\"\ncommand = [\"seq\", \"9\"]\n\
    [databases.shop]\n[databases.events]\n[databases.new]\n";

/// The id of a backup that began so many hours ago.
fn ago(hours: i64) -> BackupId {
    BackupId::at(Timestamp::now() - SignedDuration::from_hours(hours))
}

fn put_sized(world: &World, database: &str, id: &BackupId, size: u64) {
    put_backup_as(world, database, id, |manifest| {
        manifest.entries[0].size = size;
    });
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap()
}

/// How a database stands, as `status --json` says it.
fn standing(world: &World, database: &str) -> Value {
    let report = json(&world.run(&["status", "--json"]));
    let databases = report["databases"].as_array().unwrap().clone();
    let found = databases
        .into_iter()
        .find(|one| one["database"] == database);
    found.unwrap_or_else(|| panic!("{database} is not in {report}"))
}

#[test]
fn each_database_whose_last_good_backup_is_too_old_or_is_not_there_is_named() {
    let world = World::new(INVENTORY);
    put_backup(&world, "shop", &ago(50));
    put_backup(&world, "shop", &ago(25));
    put_backup(&world, "events", &ago(27));
    let run = world.run(&["status", "--max-age", "26h"]);
    assert_eq!(run.code, Some(5));
    let failed: Vec<&str> = run
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("FAIL  "))
        .collect();
    assert!(
        failed.len() == 2
            && failed[0].starts_with("events  its last good backup, ")
            && failed[0].contains("is 27 h 0 min old, and at most 26 h 0 min are expected")
            && failed[1] == "new  has no backup in store s3",
        "{failed:?}"
    );
    // Without a limit, age is nothing wrong; only what has no backup at all is.
    assert_eq!(world.run(&["status", "shop", "events"]).code, Some(0));
    assert_eq!(world.run(&["status"]).code, Some(5));
    let run = world.run(&["status", "shop", "--max-age", "26h", "-q"]);
    assert_eq!((run.code, run.words()), (Some(0), String::new()));
    let run = world.run(&["status", "nowhere"]);
    assert_eq!(run.code, Some(3));
}

#[test]
fn what_the_inventory_expects_has_slack_and_the_option_has_none() {
    let world = World::new(&INVENTORY.replace(
        "[databases.shop]",
        "expect_every = \"24h\"\n[databases.shop]\nexpect_every = \"1h\"",
    ));
    for database in ["shop", "events", "new"] {
        put_backup(&world, database, &ago(25));
    }
    // An hour's backup took an hour and a half.
    let id = BackupId::at(Timestamp::now() - SignedDuration::from_mins(150));
    put_backup_as(&world, "shop", &id, |manifest| {
        manifest.finished = manifest.started + SignedDuration::from_mins(90);
    });
    assert_eq!(world.run(&["status"]).code, Some(0));
    assert_eq!(standing(&world, "new")["max_age_seconds"], 26 * 3600);
    assert_eq!(standing(&world, "shop")["max_age_seconds"], (65 + 90) * 60);
    let run = world.run(&["status", "--max-age", "24h"]);
    assert_eq!(run.code, Some(5));
    assert!(!run.stdout.contains("FAIL  shop") && run.stdout.contains("FAIL  events"));
}

#[test]
fn a_clock_that_is_ahead_and_a_copied_bucket_make_no_backup_younger() {
    let world = World::new(INVENTORY);
    put_backup(&world, "shop", &ago(-240));
    world.server.store().age_by(Duration::from_hours(30));
    put_backup(&world, "events", &ago(100));
    let age = |database| {
        let age = standing(&world, database)["last"]["age_seconds"].as_u64();
        age.unwrap() / 3600
    };
    assert_eq!((age("shop"), age("events")), (30, 100));
}

#[test]
fn a_dump_that_shrank_by_half_and_the_last_backups_warnings_are_told() {
    let world = World::new(INVENTORY);
    put_sized(&world, "shop", &ago(30), 4 << 20);
    put_sized(&world, "shop", &ago(3), 2 << 20);
    put_sized(&world, "events", &ago(30), 4 << 20);
    put_sized(&world, "events", &ago(3), 3 << 20);
    put_backup_as(&world, "new", &ago(3), |manifest| manifest.warnings = 2);
    let run = world.run(&["status"]);
    assert_eq!(run.code, Some(0));
    let shrank = "warn  shop  its dump shrank from 4.0 MiB to 2.0 MiB\n";
    assert!(run.stdout.contains(shrank));
    assert!(
        run.stdout
            .contains("warn  new  its last backup had 2 warnings")
    );
    assert!(!run.stdout.contains("warn  events"));
}

#[test]
fn however_many_backups_there_are_two_manifests_of_each_database_are_read() {
    let world = World::new(INVENTORY);
    for database in ["shop", "events", "new"] {
        for day in 0..700 {
            put_backup(&world, database, &ago(24 * day));
        }
    }
    assert_eq!(world.run(&["status", "--max-age", "1h"]).code, Some(0));
    let asked = world.server.log().all();
    let count = |op| asked.iter().filter(|asked| asked.op == op).count();
    // 1,400 keys of each are two pages of a listing; records have one of their own.
    assert_eq!((count(Op::Get), count(Op::List)), (6, 7));
    assert_eq!((count(Op::Head), count(Op::ListUploads)), (0, 1));
}

#[test]
fn a_damaged_newest_backup_is_told_with_the_last_good_one() {
    let world = World::new(INVENTORY);
    let good = ago(30);
    put_backup(&world, "shop", &good);
    for hours in [20, 10, 5] {
        let [volume, _] = put_backup(&world, "shop", &ago(hours));
        let cut = "half".into();
        world.server.store().overwrite(&volume, cut);
    }
    let [_, manifest] = put_backup(&world, "events", &ago(1));
    world.server.store().overwrite(&manifest, "{}".into());
    let run = world.run(&["status", "shop", "events", "--max-age", "26h"]);
    assert_eq!(run.code, Some(5));
    let shop = standing(&world, "shop");
    assert_eq!(
        (&shop["health"], &shop["last"]["backup_id"]),
        (&"damaged".into(), &good.as_str().into())
    );
    let why = shop["why"].as_str().unwrap();
    assert!(why.contains("has 4 bytes and not 22") && why.contains("is 30 h 0 min old"));
    let events = standing(&world, "events");
    assert_eq!(events["health"], "damaged");
    assert!(events["last"].is_null());
}

#[test]
fn a_backup_on_its_way_is_seen_and_one_that_was_killed_is_told_from_it() {
    let world = World::new(INVENTORY);
    put_backup(&world, "shop", &ago(20));
    let begin = |database: &str, id: &BackupId| {
        let key = format!("backups/{}", archive_key(database, id, "tar.gz"));
        let store = world.server.store();
        world.block_on(store.create_upload(&key, "id")).unwrap();
    };
    begin("events", &ago(2));
    world.server.store().age_by(Duration::from_hours(2));
    begin("shop", &ago(0));
    let shop = standing(&world, "shop");
    assert_eq!(
        (&shop["open"]["alive"], &shop["health"]),
        (&true.into(), &"good".into())
    );
    let events = standing(&world, "events");
    assert_eq!(events["open"]["alive"], false);
    assert!(
        events["warnings"][0]
            .as_str()
            .unwrap()
            .contains("`tapline cleanup`")
    );
    let run = world.run(&["status"]);
    assert!(run.stdout.contains("good, running") && run.stdout.contains("warn  events  "));
    // An upload beside a manifest is no backup on its way.
    let done = ago(1);
    put_backup(&world, "new", &done);
    begin("new", &done);
    assert!(standing(&world, "new")["open"].is_null());
}

#[test]
fn a_whole_server_is_every_database_that_has_backups_under_it_and_is_not_excluded() {
    let world = World::new(
        "[databases.all]\nengine = \"postgres\"\ndatabase = \"*\"\nexclude = [\"old*\"]\n",
    );
    let run = world.run(&["status"]);
    assert_eq!(run.code, Some(5));
    assert!(run.stdout.contains("FAIL  all  has no backup"));
    for database in ["all/a", "all/b", "all/old_shop", "allx"] {
        put_backup(&world, database, &ago(1));
    }
    let report = json(&world.run(&["status", "--json"]));
    let databases = report["databases"].as_array().unwrap();
    let names: Vec<&Value> = databases.iter().map(|one| &one["database"]).collect();
    assert_eq!(names, ["all/a", "all/b"]);
    assert_eq!(world.run(&["status", "all/a"]).code, Some(0));
    let run = world.run(&["status", "all/gone"]);
    assert!(run.code == Some(5) && run.stdout.contains("FAIL  all/gone  has no backup"));
}

#[test]
fn what_a_store_does_not_tell_is_not_known_and_hides_nothing_else() {
    // What was allowed once is tried again when it is denied.
    let world = World::new(&format!("[run]\nretry_for = \"1s\"\n{INVENTORY}"));
    for database in ["shop", "new"] {
        put_backup(&world, database, &ago(1));
    }
    let faults = world.server.faults();
    faults.on(Op::Get).key("shop").meets(Fault::Denied);
    faults.on(Op::ListUploads).meets(Fault::Denied);
    let run = world.run(&["status", "shop", "new"]);
    assert_eq!(run.code, Some(4));
    assert!(
        run.stdout
            .contains("FAIL  shop  how it stands is not known: store s3: ")
    );
    assert!(
        run.stdout
            .contains("warn  store s3: whether backups are on their way is not known")
    );
    // What is known to be wrong comes first.
    assert_eq!(world.run(&["status"]).code, Some(5));
}

#[test]
fn metrics_are_whole_readable_by_their_collector_and_leave_no_other_file() {
    let odd = "a\\b\"c";
    let world = World::new(&format!("{INVENTORY}[databases.'{odd}']\n"));
    std::fs::create_dir(world.path("metrics")).unwrap();
    put_sized(&world, "shop", &ago(25), 900);
    put_sized(&world, "shop", &ago(1), 1000);
    put_backup(&world, odd, &ago(30));
    let write = || {
        let args = [
            "status",
            "--max-age",
            "26h",
            "--prometheus",
            "metrics/t.prom",
        ];
        assert_eq!(world.run(&args).code, Some(5));
        std::fs::read_to_string(world.path("metrics/t.prom")).unwrap()
    };
    let text = write();
    let of = |name: &str, database: &str| {
        let line = format!("tapline_{name}{{database=\"{database}\",store=\"s3\"}} ");
        text.lines()
            .find_map(|found| found.strip_prefix(&line)?.parse::<f64>().ok())
    };
    let escaped = "a\\\\b\\\"c";
    assert_eq!(of("database_good", "shop"), Some(1.0));
    assert_eq!(of("database_good", "new"), Some(0.0));
    assert_eq!(of("database_good", escaped), Some(0.0));
    assert_eq!(of("last_backup_dump_bytes", "shop"), Some(1000.0));
    assert_eq!(of("previous_backup_dump_bytes", "shop"), Some(900.0));
    assert_eq!(of("last_backup_dump_bytes", "new"), None);
    assert_eq!(of("backup_max_age_seconds", "new"), Some(93600.0));
    let began = of("last_backup_timestamp_seconds", "shop").unwrap();
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let age = Timestamp::now().as_second() as f64 - began;
    assert!((3600.0..3660.0).contains(&age), "{age}");
    // A name, its help and its type stand once, before its samples.
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut names: Vec<&str> = names.collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    // Again over the old one: the same file by name, another on disk, and nothing beside it.
    write();
    let files = std::fs::read_dir(world.path("metrics")).unwrap();
    assert_eq!(files.count(), 1);
    let mode = std::fs::metadata(world.path("metrics/t.prom")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o444, 0o444);
    let args = ["status", "shop", "--prometheus", "nowhere/t.prom"];
    let run = world.run(&args);
    assert!(run.code == Some(7) && run.stderr.contains("cannot write nowhere/t.prom"));
}

const FRAGILE: &str = "[databases.shop]\nengine = \"command\"\n\
    command = [\"sh\", \"-c\", \"test ! -e broken && seq 9\"]\n";

#[test]
fn a_failure_is_kept_in_the_store_and_told_until_a_backup_is_good_again() {
    let world = World::new(FRAGILE);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert!(standing(&world, "shop")["last_failure"].is_null());
    world.write("broken", "");
    assert_eq!(world.run(&["backup"]).code, Some(1));
    let shop = standing(&world, "shop");
    let failure = &shop["last_failure"];
    assert_eq!(
        (&failure["reason"], &failure["good"]),
        (&"dump".into(), &false.into())
    );
    assert!(
        failure["message"]
            .as_str()
            .unwrap()
            .contains("exited with status 1")
    );
    assert!(
        shop["warnings"][0]
            .as_str()
            .unwrap()
            .contains("its last run failed")
    );
    // It is one object however often it fails, and nothing else takes it for a backup's.
    assert_eq!(world.run(&["backup"]).code, Some(1));
    assert_eq!(backup_keys(&world.server).len(), 2);
    assert_eq!(world.server.store().keys().len(), 3);
    assert_eq!(
        json(&world.run(&["list", "--json"]))["backups"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    world.server.store().age_by(Duration::from_hours(72));
    let cleanup = json(&world.run(&["cleanup", "--confirm", "--json"]));
    assert!(!cleanup.to_string().contains("~tapline"), "{cleanup}");
    assert_eq!(world.server.store().keys().len(), 3);
    std::fs::remove_file(world.path("broken")).unwrap();
    // Ids and records are to the second.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let shop = standing(&world, "shop");
    assert_eq!(shop["warnings"], Value::Array(Vec::new()));
    assert!(!shop["last_failure"].is_null());
}

#[test]
fn what_reading_back_found_is_told_until_that_backup_is_found_good() {
    let world = World::new(FRAGILE);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert_eq!(world.run(&["verify", "--quick"]).code, Some(0));
    assert!(
        standing(&world, "shop")["last_verify"].is_null(),
        "only the store was asked"
    );
    let volume = world
        .keys("shop")
        .into_iter()
        .find(|key| key.ends_with("/shop.tar.gz"))
        .unwrap();
    let good = world.server.store().read(&volume).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    world.server.store().overwrite(&volume, bad.into());
    assert_eq!(world.run(&["verify"]).code, Some(5));
    let run = world.run(&["status"]);
    assert_eq!(run.code, Some(5));
    assert!(run.stdout.contains("FAIL  shop  ") && run.stdout.contains(" was read back "));
    world.server.store().overwrite(&volume, good.into());
    assert_eq!(world.run(&["verify"]).code, Some(0));
    let run = world.run(&["status"]);
    assert!(run.code == Some(0) && run.stdout.contains("READ BACK"));
    let shop = standing(&world, "shop");
    assert_eq!(
        (&shop["health"], &shop["last_verify"]["good"]),
        (&"good".into(), &true.into())
    );
    assert!(shop["last_drill"].is_null());
}

#[test]
fn what_the_store_does_not_keep_fails_nothing() {
    let world = World::new(&format!("[run]\nretry_for = \"1s\"\n{FRAGILE}"));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    world
        .server
        .faults()
        .on(Op::Put)
        .key("records")
        .meets(Fault::Denied);
    let run = world.run(&["verify"]);
    assert!(run.code == Some(0) && run.stderr.contains("does not keep the last verify"));
    world.write("broken", "");
    let run = world.run(&["backup"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stdout.contains("exited with status 1"));
    assert!(run.stderr.contains("does not keep the last failure"));
}
