//! A small backup is cheap: how many requests it is, and what it must not cost.

use std::time::{Duration, Instant};

use tapline::s3_server::{Asked, Fault, Op, S3Server};
use tapline::store::memory::MemoryStore;
use tapline::store::{ChecksumKind, Limits};

use super::world::{TAPLINE, World};

/// A world whose server proves by an entity tag that it has read what was put, as AWS does.
fn proving(databases: &str) -> World {
    let memory = MemoryStore::new(Limits::S3, Some(ChecksumKind::Crc64Nvme)).with_md5();
    let server =
        |runtime: &tokio::runtime::Runtime| runtime.block_on(S3Server::serving(memory)).unwrap();
    World::with(databases, server)
}

/// SQLite databases of some KiB.
fn databases(world: &World, count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        let file = rusqlite::Connection::open(world.path(&format!("{n}.db"))).unwrap();
        let sql = "create table t (x); insert into t values ('a'), ('b')";
        file.execute_batch(sql).unwrap();
        text += &format!("[databases.d{n}]\nengine = \"sqlite\"\npath = \"{n}.db\"\n");
    }
    text
}

/// What was asked of the backups themselves; a run's lease is put, listed and deleted beside them.
fn asked(world: &World) -> Vec<Op> {
    let all = world.server.log().all();
    let of_backups = |asked: &&Asked| !asked.key.contains("~tapline/") && asked.op != Op::List;
    all.iter()
        .filter(of_backups)
        .map(|asked| asked.op)
        .collect()
}

#[test]
fn a_small_backup_is_two_requests_where_the_store_proves_what_it_has() {
    let world = proving("");
    world.inventory(&databases(&world, 3));
    assert_eq!(world.run(&["backup", "--jobs", "1"]).code, Some(0));
    assert_eq!(asked(&world), [Op::Put; 6]);
    assert_eq!(world.run(&["verify"]).code, Some(0));
    assert_eq!(world.run(&["verify", "--quick"]).code, Some(0));
}

#[test]
fn a_reply_that_proves_nothing_is_looked_into() {
    let world = World::new("");
    world.inventory(&databases(&world, 1));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert_eq!(asked(&world), [Op::Put, Op::Head, Op::Put, Op::Head]);
}

/// Where nothing proves that it was read, and where a proof is usual and this once there is none.
#[test]
fn a_small_manifest_that_is_answered_and_not_written_is_no_backup() {
    for (world, fault) in [
        (World::new(""), Fault::WithoutEffect),
        (World::new(""), Fault::EmptyWithoutEffect),
        (proving(""), Fault::EmptyWithoutEffect),
        (proving(""), Fault::Garbage),
    ] {
        let databases = databases(&world, 1);
        world.inventory(&format!("[run]\nretry_for = \"1s\"\n{databases}"));
        let faults = world.server.faults();
        faults.on(Op::Put).key("manifest.json").meets(fault);
        let run = world.run(&["backup"]);
        assert_eq!(run.code, Some(4), "{fault:?}");
        assert!(!run.stdout.contains("1 of 1 stored"), "{fault:?}");
        faults.clear();
        world.assert_store_is_clean();
        assert!(world.run(&["list"]).stdout.contains("no backups"));
    }
}

#[test]
fn a_dump_that_was_thought_small_and_is_not_is_stored_all_the_same() {
    let script = "head -c 30000000 /dev/urandom";
    let world = proving(&format!(
        "[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\n\
         expected_size = 1000\n"
    ));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert!(asked(&world).iter().filter(|op| **op == Op::Part).count() >= 3);
    assert_eq!(world.run(&["verify"]).code, Some(0));
    assert_eq!(world.server.store().open_uploads(), 0);
}

/// What the store refuses is known before a large dump begins, and before one of a size that nobody
/// knows; a small one is over before it is.
#[test]
fn a_store_that_refuses_is_found_out_before_a_large_dump_begins() {
    for (expected, starts) in [("40GB", false), ("", false), ("1000", true)] {
        let world = proving("");
        let expected = match expected {
            "" => String::new(),
            size => format!("expected_size = \"{size}\"\n"),
        };
        world.inventory(&format!(
            "[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \"touch started; echo x\"]\n\
             {expected}"
        ));
        world.server.faults().on_any().meets(Fault::Denied);
        assert_eq!(world.run(&["backup"]).code, Some(4));
        assert_eq!(world.path("started").exists(), starts, "{expected}");
        world.server.faults().clear();
        world.assert_store_is_clean();
    }
}

#[test]
fn a_small_dump_that_fails_asks_the_store_for_nothing_that_stays() {
    let world = proving(
        "[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \"echo x; exit 1\"]\n\
         expected_size = 1000\n",
    );
    assert_eq!(world.run(&["backup"]).code, Some(1));
    assert!(!asked(&world).contains(&Op::Put) && !asked(&world).contains(&Op::Create));
}

/// `TAPLINE_SMALL=300`: so many databases with 20 ms to the store, by the binary `TAPLINE_OTHER` or
/// this one; prints requests and milliseconds for each.
#[test]
fn small_backups_far_from_their_store_are_measured() {
    let Ok(count) = std::env::var("TAPLINE_SMALL") else {
        return;
    };
    let count: usize = count.parse().unwrap();
    let world = proving("");
    world.inventory(&databases(&world, count));
    world.server.link().far(Duration::from_millis(20));
    let binary = std::env::var("TAPLINE_OTHER").unwrap_or_else(|_| TAPLINE.into());
    let start = Instant::now();
    let done = std::process::Command::new(binary)
        .args(["backup", "--jobs", "8", "--no-progress", "-q"])
        .current_dir(world.folder.path())
        .output()
        .unwrap();
    let time = start.elapsed();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let requests = world.server.log().all().len();
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    let (requests_each, count_of) = (requests as f64 / count as f64, count as f64);
    println!(
        "{count} databases, 20 ms away: {requests} requests, {requests_each:.2} each; {:.1} s, {:.1} ms each",
        time.as_secs_f64(),
        time.as_secs_f64() * 1000.0 / count_of
    );
}
