//! What `tapline cleanup` takes away, and that a running backup is never part of it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use tapline::catalog::{BackupId, archive_key, check_key, manifest_key};
use tapline::s3_server::{Fault, Op};
use tapline::store::memory::Effect;
use tapline::store::{PartBody, Store, Upload};

use super::prune::{id, put_backup};
use super::world::{World, peak_rss};

const DAY: Duration = Duration::from_hours(24);
const INVENTORY: &str =
    "[databases.x]\nengine = \"command\"\ncommand = [\"echo\", \"x\"]\nkeep_last = 1\n";

/// An upload with one part, as a killed backup leaves it.
fn begin_upload(world: &World, key: &str) -> Upload {
    world.block_on(async {
        let upload = world
            .server
            .store()
            .create_upload(&format!("backups/{key}"), "id")
            .await
            .unwrap();
        put_part(world, &upload, 1).await;
        upload
    })
}

async fn put_part(world: &World, upload: &Upload, number: u32) {
    let body = PartBody::from(bytes::Bytes::from_static(b"a part"));
    world
        .server
        .store()
        .put_part(upload, number, body, None)
        .await
        .unwrap();
}

/// Volumes and uploads, `count` of each, of backups that never were.
fn orphans(world: &World, count: i64) {
    for n in 0..count {
        let begun = id("20260101T000000Z").time() + SignedDuration::from_secs(n * 60);
        let (volume, upload) = (BackupId::at(begun), BackupId::at(begun));
        let key = format!("backups/{}", archive_key("shop", &volume, "tar.gz"));
        world.server.store().overwrite(&key, "a volume".into());
        begin_upload(world, &archive_key("shop", &upload, "tar.gz"));
    }
}

#[test]
fn of_2020_orphans_none_stays_and_a_running_backup_is_left_alone() {
    let world = World::new(
        "[databases.x]\nengine = \"command\"\n\
         command = [\"sh\", \"-c\", \"head -c 40000000 /dev/urandom; touch running; while [ -e running ]; do sleep 0.05; done\"]\n",
    );
    orphans(&world, 1010);
    let good = put_backup(&world, "shop", &id("20250101T000000Z"));
    let beside = begin_upload(
        &world,
        &archive_key("shop", &id("20250101T000000Z"), "tar.gz.v002"),
    );
    let check = check_key(&id("20250101T000000Z"));
    world
        .server
        .store()
        .overwrite(&format!("backups/{check}"), "tapline check".into());
    begin_upload(&world, &check);
    world
        .server
        .store()
        .overwrite("backups/notes.txt", "not ours".into());
    world.server.store().overwrite(
        "elsewhere/shop/20250101T000000Z-aaaaaa/shop.tar.gz",
        "not below the prefix".into(),
    );
    world.server.store().age_by(DAY + Duration::from_mins(1));
    let running = world
        .tapline(&["backup"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !world.path("running").exists() || world.server.store().open_uploads() != 1010 + 3 {
        assert!(
            start.elapsed() < Duration::from_mins(1),
            "the backup does not begin"
        );
        std::thread::sleep(Duration::from_millis(20));
    }

    let before = world.server.store().keys();
    let dry = world.run(&["cleanup"]);
    assert_eq!(dry.code, Some(0));
    for words in [
        "1012 open uploads and 1011 objects",
        "dry run: nothing was removed; add --confirm",
        "left alone in s3://bucket/backups: 1 young one, which may be of a running backup; 1 key not tapline's",
        "24 h 1 min",
    ] {
        assert!(dry.stdout.contains(words), "{words:?} is missing");
    }
    assert!(dry.stdout.contains(&beside.key["backups/".len()..]) && dry.stdout.contains(&check));
    assert_eq!(
        (
            world.server.store().keys(),
            world.server.store().open_uploads()
        ),
        (before, 1013)
    );

    let run = world.run(&["cleanup", "--confirm"]);
    assert_eq!(run.code, Some(0));
    assert!(
        run.stdout.contains("1012 open uploads and 1011 objects") && run.stdout.contains("removed")
    );
    let mut left = good.to_vec();
    left.extend(
        [
            "backups/notes.txt",
            "elsewhere/shop/20250101T000000Z-aaaaaa/shop.tar.gz",
        ]
        .map(String::from),
    );
    left.sort();
    assert_eq!(
        (
            super::world::backup_keys(&world.server),
            world.server.store().open_uploads()
        ),
        (left, 1)
    );

    std::fs::remove_file(world.path("running")).unwrap();
    assert!(running.wait_with_output().unwrap().status.success());
    assert_eq!(super::world::untar(&world.download("x")).len(), 40_000_000);
    assert_eq!(world.server.store().open_uploads(), 0);
}

#[test]
fn the_newest_part_is_the_sign_of_life_of_all_that_belongs_to_a_backup() {
    let world = World::new(INVENTORY);
    let first = archive_key("x", &id("20260101T000000Z"), "tar.gz");
    let second = begin_upload(&world, &format!("{first}.v002"));
    world
        .server
        .store()
        .overwrite(&format!("backups/{first}"), "the first volume".into());
    begin_upload(&world, &format!("{first}.v003"));
    world.server.store().age_by(3 * DAY);
    world.block_on(put_part(&world, &second, 2));
    let run = world.run(&["cleanup", "--confirm"]);
    assert!(
        run.stdout.contains("3 young ones") && run.stdout.contains("0 open uploads and 0 objects")
    );
    assert_eq!(
        (
            world.server.store().keys().len(),
            world.server.store().open_uploads()
        ),
        (1, 2)
    );

    world.server.store().age_by(Duration::from_mins(90));
    assert!(
        world
            .run(&["cleanup", "--confirm"])
            .stdout
            .contains("0 open uploads and 0 objects")
    );
    let run = world.run(&["cleanup", "--confirm", "--older-than", "1h"]);
    assert!(run.stdout.contains("2 open uploads and 1 object,"));
    world.assert_store_is_clean();
    assert_eq!(world.run(&["cleanup", "--older-than", "59m"]).code, Some(2));
}

#[test]
fn a_prune_that_is_cut_short_leaves_no_half_backup_and_cleanup_takes_the_rest() {
    let world = World::new(&format!("[run]\nretry_for = \"1s\"\n{INVENTORY}"));
    let store = world.server.store();
    let old = id("20260101T000000Z");
    let [volume, manifest] = put_backup(&world, "x", &old);
    let mut new = put_backup(&world, "x", &id("20260102T000000Z"));
    new.sort();
    world
        .server
        .faults()
        .on(Op::Delete)
        .from(2)
        .meets(Fault::Denied);
    let run = world.run(&["prune", "--confirm"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains(&format!("x@{old} is removed, but"))
            && run.stderr.contains("tapline cleanup")
    );
    assert_eq!(store.effects().last(), Some(&Effect::Deleted(manifest)));
    assert!(store.keys().contains(&volume));
    assert!(!world.run(&["list"]).stdout.contains(old.as_str()));

    world.server.faults().clear();
    store.age_by(2 * DAY);
    assert_eq!(world.run(&["cleanup", "--confirm"]).code, Some(0));
    assert_eq!(store.keys(), new);
}

/// One that could not be looked at ended the plan for all.
#[test]
fn an_upload_that_cannot_be_read_is_named_and_the_others_are_aborted() {
    let world = World::new(INVENTORY);
    let ids = ["20260101T000000Z", "20260102T000000Z", "20260103T000000Z"];
    let keys = ids.map(|one| archive_key("x", &id(one), "tar.gz"));
    for key in &keys {
        begin_upload(&world, key);
    }
    world.server.store().age_by(2 * DAY);
    world
        .server
        .faults()
        .on(Op::ListParts)
        .key(&keys[1])
        .meets(Fault::Denied);
    let run = world.run(&["cleanup", "--confirm"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains(ids[1]) && run.stderr.contains("left alone"));
    assert_eq!(world.server.store().open_uploads(), 1);
}

#[test]
fn a_manifest_that_has_come_since_saves_its_volumes_and_a_failure_is_told() {
    let world = World::new(INVENTORY);
    let volume = format!(
        "backups/{}",
        archive_key("x", &id("20260101T000000Z"), "tar.gz")
    );
    world.server.store().overwrite(&volume, "a volume".into());
    world.server.store().age_by(2 * DAY);
    world
        .server
        .faults()
        .on(Op::Head)
        .nth(1)
        .meets(Fault::Denied);
    let run = world.run(&["cleanup", "--confirm"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("may be there") && run.stdout.contains("what failed is still there")
    );
    assert_eq!(world.server.store().keys(), [volume]);

    // Between plan and removal.
    let store = world.server.store();
    world.block_on(async {
        use tapline::upkeep::cleanup::{plan, remove};
        let key = archive_key("y", &id("20260101T000000Z"), "tar.gz");
        store.overwrite(&key, "a volume".into());
        store.age_by(2 * DAY);
        let plan = plan(store, DAY, jiff::Timestamp::now().as_second())
            .await
            .unwrap();
        assert_eq!((plan.leftovers.len(), plan.foreign), (1, 1));
        store.overwrite(
            &manifest_key("y", &id("20260101T000000Z")),
            "here at last".into(),
        );
        let failures = remove(store, &plan.leftovers).await;
        assert!(failures[0].contains("is there now"), "{failures:?}");
        assert!(store.keys().contains(&key));
    });
}

#[test]
fn the_memory_of_a_look_at_a_bucket_does_not_grow_with_what_others_have_in_it() {
    let peak = |task: &str, strangers: usize| {
        let world = World::new(INVENTORY);
        put_backup(&world, "x", &id("20260101T000000Z"));
        for n in 0..strangers {
            let key = format!("backups/of somebody else/{n:0200}");
            world.server.store().overwrite(&key, "x".into());
        }
        let mut command = world.tapline(&[task]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        peak_rss(command)
    };
    for task in ["cleanup", "list"] {
        let (few, many) = (peak(task, 1000), peak(task, 60_000));
        // A listing that is held is some 300 bytes for each, and more while it grows.
        assert!(many < few + (8 << 20), "{task}: {few} and {many} bytes");
    }
}
