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
