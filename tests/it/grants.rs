//! The users that the README makes can do what it says, with those rights and no others.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::servers::{Mariadb, PASSWORD, Postgres};
use super::world::{Run, World};

/// The statements that the README gives under a sentence.
pub fn statements(sentence: &str) -> String {
    let readme = include_str!("../../README.md");
    let at = readme.find(sentence).expect("the README has the sentence");
    let block = readme[at..].split("```sql\n").nth(1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

/// One entry for who backs up; who restores is said in the target's address.
fn world(engine: &str, port: u16) -> World {
    let world = World::new(&format!(
        "[databases.shop]\nengine = \"{engine}\"\nhost = \"127.0.0.1\"\nport = {port}\n\
         user = \"tapline_backup\"\npassword = {{ file = \"password\" }}\ndatabase = \"shop\"\n\
         strict = true\n"
    ));
    world.write("password", "secret");
    world
}

fn restored(world: &World, engine: &str, port: u16, database: &str) {
    let to = format!("{engine}://tapline_restore@127.0.0.1:{port}/{database}");
    let mut args = vec![
        "restore",
        "shop",
        "--password-file",
        "password",
        "--to",
        &to,
    ];
    if database == "shop" {
        args.push("--overwrite");
    }
    let run = world.run(&args);
    assert_eq!(run.code, Some(0));
    assert!(!run.stderr.contains("grants on routines cannot be read"));
}

#[test]
fn the_users_of_the_readme_back_postgres_up_and_restore_it() {
    let server = Postgres::start();
    let password = PASSWORD.replace('\\', r"\\").replace('\'', "''");
    server.sql(
        "postgres",
        &format!("create role app login password E'{password}'"),
    );
    server.sql("postgres", "create database shop owner app");
    let make = "create table t (id serial primary key, x text); insert into t (x) values ('a');
         alter table t enable row level security; create policy none on t using (false);
         create view v as select * from t; create schema s; create extension citext;
         create materialized view s.m as select 1 as x; select lo_from_bytea(77, 'large');
         create function f() returns int language sql security definer as 'select 1';
         revoke all on function f() from public; alter default privileges revoke all on types from public";
    let mut psql = server.client("psql", "shop");
    psql.env("PGUSER", "app").args([
        "-Xq",
        "-o",
        "/dev/null",
        "-v",
        "ON_ERROR_STOP=1",
        "-c",
        make,
    ]);
    super::world::tool(&mut psql);
    for who in ["Who backs PostgreSQL up", "Who restores it; event triggers"] {
        server.sql("shop", &statements(who));
    }
    let look = "select relname, relowner::regrole, relacl from pg_class
           where relnamespace in ('public'::regnamespace, 's'::regnamespace) order by 1;
         select * from t; select oid, lomowner::regrole, lo_get(oid) from pg_largeobject_metadata;
         select proowner::regrole, proacl from pg_proc where proname = 'f';
         select defaclrole::regrole, defaclacl from pg_default_acl;
         select datdba::regrole from pg_database where datname = current_database()";
    let before = server.sql("shop", look);
    let world = world("postgres", server.port());
    assert_eq!(world.run(&["backup"]).code, Some(0));
    for database in ["shop", "copy"] {
        restored(&world, "postgres", server.port(), database);
        assert_eq!(server.sql(database, look), before, "{database}");
    }
}

#[test]
fn the_users_of_the_readme_back_mariadb_up_and_restore_it() {
    let server = Mariadb::start();
    server.sql(
        "create database shop; use shop; create user app; grant all on shop.* to app;
         create table t (id int primary key, x text) with system versioning;
         insert into t values (1, 'a'); update t set x = 'b'; create sequence s;
         create view v as select * from t;
         create definer = app trigger tr before insert on t for each row set new.x = 'y';
         create definer = app procedure p() select 1; create function f() returns int return 1;
         create definer = app event e on schedule every 1 day do select 1;
         grant execute on procedure shop.p to app",
    );
    server.sql(&statements("Who backs MariaDB up"));
    server.sql(&statements("Who restores it, the database `shop`"));
    let look = "select * from shop.t for system_time all; select * from shop.v;
         select trigger_name, definer from information_schema.triggers where trigger_schema = 'shop';
         select routine_name, definer from information_schema.routines where routine_schema = 'shop' order by 1;
         select event_name, definer, status from information_schema.events where event_schema = 'shop';
         select user, routine_name, proc_priv from mysql.procs_priv where db = 'shop'";
    let before = server.sql(look);
    let world = world("mariadb", server.port());
    assert_eq!(world.run(&["backup"]).code, Some(0));
    restored(&world, "mariadb", server.port(), "shop");
    assert_eq!(server.sql(look), before);
    // Without its database, too: the rights on that name stay.
    server.sql("drop database shop");
    let to = format!("mariadb://tapline_restore@127.0.0.1:{}/shop", server.port());
    let again = world.run(&[
        "restore",
        "shop",
        "--password-file",
        "password",
        "--to",
        &to,
    ]);
    assert_eq!(again.code, Some(0));
    let rows = "select count(*) from shop.v; call shop.p()";
    assert_eq!(server.sql(rows).trim(), "1\n1");
}

/// Whose bits on files hold, root's, too.
fn without_privileges(tapline: &Command) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.arg("--bounding-set=-dac_override,-dac_read_search");
    }
    command.arg(tapline.get_program()).args(tapline.get_args());
    command.current_dir(tapline.get_current_dir().unwrap());
    command
}

#[test]
fn who_backs_sqlite_up_reads_the_file_and_one_in_wal_mode_takes_its_folder_too() {
    let world = World::new("[databases.app]\nengine = \"sqlite\"\npath = \"shut/app.db\"\n");
    let folder = world.path("shut");
    std::fs::create_dir(&folder).unwrap();
    let mode = |mode| std::fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
    let run = |args: &[&str]| {
        mode(0o555);
        let output = without_privileges(&world.tapline(args)).output().unwrap();
        mode(0o755);
        let run = Run::from(output);
        println!("{}{:?}", run.words(), run.code);
        run
    };
    let database = rusqlite::Connection::open(folder.join("app.db")).unwrap();
    database.execute_batch("create table t (x)").unwrap();
    drop(database);
    assert_eq!(run(&["backup"]).code, Some(0));
    let database = rusqlite::Connection::open(folder.join("app.db")).unwrap();
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    drop(database);
    for verb in ["check", "backup"] {
        let refused = run(&[verb]);
        assert!(
            refused.code != Some(0) && refused.words().contains("write to its folder, too"),
            "{verb}"
        );
    }
    // As long as its application has it open, what it takes is there.
    let database = rusqlite::Connection::open(folder.join("app.db")).unwrap();
    database.execute_batch("insert into t values (1)").unwrap();
    assert_eq!(run(&["backup"]).code, Some(0));
}
