//! Which client programs are run, and what they log in with.

use super::servers::{Mariadb, PASSWORD, Postgres};
use super::world::World;

fn entry(engine: &str, port: u16, keys: &str) -> String {
    format!(
        "[databases.shop]\nengine = \"{engine}\"\nhost = \"127.0.0.1\"\nport = {port}\n\
         user = \"admin\"\npassword = {{ file = \"password\" }}\n{keys}\n"
    )
}

#[test]
fn the_folder_of_tools_has_all_programs_and_one_that_is_too_old_is_found_by_check() {
    let server = Postgres::start();
    server.sql("postgres", "create database shop");
    server.sql("shop", "create table t as select 1 as x");
    let keys = "format = \"custom\"\ntools = \"tools\"";
    let world = World::new(&entry("postgres", server.port(), keys));
    world.write("password", PASSWORD);
    std::fs::create_dir(world.path("tools")).unwrap();
    let used = world.path("used");
    for program in ["pg_dump", "psql", "pg_restore"] {
        let script = format!(
            "#!/bin/sh\necho {program} >> '{}'\nexec {program} \"$@\"\n",
            used.display()
        );
        world.write(&format!("tools/{program}"), script);
        world.executable(&format!("tools/{program}"));
    }
    assert_eq!(world.run(&["check"]).code, Some(0));
    let _ = std::fs::remove_file(&used);
    let programs_of = |args: &[&str]| {
        assert_eq!(world.run(args).code, Some(0));
        let log = std::fs::read_to_string(&used).unwrap();
        std::fs::remove_file(&used).unwrap();
        log
    };
    assert!(programs_of(&["backup"]).contains("pg_dump"));
    let restore = programs_of(&["restore", "shop", "--overwrite"]);
    assert!(
        restore.contains("pg_restore") && restore.contains("psql"),
        "{restore}"
    );
    world.write(
        "tools/pg_dump",
        "#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n",
    );
    world.executable("tools/pg_dump");
    let old = world.run(&["check"]);
    assert!(old.code != Some(0) && old.stdout.contains("cannot dump a server of version"));
    assert!(old.stdout.contains("install postgresql-client-"));
}

#[test]
fn a_password_that_lives_for_minutes_is_asked_for_when_its_job_begins() {
    let server = Postgres::start();
    let world = World::new("");
    world.write("password", PASSWORD);
    let log = world.path("log");
    let token = format!(
        "echo asked >> '{}'; cat '{}'",
        log.display(),
        world.path("password").display()
    );
    let mut inventory = String::new();
    for name in ["first", "second", "third"] {
        server.sql("postgres", &format!("create database {name}"));
        let entry = entry("postgres", server.port(), "dump_tool = \"./dump\"");
        let entry = entry.replace("databases.shop", &format!("databases.{name}"));
        inventory += &entry.replace(
            "{ file = \"password\" }",
            &format!("{{ command = [\"sh\", \"-c\", \"{token}\"] }}"),
        );
    }
    world.inventory(&inventory);
    let dump = format!(
        "#!/bin/sh\ncase \"$*\" in *--version*) ;; *) echo dumps >> '{}';; esac\nexec pg_dump \"$@\"\n",
        log.display()
    );
    world.write("dump", dump);
    world.executable("dump");
    assert_eq!(world.run(&["backup", "--jobs", "1"]).code, Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    let jobs: Vec<&str> = log.split("dumps\n").collect();
    assert_eq!(jobs.len(), 4, "{log}");
    for job in &jobs[..3] {
        assert!(job.contains("asked"), "{log}");
    }
}

#[test]
fn a_client_of_another_maker_is_named_and_so_is_the_package_of_one_that_is_missing() {
    let server = Mariadb::start();
    server.sql("create database shop");
    let world = World::new(&entry("mysql", server.port(), "tools = \"tools\""));
    world.write("password", PASSWORD);
    std::fs::create_dir(world.path("tools")).unwrap();
    let missing = world.run(&["check"]);
    assert!(missing.code != Some(0));
    assert!(missing.stdout.contains("apt-get install mysql-client"));
    // MariaDB's client is enough for the questions.
    world.write("tools/mysql", "#!/bin/sh\nexec mariadb \"$@\"\n");
    world.write(
        "tools/mysqldump",
        "#!/bin/sh\necho 'mysqldump  Ver 8.4.2 for Linux on x86_64 (MySQL Community Server - GPL)'\n\
         [ \"$1\" = --version ] || exit 2\n",
    );
    world.executable("tools/mysql");
    world.executable("tools/mysqldump");
    let other = world.run(&["check"]);
    let words = "the dump tool is MySQL's and the server is MariaDB's";
    assert!(other.stdout.contains(words) && other.stdout.contains("set tools or dump_tool"));
}

/// Three hundred databases of one server are planned before the first is dumped: each takes a
/// process for all questions, and one for the tool's version.
#[test]
fn a_database_is_asked_all_that_a_plan_asks_in_one_session() {
    let postgres = Postgres::start();
    let mariadb = Mariadb::start();
    for name in ["a", "b", "c", "d"] {
        let make = format!("create database {name}");
        postgres.sql("postgres", &make);
        mariadb.sql(&make);
    }
    for (engine, port, programs) in [
        ("postgres", postgres.port(), ["psql", "pg_dump"]),
        ("mariadb", mariadb.port(), ["mariadb", "mariadb-dump"]),
    ] {
        let all = "database = \"*\"\nexclude = [\"postgres\"]\ntools = \"tools\"";
        let world = World::new(&entry(engine, port, all));
        world.write("password", PASSWORD);
        std::fs::create_dir(world.path("tools")).unwrap();
        let used = world.path("used");
        for program in programs {
            let tool = format!("tools/{program}");
            let used = used.display();
            world.write(
                &tool,
                format!("#!/bin/sh\necho {program} >> '{used}'\nexec {program} \"$@\"\n"),
            );
            world.executable(&tool);
        }
        let planned = world.run(&["backup", "--dry-run"]);
        assert!(planned.code == Some(0) && planned.stdout.contains("shop/d"));
        let used = std::fs::read_to_string(used).unwrap();
        let count = |program: &str| used.lines().filter(|line| *line == program).count();
        // What databases there are is asked of the server.
        assert_eq!(count(programs[0]), 1 + 4, "{engine}: {used}");
        // And once, for whose program it is.
        assert!(count(programs[1]) <= 1 + 4, "{engine}: {used}");
    }
}
