//! One run of a database at a time, between processes and hosts.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tapline::catalog::{BackupId, lease_key};
use tapline::s3_server::{Fault, Op};
use tapline::store::Store;

use super::world::{World, backup_keys, end_of, leases, signal, wait_until};

/// A database whose first dump waits until somebody has written to a pipe.
fn world() -> World {
    let world = World::new(
        "[databases.x]\nengine = \"command\"\n\
         command = [\"sh\", \"-c\", \"if mkdir first 2>&-; then cat fifo; fi; echo x\"]\n",
    );
    let made = Command::new("mkfifo").arg(world.path("fifo")).status();
    assert!(made.unwrap().success());
    world
}

/// A backup that is under way.
fn first(world: &World) -> Child {
    let mut command = world.tapline(&["backup"]);
    let first = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    wait_until(|| world.path("first").exists());
    first.unwrap()
}

/// Another host's lease.
fn put(world: &World) {
    let key = format!("backups/{}", lease_key("x", &BackupId::now()));
    let holder = format!(
        r#"{{"version":1,"host":"elsewhere","process":{{"boot":"b","namespace":"n","pid":7,
            "begin":"1"}},"began":"{}","released":false}}"#,
        jiff::Timestamp::now() - jiff::SignedDuration::from_mins(10)
    );
    world.server.store().overwrite(&key, Bytes::from(holder));
}

#[test]
fn a_second_run_of_the_same_database_does_not_begin() {
    let world = world();
    let mut first = first(&world);
    let second = world.run(&["backup", "--report", "r.json"]);
    // A writer that comes and goes ends the reader.
    drop(
        std::fs::OpenOptions::new()
            .write(true)
            .open(world.path("fifo"))
            .unwrap(),
    );
    assert_eq!((end_of(&mut first).code(), second.code), (Some(0), Some(1)));
    let report = std::fs::read_to_string(world.path("r.json")).unwrap();
    assert!(
        report.contains("another backup of x is under way on "),
        "{report}"
    );
    assert!(report.contains("\"kind\": \"busy\""), "{report}");
    assert_eq!(
        backup_keys(&world.server).len(),
        2,
        "one backup, and no lease"
    );
    assert_eq!(world.run(&["backup"]).code, Some(0));
}

#[test]
fn a_run_that_was_killed_on_this_machine_is_in_nobodys_way() {
    let world = world();
    let mut first = first(&world);
    signal(&first, "KILL");
    first.wait().unwrap();
    let start = Instant::now();
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "it waited for a process that is gone"
    );
}

#[test]
fn another_hosts_run_is_respected_until_its_signs_of_life_end() {
    let world = world();
    std::fs::create_dir(world.path("first")).unwrap();
    put(&world);
    let run = world.run(&["backup"]);
    assert!(run.code == Some(1) && run.stdout.contains("under way on elsewhere (process 7)"));
    world.server.store().age_by(Duration::from_mins(4));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    // What is left of the dead host is cleanup's.
    world.server.store().age_by(Duration::from_hours(72));
    assert_eq!(world.run(&["cleanup", "--confirm"]).code, Some(0));
    assert_eq!(leases(&world.server), Vec::<String>::new());
}

#[test]
fn a_key_that_may_only_write_backs_up_without_knowing_of_others() {
    let world = world();
    std::fs::create_dir(world.path("first")).unwrap();
    put(&world);
    let faults = world.server.faults();
    for op in [Op::List, Op::Get, Op::Head, Op::Delete, Op::ListUploads] {
        faults.on(op).meets(Fault::Denied);
    }
    assert_eq!(world.run(&["backup"]).code, Some(0));
    faults.clear();
    // What it could not take away says itself that it means nothing.
    let leases = leases(&world.server);
    let elsewhere = leases.iter().find(|key| {
        let text = world.server.store().read(key).unwrap();
        String::from_utf8_lossy(&text).contains("elsewhere")
    });
    let store = world.server.store();
    world
        .block_on(Store::delete(store, elsewhere.unwrap()))
        .unwrap();
    assert_eq!(world.run(&["backup"]).code, Some(0));
}

#[test]
fn a_folder_keeps_leases_and_records_too_and_replaces_them_in_one_step() {
    let world = World::new("");
    std::fs::create_dir(world.path("disk")).unwrap();
    let shop = format!(
        "[stores.disk]\nurl = \"file://{}\"\n[databases.shop]\nengine = \"command\"\n\
         command = [\"sh\", \"-c\", \"ls disk/~tapline/leases/shop | wc -l > held; exit 1\"]\n",
        world.path("disk").display()
    );
    world.write("tapline.toml", shop);
    for _ in 0..2 {
        assert_eq!(world.run(&["backup"]).code, Some(1));
        assert_eq!(
            std::fs::read_to_string(world.path("held")).unwrap().trim(),
            "1"
        );
        let names = |folder: &str| -> Vec<String> {
            let files = std::fs::read_dir(world.path(folder)).into_iter().flatten();
            files
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        assert_eq!(names("disk/~tapline/records/shop"), ["failure.json"]);
        assert_eq!(names("disk/~tapline/leases/shop"), Vec::<String>::new());
    }
    let run = world.run(&["status", "--json"]);
    assert!(run.stdout.contains("exited with status 1"));
}
