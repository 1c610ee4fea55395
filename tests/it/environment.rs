//! Whoever runs tapline has variables, option files and password files of his own: none of them
//! says which server is dumped, restored into or dropped.

use std::path::Path;
use std::process::Command;

use super::servers::{Mariadb, PASSWORD, Postgres};
use super::world::{World, untar};

/// A home and an environment that name another server, another user, another password, and
/// options that no client knows.
fn hostile(command: &mut Command, home: &Path) {
    let write = |name: &str, text: &str| {
        let path = home.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, mode).unwrap();
    };
    let option_file = "[client]\nhost=127.0.0.9\nport=2\nuser=stranger\npassword=wrong\nprotocol=tcp\n\
                       default-character-set=latin1\n[client-mariadb]\nhost=127.0.0.9\n\
                       [mysqldump]\nno-data\nno-such-option\n[mariadb-dump]\nno-data\n[mariadb]\nforce\n";
    write(".my.cnf", option_file);
    write(".mylogin.cnf", "not a login file");
    write(".pgpass", "*:*:*:*:wrong\n");
    write(
        ".pg_service.conf",
        "[elsewhere]\nhost=127.0.0.9\nport=2\nuser=stranger\n",
    );
    write(".psqlrc", "\\q\n");
    command.env("HOME", home);
    for (name, value) in [
        ("PGHOST", "127.0.0.9"),
        ("PGHOSTADDR", "127.0.0.9"),
        ("PGPORT", "2"),
        ("PGSERVICE", "elsewhere"),
        ("PGUSER", "stranger"),
        ("PGPASSWORD", "wrong"),
        ("PGDATABASE", "nowhere"),
        ("PGOPTIONS", "-c default_transaction_read_only=on"),
        ("PGSSLMODE", "require"),
        ("PGCLIENTENCODING", "LATIN1"),
        ("PGTARGETSESSIONATTRS", "standby"),
        ("MYSQL_HOST", "127.0.0.9"),
        ("MYSQL_TCP_PORT", "2"),
        ("MYSQL_UNIX_PORT", "/nowhere"),
        ("MYSQL_PWD", "wrong"),
        ("MYSQL_GROUP_SUFFIX", "_wrong"),
        ("MARIADB_HOST", "127.0.0.9"),
    ] {
        command.env(name, value);
    }
}

fn run(world: &World, args: &[&str]) -> String {
    let mut command = world.tapline(args);
    hostile(&mut command, &world.path("home"));
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    println!("$ tapline {}\n{text}→ {}", args.join(" "), output.status);
    assert!(output.status.success());
    text
}

fn round(world: &World, all: &str) {
    run(world, &["check"]);
    run(world, &["backup"]);
    run(world, &["restore", all, "--to", "kopieö"]);
    run(world, &["restore", all, "--overwrite"]);
    run(world, &["verify", "--drill", all]);
}

/// The variables of a list as `env` prints it whose names begin so.
fn beginning<'a>(list: &'a str, prefixes: &[&str]) -> Vec<&'a str> {
    let of_them = |line: &&str| prefixes.iter().any(|prefix| line.starts_with(prefix));
    let mut found: Vec<&str> = list.lines().filter(of_them).collect();
    found.sort_unstable();
    found
}

/// Arguments are stronger than any variable and any file; and each file that a client would read
/// besides is one that is not there, its password's and Oracle's login file too.
#[test]
fn whom_to_connect_to_is_said_in_arguments_and_no_other_file_is_named() {
    let world = World::new(
        "[defaults]\nhost = \"127.0.0.1\"\nport = 1\nuser = \"admin\"\ndatabase = \"shop\"\n\
         [databases.pg]\nengine = \"postgres\"\ndump_tool = \"./pg\"\n\
         [databases.my]\nengine = \"mysql\"\ndump_tool = \"./my\"\n",
    );
    for name in ["pg", "my"] {
        let tool = "#!/bin/sh\ncase \"$*\" in *--version*) echo it 1; exit;; esac\n\
                    printf '%s\\n' \"$@\" >\"$0.args\"; env >\"$0.env\"\n\
                    echo -- PostgreSQL database dump complete; echo -- Dump completed\n";
        world.write(name, tool);
        world.executable(name);
    }
    run(&world, &["backup"]);
    let read = |name: &str| std::fs::read_to_string(world.path(name)).unwrap();
    let has = |name: &str, args: &[&str]| {
        let given = read(name);
        for arg in args {
            assert!(given.lines().any(|line| line == *arg), "{arg}: {given}");
        }
    };
    let whom = ["--host=127.0.0.1", "--port=1"];
    has("pg.args", &whom);
    has("pg.args", &["--username=admin", "--dbname=shop"]);
    assert_eq!(
        beginning(&read("pg.env"), &["PG"]),
        [
            "PGAPPNAME=tapline",
            "PGCONNECT_TIMEOUT=15",
            "PGPASSFILE=/dev/null/nowhere"
        ]
    );
    has("my.args", &whom);
    has("my.args", &["--user=admin", "--protocol=tcp", "shop"]);
    // Where it is not the first, it is none.
    assert!(read("my.args").starts_with("--defaults-file=/proc/self/fd/3\n"));
    assert_eq!(
        beginning(&read("my.env"), &["MYSQL", "MARIADB"]),
        ["MYSQL_TEST_LOGIN_FILE=/dev/null"]
    );
}

#[test]
fn postgres_is_the_one_of_the_inventory() {
    let server = Postgres::start();
    server.sql("postgres", "create database \"größe\"");
    server.sql("größe", "create table t as select 1 as \"ä\"");
    let world = World::new(&format!(
        "[databases.all]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\ndatabase = \"*\"\nexclude = [\"postgres\"]\n\
         [databases.roles]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\nglobals = true\n",
        server.port(),
        server.port()
    ));
    world.write("password", PASSWORD);
    round(&world, "all/größe");
    assert_eq!(server.sql("kopieö", "select \"ä\" from t").trim(), "1");
    assert!(untar(&world.download("all/größe")).starts_with(b"--\n-- PostgreSQL database dump"));
}

#[test]
fn a_name_that_looks_like_a_connection_is_a_name() {
    let server = Postgres::start();
    let name = "x' host=127.0.0.9 port=2 dbname=\\y";
    server.sql("postgres", &format!("create database \"{name}\""));
    server.sql("postgres", "create database \"postgres://h/d\"");
    let world = World::new(&format!(
        "[databases.all]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\ndatabase = \"*\"\n",
        server.port(),
    ));
    world.write("password", PASSWORD);
    run(&world, &["backup"]);
    for name in [name, "postgres://h/d"] {
        let dump = untar(&world.download(&format!("all/{name}")));
        assert!(dump.ends_with(b"\n"), "{name}");
    }
}

#[test]
fn mariadb_is_the_one_of_the_inventory() {
    let server = Mariadb::start();
    server.sql("create database größe; create table größe.t select 1 as ä");
    let world = World::new(&format!(
        "[databases.all]\nengine = \"mariadb\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\ndatabase = \"*\"\n",
        server.port()
    ));
    world.write("password", PASSWORD);
    round(&world, "all/größe");
    assert_eq!(server.sql("select ä from `kopieö`.t").trim(), "1");
}

#[test]
fn no_childs_environment_holds_what_is_not_its_own() {
    let world = World::new(
        "[databases.mine]\nengine = \"command\"\ncommand = [\"env\"]\n\
         env = { MINE = { env = \"A_SECRET\" } }\n\
         [databases.other]\nengine = \"command\"\ncommand = [\"env\"]\n\
         env = { OTHER = { env = \"B_SECRET\" } }\n",
    );
    let mut command = world.tapline(&["backup"]);
    command
        .env("A_SECRET", "sesame-a")
        .env("B_SECRET", "sesame-b");
    command.env("AWS_ACCESS_KEY_ID", "sesame-key");
    command.env("AWS_SECRET_ACCESS_KEY", "sesame-aws");
    command.env("AWS_SESSION_TOKEN", "sesame-token");
    command.env("SOME_TOKEN", "sesame-token");
    assert!(command.status().unwrap().success());
    let mine = String::from_utf8(untar(&world.download("mine"))).unwrap();
    assert!(
        mine.contains("MINE=sesame-a\n") && mine.contains("PATH="),
        "{mine}"
    );
    assert_eq!(mine.matches("sesame").count(), 1, "{mine}");
    let other = String::from_utf8(untar(&world.download("other"))).unwrap();
    assert_eq!(other.matches("sesame").count(), 1, "{other}");
}

#[test]
fn a_service_is_looked_up_where_an_entry_names_one() {
    let server = Postgres::start();
    server.sql("postgres", "create database shop");
    server.sql("shop", "create table t as select 1 as x");
    let world = World::new(
        "[databases.shop]\nengine = \"postgres\"\nservice = \"mine\"\n\
         password = { file = \"password\" }\n",
    );
    world.write("password", PASSWORD);
    std::fs::create_dir(world.path("home")).unwrap();
    let service = format!(
        "[mine]\nhost=127.0.0.1\nport={}\nuser=admin\n",
        server.port()
    );
    world.write("home/.pg_service.conf", service);
    for args in [
        &["check"][..],
        &["backup"],
        &["restore", "shop", "--to", "copy"],
    ] {
        let mut command = world.tapline(args);
        let output = command.env("HOME", world.path("home")).output().unwrap();
        let words = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{args:?}: {words}");
    }
    assert_eq!(server.sql("copy", "select x from t").trim(), "1");
}
