//! A SQLite file that is replaced is the old one or the new one, and its application can use it.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Stdio;

use rusqlite::Connection;

use super::world::{World, wait_until};

fn world() -> World {
    World::new("[databases.app]\nengine = \"sqlite\"\npath = \"app.db\"\n")
}

fn fill(path: &Path, rows: u32) {
    let database = Connection::open(path).unwrap();
    let sql = format!(
        "create table if not exists t (x, y); with recursive c(x) as (select 1 union all select x + 1
         from c where x < {rows}) insert into t select x, hex(randomblob(50)) from c"
    );
    database.execute_batch(&sql).unwrap();
}

/// What is beside a database and was made by a restore.
fn left(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.folder.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(".tapline-")).collect()
}

#[test]
fn a_restored_file_belongs_to_whom_it_belonged_or_to_whom_its_folder_belongs() {
    let world = world();
    let path = world.path("app.db");
    fill(&path, 10);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let root = rustix::process::geteuid().is_root();
    let (uid, gid) = (root.then_some(1234), root.then_some(4321));
    chown(&path, uid, gid).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(world.run(&["restore", "app", "--overwrite"]).code, Some(0));
    let found = std::fs::metadata(&path).unwrap();
    assert_eq!(found.mode() & 0o777, 0o640);
    if root {
        assert_eq!((found.uid(), found.gid()), (1234, 4321));
    }
    std::fs::remove_file(&path).unwrap();
    chown(world.folder.path(), uid, gid).unwrap();
    assert_eq!(world.run(&["restore", "app"]).code, Some(0));
    world.write("ordinary", "");
    let ordinary = std::fs::metadata(world.path("ordinary")).unwrap();
    let found = std::fs::metadata(&path).unwrap();
    assert_eq!(found.mode() & 0o777, ordinary.mode() & 0o777);
    if root {
        assert_eq!((found.uid(), found.gid()), (1234, 4321));
    }
    // What is not a database's own file is whose it is who made it.
    assert_eq!(
        world.run(&["restore", "app", "--output", "out"]).code,
        Some(0)
    );
    let found = std::fs::metadata(world.path("out")).unwrap();
    assert_eq!(
        (found.uid(), found.mode()),
        (ordinary.uid(), ordinary.mode())
    );
}

#[test]
fn a_database_that_is_in_use_is_not_replaced_under_anybodys_hands() {
    let world = world();
    let path = world.path("app.db");
    fill(&path, 10);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let application = Connection::open(&path).unwrap();
    application
        .pragma_update(None, "journal_mode", "wal")
        .unwrap();
    application
        .execute_batch("insert into t values (0, 'precious')")
        .unwrap();
    let refused = world.run(&["restore", "app", "--overwrite"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("another process uses"));
    let precious = "select count(*) from t where x = 0";
    let count = application.query_row(precious, [], |row| row.get::<_, i64>(0));
    assert_eq!(count.unwrap(), 1);
    assert_eq!(left(&world), Vec::<String>::new());
    drop(application);
    // One that has it open and does nothing holds no lock.
    let mut idle = std::process::Command::new("sh")
        .args(["-c", "exec 9<> app.db; echo; exec sleep 120"])
        .current_dir(world.folder.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0];
    std::io::Read::read_exact(idle.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let refused = world.run(&["restore", "app", "--overwrite"]);
    assert!(refused.code == Some(1) && refused.stderr.contains(&format!("sleep {}", idle.id())));
    idle.kill().unwrap();
    idle.wait().unwrap();
    assert_eq!(world.run(&["restore", "app", "--overwrite"]).code, Some(0));
}

#[test]
fn a_drill_finds_a_corrupt_page() {
    let world = world();
    let path = world.path("app.db");
    fill(&path, 5000);
    Connection::open(&path)
        .unwrap()
        .execute_batch("create index i on t (y)")
        .unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // The last page but one is full of the index.
    let at = bytes.len() - 2 * 4096;
    bytes[at + 100..at + 4000].fill(7);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert_eq!(
        world.run(&["verify", "app"]).code,
        Some(0),
        "it is what it was"
    );
    let drill = world.run(&["verify", "app", "--drill"]);
    assert!(
        drill.code == Some(5) && drill.stdout.contains("integrity_check"),
        "{}",
        drill.stdout
    );
}

/// A killed application leaves a journal beside its database, and pages of what it had not
/// committed in it.
#[test]
fn what_an_application_was_killed_at_is_not_in_the_backup() {
    let world = world();
    let path = world.path("app.db");
    fill(&path, 5000);
    let application = Connection::open(&path).unwrap();
    application.pragma_update(None, "cache_size", 5).unwrap();
    let half_done = "begin; update t set y = zeroblob(200)";
    application.execute_batch(half_done).unwrap();
    let names = ["app.db", "app.db-journal"];
    let files = names.map(|name| std::fs::read(world.path(name)).unwrap());
    drop(application);
    for (name, bytes) in names.iter().zip(&files) {
        world.write(name, bytes);
    }
    assert_eq!(world.run(&["check"]).code, Some(0));
    world.write(names[1], &files[1]);
    world.write(names[0], &files[0]);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let to = ["restore", "app", "--to", "copy.db"];
    assert_eq!(world.run(&to).code, Some(0));
    let copy = Connection::open(world.path("copy.db")).unwrap();
    let whole = "select count(*) from t where length(y) = 100 and (select integrity_check
                 from pragma_integrity_check) = 'ok'";
    let count = copy.query_row(whole, [], |row| row.get::<_, i64>(0));
    assert_eq!(count.unwrap(), 5000);
}

#[test]
fn what_a_killed_restore_leaves_is_removed_by_the_next() {
    let world = world();
    fill(&world.path("app.db"), 100_000);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    // So slow that it is caught in the middle.
    let mut running = world
        .tapline(&["restore", "app", "--to", "copy.db"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(|| !left(&world).is_empty());
    let stop = |signal: &str| {
        let pid = running.id().to_string();
        std::process::Command::new("kill")
            .args([signal, &pid])
            .status()
            .unwrap()
    };
    assert!(stop("-STOP").success());
    // One that lives is nobody's to remove.
    if !world.path("copy.db").exists() {
        assert_eq!(
            world.run(&["restore", "app", "--to", "third.db"]).code,
            Some(0)
        );
        assert_eq!(left(&world).len(), 1);
    }
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(
        world.run(&["restore", "app", "--to", "other.db"]).code,
        Some(0)
    );
    assert_eq!(left(&world), Vec::<String>::new());
}

#[test]
fn killed_at_any_instant_a_restore_leaves_the_old_file_or_the_new_one() {
    let world = world();
    let path = world.path("app.db");
    fill(&path, 100_000);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let look = || {
        let database = Connection::open(&path).unwrap();
        let ok = database.query_row("pragma integrity_check", [], |row| row.get::<_, String>(0));
        assert_eq!(ok.unwrap(), "ok");
        let sum = "select count(*), sum(length(y)), max(x), min(y) from t";
        let row = |row: &rusqlite::Row<'_>| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, String>(3)?,
            ))
        };
        database.query_row(sum, [], row).unwrap()
    };
    let new = look();
    // A row in its WAL alone, as an application leaves it that was killed.
    let database = Connection::open(&path).unwrap();
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    database
        .pragma_update(None, "wal_autocheckpoint", 0)
        .unwrap();
    database
        .execute_batch("insert into t values (999999, 'precious')")
        .unwrap();
    let names = ["app.db", "app.db-wal"];
    let files = names.map(|name| std::fs::read(world.path(name)).unwrap());
    drop(database);
    let make_old = || {
        for (name, bytes) in names.iter().zip(&files) {
            world.write(name, bytes);
        }
    };
    make_old();
    let old = look();
    make_old();
    super::restore_kills::at_random_instants(
        "sqlite",
        &world,
        |_| vec!["restore", "app", "--overwrite"],
        || {
            let found = look();
            assert!(
                found == old || found == new,
                "neither the old one nor the new one"
            );
            make_old();
            found == new
        },
    );
    assert_eq!(world.run(&["restore", "app", "--overwrite"]).code, Some(0));
    assert_eq!((look(), left(&world)), (new, Vec::new()));
}
