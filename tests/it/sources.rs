//! Whose backup is it: two sources that store under one name are never taken for each other.

use rusqlite::Connection;

use super::world::World;

/// A database with one table, called as its file is.
fn database(world: &World, name: &str) {
    let database = Connection::open(world.path(&format!("{name}.db"))).unwrap();
    database
        .execute_batch(&format!("create table {name} (x); vacuum;"))
        .unwrap();
}

fn entry(path: &str) -> String {
    format!(
        "[databases.app]\nengine = \"sqlite\"\npath = \"{path}.db\"\nkeep_last = 1\n\
         [run]\nprune_after_backup = true\n"
    )
}

#[test]
fn two_sources_under_one_name_are_neither_restored_nor_pruned_until_one_is_chosen() {
    let world = World::new(&entry("first"));
    database(&world, "first");
    database(&world, "second");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let source = world
        .manifest("app")
        .source
        .expect("a manifest names its source");
    assert_eq!(source.engine, "sqlite");
    // The same again is one source still: the older backup goes.
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let mine = world.manifest("app");

    // Another host has the same inventory: here, another file has the name.
    world.inventory(&entry("second"));
    let run = world.run(&["backup", "--report", "r.json"]);
    let report = std::fs::read_to_string(world.path("r.json")).unwrap();
    assert_eq!(run.code, Some(1));
    assert!(
        report.contains("2 sources have stored under the name app"),
        "{report}"
    );
    assert_eq!(world.keys("app").len(), 4, "nothing of either was pruned");

    let prune = world.run(&["prune", "--confirm"]);
    assert!(prune.code == Some(1) && prune.stderr.contains("--source"));
    assert_eq!(world.keys("app").len(), 4);
    let refused = world.run(&["restore", "app", "--output", "x.db"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("2 sources"));
    assert!(!world.path("x.db").exists());

    // By its fingerprint, or by its id, one can be had.
    let mark = source.short_fingerprint();
    // Two backups of one second have no order, so it may name either as the former.
    assert!(refused.stderr.contains(&mark) && refused.stderr.contains("formerly = [\""));
    let by_mark = ["restore", "app", "--source", &mark, "--output", "x.db"];
    assert_eq!(world.run(&by_mark).code, Some(0));
    let tables: String = Connection::open(world.path("x.db"))
        .unwrap()
        .query_row("select name from sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, "first");
    let by_id = format!("app@{}", mine.backup_id);
    assert_eq!(
        world.run(&["restore", &by_id, "--output", "y.db"]).code,
        Some(0)
    );
    let unknown = ["restore", "app", "--source", "0000abcd", "--output", "z.db"];
    assert_eq!(world.run(&unknown).code, Some(2));
    assert_eq!(
        world.run(&["prune", "--source", &mark, "--confirm"]).code,
        Some(0)
    );
    assert_eq!(world.keys("app").len(), 4, "each has its newest");
    // It has become the other: one history, one latest, one retention.
    world.inventory(
        &entry("second").replace("keep_last", &format!("formerly = [\"{mark}\"]\nkeep_last")),
    );
    let latest = ["restore", "app", "--output", "w.db"];
    assert_eq!(world.run(&latest).code, Some(0));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert_eq!(
        world.keys("app").len(),
        2,
        "the newest of the one that it is"
    );
}
