//! The nastiest database of each engine goes into a backup and comes back: equal by catalog and by
//! content, on every way there is. `tests/corpus/` has what is in it, and how it is looked at.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::grants::statements;
use super::servers::{Mariadb, PASSWORD, Postgres};
use super::world::{World, tool};

pub fn corpus(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus")).join(name)
}

/// An inventory of ways to store one database of a server; and a pair of keys.
pub fn world(engine: &str, user: &str, port: u16, ways: &str) -> World {
    let world = World::new("");
    let recipient = world.age_recipient();
    world.inventory(&format!(
        "[defaults]\nengine = \"{engine}\"\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"{user}\"\n\
         password = {{ file = \"password\" }}\ndatabase = \"corpus\"\n{}",
        ways.replace("RECIPIENT", &recipient)
    ));
    world.write("password", PASSWORD);
    world
}

pub fn same(one: &str, other: &str, what: &str) {
    for (one, other) in one.lines().zip(other.lines()) {
        assert_eq!(one, other, "{what}");
    }
    assert_eq!(one.lines().count(), other.lines().count(), "{what}");
}

/// Runs a client that reads a script.
fn fed(command: &mut Command, script: impl Into<Stdio>) -> String {
    let output = command.stdin(script).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A first backup of the entry `plain`, a staged one: its id.
pub fn staged(world: &World) -> String {
    let run = world.run(&["backup", "plain", "--mode", "staged"]);
    assert_eq!(run.code, Some(0));
    // Ids are to the second, and the next one is to be the latest.
    std::thread::sleep(Duration::from_secs(1));
    world.manifest("plain").backup_id.to_string()
}

/// What `show` and the README say of a dump by hand: as text into the client.
pub fn by_hand(world: &World, backup: &str, mut client: Command) {
    let mut tapline = world.tapline(&["restore", backup, "--stdout"]);
    let mut tapline = tapline.stdout(Stdio::piped()).spawn().unwrap();
    fed(&mut client, tapline.stdout.take().unwrap());
    assert!(tapline.wait().unwrap().success());
}

/// All of a PostgreSQL database in words; what is said about the database itself, where `itself`.
pub fn postgres_look(server: &Postgres, database: &str, itself: bool) -> String {
    let mut psql = server.client("psql", database);
    psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f"]);
    let words = String::from_utf8(tool(psql.arg(corpus("postgres-look.sql")))).unwrap();
    let of_itself = |line: &&str| line.starts_with("database|") || line.starts_with("setting|");
    words
        .lines()
        .filter(|line| itself || !of_itself(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Makes the corpus in a new database, as `user`.
pub fn make_postgres(server: &Postgres, user: &str) {
    server.sql(
        "postgres",
        r#"create role corpus_owner; create role corpus_reader; create role "corpus ""odd"" %""#,
    );
    if user != "admin" {
        let password = PASSWORD.replace('\'', "''");
        server.sql(
            "postgres",
            &format!(
                r#"create role {user} login createdb password E'{}' in role corpus_owner, corpus_reader, "corpus ""odd"" %""#,
                password.replace('\\', r"\\")
            ),
        );
    }
    server.sql(
        "postgres",
        &format!("create database corpus template template0 owner {user}"),
    );
    server.sql(
        "postgres",
        "comment on database corpus is E'it''s \\\\ %s\\n;'; alter database corpus connection limit 77;
         alter database corpus set search_path = 'private', 'public';
         alter database corpus set default_transaction_read_only = on;
         grant connect on database corpus to corpus_reader with grant option;
         revoke temporary on database corpus from public",
    );
    let mut psql = server.client("psql", "corpus");
    let superuser = if user == "admin" {
        "superuser=1"
    } else {
        "superuser=0"
    };
    psql.env("PGUSER", user)
        .env(
            "PGOPTIONS",
            "-c default_transaction_read_only=off -c search_path=public",
        )
        .args([
            "-Xq",
            "-o",
            "/dev/null",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            superuser,
            "-f",
        ]);
    tool(psql.arg(corpus("postgres.sql")));
    if user == "admin" {
        server.sql(
            "postgres",
            "alter role corpus_reader in database corpus set work_mem = '7MB'",
        );
    }
}

pub const POSTGRES_WAYS: &str = "[databases.plain]\n[databases.zstd]\ncompression = \"zstd\"\nparallel = 2\n\
    [databases.custom]\nformat = \"custom\"\n[databases.sealed]\nencrypt_to = [\"RECIPIENT\"]\n";

fn postgres_comes_back(user: &str) {
    let server = Postgres::start();
    make_postgres(&server, user);
    let world = world("postgres", user, server.port(), POSTGRES_WAYS);
    let before = postgres_look(&server, "corpus", true);
    assert!(before.lines().count() > 400, "{before}");
    let staged = staged(&world);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let key = ["--identity", "age.key"];
    let into_itself = world.run(&["restore", "plain", "--overwrite"]);
    assert_eq!(into_itself.code, Some(0));
    same(
        &before,
        &postgres_look(&server, "corpus", true),
        "into itself",
    );
    for (source, more) in [
        (format!("plain@{staged}"), &[][..]),
        ("custom".into(), &[]),
        ("zstd".into(), &[]),
        ("sealed".into(), &key),
    ] {
        let to = format!("copy of \"{}\"", source.split('@').next_back().unwrap());
        let restored = world.run(&[&["restore", &source, "--to", &to][..], more].concat());
        assert_eq!(restored.code, Some(0), "{source}");
        same(&before, &postgres_look(&server, &to, true), &source);
        let identifier = to.replace('"', "\"\"");
        server.sql("postgres", &format!("drop database \"{identifier}\""));
    }
    server.sql(
        "postgres",
        &format!("create database by_hand template template0 owner {user}"),
    );
    let mut psql = server.client("psql", "by_hand");
    psql.env("PGUSER", user)
        .args(["-Xq", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1"]);
    by_hand(&world, "plain", psql);
    same(
        &postgres_look(&server, "corpus", false),
        &postgres_look(&server, "by_hand", false),
        "by hand",
    );
    let drill = world.run(&[&["verify", "--drill"][..], &key].concat());
    assert_eq!(drill.code, Some(0));
    same(
        &before,
        &postgres_look(&server, "corpus", true),
        "after all",
    );
    let left = "select count(*) from pg_database where datname ~ 'tapline'";
    assert_eq!(server.sql("postgres", left).trim(), "0");
}

#[test]
fn every_kind_of_object_of_postgres_comes_back_on_every_way() {
    postgres_comes_back("admin");
}

#[test]
fn every_kind_of_object_that_any_user_of_postgres_may_make_comes_back_by_that_user() {
    postgres_comes_back("corpus_user");
}

/// A server of MariaDB or MySQL, whose corpus is in `corpus` of the server itself.
pub struct Dialect<'a> {
    pub engine: &'static str,
    pub port: u16,
    /// Its client, as one who may do all.
    pub client: &'a dyn Fn() -> Command,
    /// What is in the database for that its next value is its own sequence's.
    pub by_sequence: &'static str,
    /// The README's sentences above the rights of who backs up, and of who restores.
    pub users: [&'static str; 2],
}

impl Dialect<'_> {
    fn sql(&self, text: &str) -> String {
        String::from_utf8(tool((self.client)().args(["-e", text]))).unwrap()
    }

    /// Makes the corpus in a new database.
    pub fn make(&self) {
        self.sql(
            "create database corpus charset utf8mb4; create user `corpus ``odd`@`%`; create user gone",
        );
        let script = std::fs::File::open(corpus(&format!("{}.sql", self.engine))).unwrap();
        fed((self.client)().arg("corpus"), script);
        // What its server cannot look up for a definer who is gone, it writes otherwise.
        self.sql("drop user gone");
    }

    /// All of a database in words.
    pub fn look(&self, database: &str) -> String {
        let look = std::fs::File::open(corpus(&format!("{}-look.sql", self.engine))).unwrap();
        let words = fed((self.client)().arg(database), look);
        // The server names each table with its database.
        words.replace(&format!("\n{database}."), "\n")
    }
}

pub fn every_kind_comes_back_on_every_way(server: &Dialect) {
    server.make();
    let world = world(
        server.engine,
        "admin",
        server.port,
        "[databases.plain]\n[databases.sealed]\nencrypt_to = [\"RECIPIENT\"]\n",
    );
    let before = server.look("corpus");
    assert!(before.lines().count() > 200, "{before}");
    let staged = staged(&world);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let into_itself = world.run(&["restore", "plain", "--overwrite"]);
    assert_eq!(into_itself.code, Some(0));
    same(&before, &server.look("corpus"), "into itself");
    let key = ["--identity", "age.key"];
    for (source, more) in [
        (format!("plain@{staged}"), &[][..]),
        ("sealed".into(), &key),
        ("plain".into(), &[]),
    ] {
        let restored = world.run(&[&["restore", &source, "--to", "copy"][..], more].concat());
        assert_eq!(restored.code, Some(0), "{source}");
        same(&before, &server.look("copy"), &source);
        // Its defaults are of its own sequences.
        server.sql(&format!("use copy; {}", server.by_sequence));
        same(&before, &server.look("corpus"), "the original");
        server.sql("drop database copy");
    }
    let drill = world.run(&[&["verify", "--drill"][..], &key].concat());
    assert_eq!(drill.code, Some(0));
    same(&before, &server.look("corpus"), "after all");
    // Where the original is gone, too.
    server.sql("drop database corpus");
    let restored = world.run(&["restore", "plain", "--to", "copy"]);
    assert_eq!(restored.code, Some(0));
    same(&before, &server.look("copy"), "without the original");
    server.sql("drop database copy");
    assert_eq!(world.run(&["restore", "plain"]).code, Some(0));
    same(&before, &server.look("corpus"), "made again");

    // By users who have the README's rights and no others.
    let [of_backups, of_restores] = server.users;
    server.sql(&statements(of_backups));
    server.sql(&statements(of_restores).replace("shop", "corpus"));
    let engine = server.engine;
    world.inventory(&format!(
        "[databases.limited]\nengine = \"{engine}\"\nhost = \"127.0.0.1\"\nport = {}\n\
         user = \"tapline_backup\"\npassword = {{ file = \"limited\" }}\ndatabase = \"corpus\"\n",
        server.port
    ));
    world.write("limited", "secret");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let to = format!(
        "{engine}://tapline_restore@127.0.0.1:{}/corpus",
        server.port
    );
    let by_limited = ["restore", "limited", "--password-file", "limited", "--to"];
    let replaced = world.run(&[&by_limited[..], &[&to, "--overwrite"]].concat());
    assert_eq!(replaced.code, Some(0));
    same(&before, &server.look("corpus"), "by other users");

    // By hand it is what the dump itself can say: a database under its own name, and no date that
    // is none in the dump's own mode.
    server.sql("drop database corpus; create database corpus charset utf8mb4");
    let mut client = (server.client)();
    client.args(["--max-allowed-packet=1G", "corpus"]);
    by_hand(&world, "limited", client);
    let by_hand = server.look("corpus");
    let lines = before.lines().zip(by_hand.lines());
    let other: Vec<_> = lines.filter(|(one, other)| one != other).collect();
    assert!(
        matches!(other[..], [(table, _)] if table.starts_with("zeroes\t")),
        "{other:?}"
    );
    assert_eq!(before.lines().count(), by_hand.lines().count());
    let left =
        "select count(*) from information_schema.schemata where schema_name regexp 'tapline'";
    assert_eq!(server.sql(left).trim(), "0");
}

#[test]
fn every_kind_of_object_of_mariadb_comes_back_on_every_way() {
    let server = Mariadb::start();
    every_kind_comes_back_on_every_way(&Dialect {
        engine: "mariadb",
        port: server.port(),
        client: &|| server.client(),
        by_sequence: "insert into by_sequence (x) values (2)",
        users: [
            "Who backs MariaDB up",
            "Who restores it, the database `shop`",
        ],
    });
}

/// All of a SQLite database in words.
fn sqlite_look(path: &std::path::Path) -> String {
    use rusqlite::types::ValueRef;
    let database = rusqlite::Connection::open(path).unwrap();
    let mut words = String::new();
    let mut rows = |query: &str| {
        let mut statement = database.prepare(query).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            words += query;
            for column in 0..columns {
                match row.get_ref(column).unwrap() {
                    ValueRef::Text(text) => {
                        words += &format!("|text {:?}", String::from_utf8_lossy(text));
                    }
                    ValueRef::Blob(blob) => words += &format!("|blob {blob:?}"),
                    other => words += &format!("|{other:?}"),
                }
            }
            words += "\n";
        }
    };
    for pragma in [
        "encoding",
        "page_size",
        "auto_vacuum",
        "user_version",
        "application_id",
        "journal_mode",
        "integrity_check",
        "foreign_key_check",
    ] {
        rows(&format!("pragma {pragma}"));
    }
    rows("select * from sqlite_schema order by type, name");
    rows("select * from sqlite_sequence");
    let names: Vec<String> = {
        let mut tables = database
            .prepare("select name from sqlite_schema where type = 'table' order by 1")
            .unwrap();
        let names = tables.query_map([], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    };
    for name in names {
        rows(&format!("select * from \"{}\"", name.replace('"', "\"\"")));
    }
    for query in [
        "select rowid from words where words match 'run größe'",
        "select rowid, body from full where full match 'alp*'",
        "select id from boxes where x0 < 0",
        "select * from chained",
    ] {
        rows(query);
    }
    words
}

#[test]
fn every_kind_of_object_of_sqlite_comes_back_on_every_way() {
    let world = World::new("");
    let recipient = world.age_recipient();
    world.inventory(&format!(
        "[defaults]\nengine = \"sqlite\"\npath = \"corpus.db\"\n[databases.plain]\n\
         [databases.sealed]\nencrypt_to = [\"{recipient}\"]\n"
    ));
    let path = world.path("corpus.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    let script = std::fs::read_to_string(corpus("sqlite.sql")).unwrap();
    database.pragma_update(None, "foreign_keys", false).unwrap();
    database.execute_batch(&script).unwrap();
    drop(database);
    let before = sqlite_look(&path);
    assert!(before.contains("UTF-16le") && before.lines().count() > 60);
    let staged = staged(&world);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let into_itself = world.run(&["restore", "plain", "--overwrite"]);
    assert_eq!(into_itself.code, Some(0));
    same(&before, &sqlite_look(&path), "into itself");
    let key = ["--identity", "age.key"];
    for (source, more) in [
        (format!("plain@{staged}"), &[][..]),
        ("sealed".into(), &key),
        ("plain".into(), &[]),
    ] {
        let to = format!("{}.db", source.replace('@', "-"));
        let restored = world.run(&[&["restore", &source, "--to", &to][..], more].concat());
        assert_eq!(restored.code, Some(0), "{source}");
        same(&before, &sqlite_look(&world.path(&to)), &source);
    }
    let by_hand = tool(&mut world.tapline(&["restore", "plain", "--stdout"]));
    world.write("by-hand.db", by_hand);
    same(&before, &sqlite_look(&world.path("by-hand.db")), "by hand");
    let drill = world.run(&[&["verify", "--drill"][..], &key].concat());
    assert_eq!(drill.code, Some(0));
}
