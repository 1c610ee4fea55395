//! What a backup lacks is said wherever it is looked at, and a dump that fails for what may pass is
//! run again.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::servers::{Mariadb, PASSWORD, Postgres};
use super::world::{World, wait_until};

fn entry(engine: &str, user: &str, port: u16, keys: &str) -> String {
    format!(
        "[databases.shop]\nengine = \"{engine}\"\nhost = \"127.0.0.1\"\nport = {port}\n\
         user = \"{user}\"\npassword = {{ file = \"password\" }}\n{keys}\n"
    )
}

fn report(world: &World) -> Value {
    serde_json::from_slice(&std::fs::read(world.path("report.json")).unwrap()).unwrap()
}

#[test]
fn what_a_user_may_not_see_is_said_everywhere_and_strict_lets_it_not_pass() {
    let server = Mariadb::start();
    server.sql(
        "create database shop; create table shop.t (x int) engine = myisam;
         create user warned identified by 'x'; grant select, event on shop.* to warned;
         create role warned_reader; grant all on shop.* to warned_reader;
         create user by_role identified by 'x'; grant warned_reader to by_role;
         set default role warned_reader for by_role",
    );
    let world = World::new(&entry("mariadb", "warned", server.port(), ""));
    world.write("password", "x");
    let run = world.run(&["backup", "--report", "report.json"]);
    assert!(run.code == Some(0) && run.stdout.contains("2 warnings"));
    let lacks = "lacks SHOW VIEW, TRIGGER, EXECUTE on the database";
    for place in [&run.stdout, &run.stderr, &world.run(&["check"]).stdout] {
        assert!(
            place.contains(lacks) && place.contains("such as t"),
            "{place}"
        );
    }
    let warnings = &report(&world)["jobs"][0]["warnings"];
    assert_eq!(warnings.as_array().unwrap().len(), 2);
    assert_eq!(world.manifest("shop").warnings, 2);
    assert!(world.run(&["list"]).stdout.contains("mariadb, 2 warnings"));
    assert!(
        world
            .run(&["show", "shop"])
            .stdout
            .contains("warnings    2")
    );
    // By a role all of it may be seen.
    server.sql("alter table shop.t engine = innodb");
    world.inventory(&entry("mariadb", "by_role", server.port(), "strict = true"));
    assert_eq!(world.run(&["backup"]).code, Some(0));

    world.inventory(&entry("mariadb", "warned", server.port(), "strict = true"));
    let keys = world.keys("shop").len();
    let run = world.run(&["backup"]);
    assert!(
        run.code == Some(1) && run.stdout.contains("strict = true") && run.stdout.contains(lacks)
    );
    assert_eq!(world.run(&["check"]).code, Some(5));
    assert_eq!(world.keys("shop").len(), keys, "nothing is stored");
}

#[test]
fn a_definer_that_is_gone_is_named() {
    let server = Mariadb::start();
    server.sql(
        "create database shop; create user left_us; grant all on shop.* to left_us; use shop;
         create definer = left_us procedure p() select 1; drop user left_us",
    );
    let world = World::new(&entry("mariadb", "admin", server.port(), ""));
    world.write("password", PASSWORD);
    let run = world.run(&["backup"]);
    assert!(run.code == Some(0) && run.stdout.contains("procedure p of left_us@%"));
    assert!(run.stdout.contains("--skip-definer"));
}

#[test]
fn an_index_that_was_never_finished_is_named_because_no_dump_has_it() {
    let server = Postgres::start();
    // What is said in its encoding is read in ours.
    server.sql(
        "postgres",
        "create database shop encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0",
    );
    server.sql(
        "shop",
        "create table t (x int); insert into t values (1), (1)",
    );
    let mut psql = server.client("psql", "shop");
    let make = "create unique index concurrently \"hälfte\" on t (x)";
    let fails = psql.env("PGCLIENTENCODING", "UTF8").args(["-Xc", make]);
    assert!(!fails.output().unwrap().status.success());
    let world = World::new(&entry("postgres", "admin", server.port(), ""));
    world.write("password", PASSWORD);
    for verb in ["check", "backup"] {
        let said = world.run(&[verb]).words();
        assert!(
            said.contains("1 indexes are invalid, such as public.\"hälfte\","),
            "{verb}"
        );
    }
    server.sql("shop", "drop table t");
    assert!(!world.run(&["check"]).words().contains("invalid"));
}

#[test]
fn what_a_good_tool_complains_of_is_a_failure_where_nothing_may_be_missing() {
    let command = "[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \
                   \"echo rows; echo left one out >&2\"]\n";
    let world = World::new(command);
    let run = world.run(&["backup"]);
    assert!(run.code == Some(0) && run.stdout.contains("x: warning: left one out"));
    for staged in [false, true] {
        let world = World::new(&format!("{command}strict = true\n"));
        let mode = if staged { "staged" } else { "streamed" };
        let run = world.run(&["backup", "--mode", mode]);
        assert!(
            run.code == Some(1) && run.stdout.contains("left one out"),
            "{mode}"
        );
        world.assert_store_is_clean();
    }
}

#[test]
fn a_database_whose_writers_wait_for_its_dump_is_named() {
    let world = World::new("[databases.app]\nengine = \"sqlite\"\npath = \"app.db\"\n");
    let database = rusqlite::Connection::open(world.path("app.db")).unwrap();
    let rows = "create table t (x); insert into t values (zeroblob(40000000))";
    database.execute_batch(rows).unwrap();
    let words = "journal_mode is not WAL: whoever writes to this database waits until it is dumped";
    let check = world.run(&["check"]);
    assert!(check.code == Some(0) && check.stdout.contains(words));
    let run = world.run(&["backup", "--report", "report.json"]);
    assert!(run.code == Some(0) && run.stdout.contains(words));
    let said = report(&world)["jobs"][0]["warnings"].to_string();
    assert!(said.contains(words), "{said}");
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    let run = world.run(&["backup"]);
    assert!(run.code == Some(0) && !run.stdout.contains("journal_mode"));
}

#[test]
fn whoever_writes_to_a_database_waits_for_its_dump_for_as_long_as_is_said_and_no_longer() {
    let world = World::new(
        "[run]\nmemory = \"32MiB\"\n[databases.app]\nengine = \"sqlite\"\npath = \"app.db\"\n\
         lock_timeout = \"1s\"\ncompression = \"none\"\n",
    );
    let database = rusqlite::Connection::open(world.path("app.db")).unwrap();
    let rows = "create table t (x); insert into t values (zeroblob(100000000))";
    database.execute_batch(rows).unwrap();
    // More than there is memory for, and a store that takes minutes for it.
    world.server.link().slow(100 << 10);
    let mut running = world.tapline(&["backup", "--report", "report.json"]);
    let mut running = running.spawn().unwrap();
    let write = || database.execute("insert into t values (1)", []);
    database.busy_timeout(Duration::ZERO).unwrap();
    wait_until(|| write().is_err());
    database.busy_timeout(Duration::from_mins(1)).unwrap();
    assert!(write().is_ok(), "it is let go of");
    assert_eq!(super::world::end_of(&mut running).code(), Some(1));
    let failed = report(&world)["jobs"][0]["failure"].to_string();
    assert!(failed.contains("lock_timeout"), "{failed}");
    world.assert_store_is_clean();
}

#[test]
fn a_dump_that_fails_is_run_again_as_often_as_is_allowed() {
    let script =
        "echo x >> tries; echo rows; [ $(wc -l < tries) -gt 2 ] || { echo went away >&2; exit 1; }";
    let world = World::new(&format!(
        "[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\nretries = 2\n"
    ));
    let run = world.run(&["backup", "--report", "report.json"]);
    assert!(
        run.code == Some(0) && run.stderr.contains("went away"),
        "the log says why"
    );
    let job = &report(&world)["jobs"][0];
    let tries = job["failed_tries"].as_array().unwrap();
    assert_eq!(tries.len(), 2);
    assert!(tries[0]["message"].as_str().unwrap().contains("went away"));
    assert_eq!(job["dump_bytes"], 5, "of the try that was stored");
    assert_eq!(world.keys("x").len(), 2, "an archive and its manifest");
    assert_eq!(world.server.store().open_uploads(), 0);

    world.write("tries", "");
    world.inventory(&format!(
        "[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\nretries = 1\n"
    ));
    let run = world.run(&["backup", "--report", "report.json"]);
    assert_eq!(run.code, Some(1));
    assert_eq!(
        report(&world)["jobs"][0]["failed_tries"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn what_no_other_try_heals_is_not_tried_again() {
    let script = "echo x >> tries; echo 'permission denied for table t' >&2; exit 1";
    let world = World::new(&format!(
        "[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\nretries = 5\n"
    ));
    assert_eq!(world.run(&["backup"]).code, Some(1));
    assert_eq!(std::fs::read_to_string(world.path("tries")).unwrap(), "x\n");
}

#[test]
fn who_holds_a_lock_that_a_dump_waits_for_is_named() {
    let server = Postgres::start();
    server.sql("postgres", "create database shop");
    server.sql("shop", "create table t as select 1 as x");
    let world = World::new(&entry("postgres", "admin", server.port(), ""));
    world.write("password", PASSWORD);
    let mut holder = server
        .client("psql", "shop")
        .args([
            "-Xqc",
            "begin; alter table t add y int; select pg_sleep(120)",
        ])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let at_work = "select count(*) from pg_stat_activity where query like '%pg_sleep(120)%'
                   and pid <> pg_backend_pid() and state = 'active'";
    wait_until(|| server.sql("postgres", at_work).trim() == "1");
    let log = std::fs::File::create(world.path("log")).unwrap();
    let mut running = world.tapline(&["backup"]).stderr(log).spawn().unwrap();
    wait_until(|| {
        let log = std::fs::read_to_string(world.path("log")).unwrap();
        log.contains("waits for a lock that is held by process") && log.contains("psql")
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
    server.sql(
        "postgres",
        "select pg_terminate_backend(pid) from pg_stat_activity
        where query like '%pg_sleep(120)%' and pid <> pg_backend_pid()",
    );
    assert!(running.wait().unwrap().success());
}

#[test]
fn a_server_that_waits_no_longer_for_the_store_is_named_with_its_setting() {
    let server = Mariadb::start();
    server.sql("set global net_write_timeout = 1; set global max_allowed_packet = 1 << 30");
    server.sql(
        "create database shop; use shop; create table t (x longtext);
         insert into t select repeat('x', 10 << 20) from seq_1_to_15",
    );
    let keys = entry("mariadb", "admin", server.port(), "compression = \"none\"");
    let world = World::new(&format!("[run]\nmemory = \"32MiB\"\n{keys}"));
    world.write("password", PASSWORD);
    world.server.link().slow(500 << 10);
    let run = world.run(&["backup"]);
    assert!(run.code == Some(1) && run.stdout.contains("raise its net_write_timeout"));
    world.assert_store_is_clean();
}

#[test]
fn no_timeout_of_a_role_ends_a_dump_or_a_restore_that_waits_for_the_store() {
    let server = Postgres::start();
    server.sql("postgres", "create role hasty superuser login password 'x'");
    for setting in [
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
    ] {
        server.sql(
            "postgres",
            &format!("alter role hasty set {setting} = '300ms'"),
        );
    }
    server.sql("postgres", "create database shop");
    // More than what lies in pipes and buffers while the store is slow.
    server.sql(
        "shop",
        "create table t as select g, md5(g::text) || md5((-g)::text) as x
         from generate_series(1, 100000) g; create index on t (x)",
    );
    let world = World::new(&entry(
        "postgres",
        "hasty",
        server.port(),
        "compression = \"none\"",
    ));
    world.write("password", "x");
    world.server.link().slow(3 << 20);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    for in_place in [false, true] {
        let args = ["restore", "shop", "--overwrite", "--in-place"];
        let args = if in_place { &args[..] } else { &args[..3] };
        assert_eq!(world.run(args).code, Some(0), "{args:?}");
    }
    assert_eq!(
        server.sql("shop", "select count(*) from t").trim(),
        "100000"
    );
}

#[test]
fn a_database_that_the_user_may_not_connect_to_is_named_and_stops_no_other() {
    let server = Postgres::start();
    let password = PASSWORD.replace('\\', r"\\").replace('\'', "''");
    server.sql(
        "postgres",
        &format!("create role poor login password E'{password}'"),
    );
    server.sql("postgres", "create database \"its own\"");
    server.sql(
        "postgres",
        "revoke connect on database \"its own\" from public",
    );
    let world = World::new(&entry(
        "postgres",
        "poor",
        server.port(),
        "database = \"*\"\n",
    ));
    world.write("password", PASSWORD);
    for verb in ["backup", "check"] {
        let run = world.run(&[verb]);
        assert_eq!(run.code, Some(0));
        assert!(run.stderr.contains("left out: its own;"), "{verb}");
    }
    server.sql("postgres", "grant connect on database \"its own\" to poor");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert_eq!(world.keys("shop/its own").len(), 2);
}
