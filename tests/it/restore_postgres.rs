//! A PostgreSQL database that is replaced is the old one or the new one, and what cannot be had is
//! refused before anything is changed.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::servers::Postgres;
use super::world::{World, wait_until};

const LEFT: &str = "select count(*) from pg_database where datname ~ 'tapline'";

/// An inventory of one server; `entries` follow the defaults.
fn world(server: &Postgres, entries: &str) -> World {
    World::of_shop("postgres", server.port(), entries)
}

/// A URL of a database for another user, whose password is `guest`.
fn url(server: &Postgres, user: &str, database: &str) -> String {
    format!("postgres://{user}@127.0.0.1:{}/{database}", server.port())
}

/// A session that does this and then waits.
fn session(server: &Postgres, sql: &str) -> Child {
    server
        .client("psql", "shop")
        .args(["-Xqc", sql, "-c", "select pg_sleep(120)"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Ends a session: at the server, which does not see that a client is gone while it sleeps.
fn end(server: &Postgres, mut client: Child) {
    let sleepers = "select pg_terminate_backend(pid) from pg_stat_activity
        where query like '%pg_sleep(120)%' and pid <> pg_backend_pid()";
    server.sql("postgres", sleepers);
    client.wait().unwrap();
}

#[test]
fn a_database_is_replaced_with_all_that_is_said_about_it_and_without_limits_of_one_transaction() {
    let server = Postgres::start();
    server.sql("postgres", "create role app createdb");
    server.sql(
        "postgres",
        "create database shop owner app encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' \
         template template0 connection limit 77",
    );
    server.sql(
        "postgres",
        "comment on database shop is 'it''s ours'; revoke all on database shop from public;
         grant connect, temp on database shop to app with grant option;
         alter database shop set work_mem = '7MB'; alter database shop set search_path = \"A b\", public;
         alter database shop set application_name = 'it''s';
         alter role app in database shop set statement_timeout = '5s'",
    );
    // More large objects than a transaction has locks, a partitioned table with a key, and a
    // function with COMMIT in it.
    server.sql(
        "shop",
        "create table public.t (id int primary key, note text) partition by range (id);
         create table public.t1 partition of public.t for values from (0) to (100);
         insert into public.t values (1, 'ä');
         create procedure public.p() language plpgsql as $$ begin insert into t values (2, '');
         COMMIT;
         end $$;
         select count(lo_from_bytea(0, 'x')) from generate_series(1, 20000)",
    );
    let world = world(
        &server,
        "[databases.plain]\ndump_tool = \"./newer\"\n[databases.custom]\nformat = \"custom\"\n",
    );
    // As a newer pg_dump writes it, for settings that this server does not know.
    world.write(
        "newer",
        "#!/bin/sh\nset -e\npg_dump \"$@\" | sed 's/^SET lock_timeout = 0;/&\\nSET future_timeout = 0;/'\n",
    );
    world.executable("newer");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let said = "select pg_get_userbyid(datdba), encoding, datcollate, datctype, datconnlimit,
         (select string_agg(acl::text, ',' order by acl::text) from unnest(datacl) acl),
         shobj_description(oid, 'pg_database'),
         (select string_agg(setrole::regrole || setconfig::text, ',' order by 1)
          from pg_db_role_setting where setdatabase = d.oid)
         from pg_database d where datname = 'shop'";
    let holds = "select (select string_agg(t::text, ',' order by id) from public.t t),
         (select count(*) from pg_largeobject_metadata)";
    let (before, content) = (server.sql("postgres", said), server.sql("shop", holds));
    assert!(
        before.contains("work_mem=7MB") && content.contains("20000"),
        "{before}{content}"
    );
    for source in ["plain", "custom"] {
        server.sql(
            "shop",
            "insert into public.t values (3, 'new'); select lo_unlink(oid) from
             pg_largeobject_metadata where oid::bigint % 2 = 0",
        );
        let dry = world.run(&["restore", source, "--overwrite", "--dry-run"]);
        assert!(dry.code == Some(0) && dry.stdout.contains("would be replaced in one step"));
        assert!(
            server.sql("shop", holds).contains("new"),
            "nothing was done"
        );
        let run = world.run(&["restore", source, "--overwrite"]);
        assert_eq!(run.code, Some(0));
        assert_eq!(server.sql("shop", holds), content, "{source}");
        assert_eq!(server.sql("postgres", said), before, "{source}");
    }
    assert_eq!(server.sql("postgres", LEFT).trim(), "0");
    // What a role may not do beside, it may in place.
    server.sql("shop", "insert into public.t values (4, 'more')");
    let run = world.run(&["restore", "custom", "--overwrite", "--in-place"]);
    assert!(
        run.code == Some(1) && run.stderr.contains("max_locks_per_transaction"),
        "words"
    );
    assert!(
        server.sql("shop", holds).contains("more"),
        "and the old content"
    );
}

#[test]
fn in_place_nothing_of_the_dump_ends_the_transaction() {
    let server = Postgres::start();
    server.sql("postgres", "create role app login password 'guest'");
    server.sql("postgres", "create database shop owner app");
    server.sql(
        "shop",
        "create table t (x int); alter table t owner to app; insert into t values (1);
         select lo_from_bytea(0, 'x'); create function f() returns event_trigger language plpgsql
         as $$ begin end $$; create event trigger e on ddl_command_start execute function f()",
    );
    let world = world(
        &server,
        "[databases.plain]\n[databases.custom]\nformat = \"custom\"\n",
    );
    world.write("guest", "guest\n");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    server.sql("postgres", "drop database shop");
    server.sql("postgres", "create database shop owner app");
    server.sql(
        "shop",
        "create table precious (x int); alter table precious owner to app",
    );
    let to = url(&server, "app", "shop");
    for source in ["plain", "custom"] {
        let restore = |more: &[&str]| {
            let args = [
                "restore",
                source,
                "--to",
                &to,
                "--password-file",
                "guest",
                "--overwrite",
            ];
            world.run(&[args.as_slice(), more].concat())
        };
        let refused = restore(&[]);
        assert!(refused.code == Some(1) && refused.stderr.contains("may not create databases"));
        assert!(refused.stderr.contains("--in-place"));
        // Large objects come before event triggers, which this role may not make.
        let failed = restore(&["--in-place", "--no-owner"]);
        assert!(failed.code == Some(1) && failed.stderr.contains("permission denied"));
        let tables = "select string_agg(tablename, ',') from pg_tables where schemaname = 'public'";
        assert_eq!(server.sql("shop", tables).trim(), "precious");
    }
}

#[test]
fn who_holds_a_database_or_a_lock_is_named_and_sent_away_only_by_force() {
    let server = Postgres::start();
    server.sql("postgres", "create database shop");
    server.sql("shop", "create table t (x int); insert into t values (1)");
    let world = world(&server, "[databases.shop]\n");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    server.sql("shop", "insert into t values (2)");
    let count = || {
        server
            .sql("shop", "select count(*) from t")
            .trim()
            .to_owned()
    };
    let holder = session(&server, "select 1");
    let at_work = "select count(*) from pg_stat_activity where query like '%pg_sleep(120)%'
                   and pid <> pg_backend_pid() and state = 'active'";
    wait_until(|| server.sql("postgres", at_work).trim() == "1");
    let refused = world.run(&["restore", "shop", "--overwrite"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("(admin, psql from 127.0.0.1)"));
    assert_eq!(count(), "2");
    assert_eq!(
        world
            .run(&["restore", "shop", "--overwrite", "--force"])
            .code,
        Some(0)
    );
    assert_eq!(count(), "1");
    end(&server, holder);

    server.sql("shop", "insert into t values (2)");
    let holder = server
        .client("psql", "shop")
        .args(["-Xqc", "begin; select * from t; select pg_sleep(120)"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(|| server.sql("postgres", at_work).trim() == "1");
    let started = Instant::now();
    let args = [
        "restore",
        "shop",
        "--overwrite",
        "--in-place",
        "--lock-timeout",
        "2s",
    ];
    let refused = world.run(&args);
    assert!(
        refused.code == Some(1) && refused.stderr.contains("waited"),
        "it ends by itself"
    );
    assert!(refused.stderr.contains("held by process") && refused.stderr.contains("pg_sleep(120)"));
    assert!(started.elapsed() < Duration::from_secs(30));
    // Nor does its session stay in the queue for the lock, where it would keep others waiting.
    let queued = "select count(*) from pg_stat_activity where application_name = 'tapline'";
    wait_until(|| server.sql("postgres", queued).trim() == "0");
    end(&server, holder);
    assert_eq!(count(), "2");
    assert_eq!(world.run(&args).code, Some(0));
    assert_eq!(count(), "1");
}

#[test]
fn roles_that_are_missing_are_hinted_at_and_can_be_done_without() {
    let server = Postgres::start();
    server.sql(
        "postgres",
        "create role app; create role other login password 'guest' createdb",
    );
    server.sql("postgres", "create database shop");
    server.sql(
        "shop",
        "create table t (x int, y text default 'OWNER TO app;'); alter table t owner to app;
         grant select on t to app; alter default privileges in schema public grant all on tables to app",
    );
    let world = world(
        &server,
        "[databases.plain]\n[databases.custom]\nformat = \"custom\"\n",
    );
    world.write("guest", "guest\n");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    server.sql("postgres", "drop database shop");
    server.sql("postgres", "drop role app");
    for source in ["plain", "custom"] {
        let failed = world.run(&["restore", source]);
        assert!(failed.code == Some(1) && failed.stderr.contains("restore the globals first"));
        assert_eq!(server.sql("postgres", LEFT).trim(), "0");
        let absent = "select count(*) from pg_database where datname = 'shop'";
        assert_eq!(server.sql("postgres", absent).trim(), "0");
        let copy = format!("copy_{source}");
        let to = url(&server, "other", &copy);
        let without = ["--no-owner", "--no-privileges", "--password-file", "guest"];
        let run = world.run(&[["restore", source, "--to", &to].as_slice(), &without].concat());
        assert_eq!(run.code, Some(0));
        let owner = "select tableowner from pg_tables where tablename = 't'";
        assert_eq!(server.sql(&copy, owner).trim(), "other");
        let team = format!("team_{source}");
        server.sql("postgres", &format!("create role {team} superuser"));
        let args = ["restore", source, "--to", &team, "--role", &team];
        let run = world.run(&[args.as_slice(), &["--no-owner", "--no-privileges"]].concat());
        assert_eq!(run.code, Some(0));
        assert_eq!(server.sql(&team, owner).trim(), team);
    }
}

#[test]
fn globals_are_judged_by_every_error_and_need_no_superuser() {
    let server = Postgres::start();
    server.sql("postgres", "create role zoe; create role \"error: 42710\"");
    for n in 0..90 {
        server.sql("postgres", &format!("create role r{n:02}"));
    }
    // That a role is a member already is a notice, and no error.
    server.sql("postgres", "grant r00 to r01");
    let world = world(&server, "[databases.roles]\nglobals = true\n");
    world.write("guest", "guest\n");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    server.sql(
        "postgres",
        "create role maker login createrole password 'guest'",
    );
    let to = url(&server, "maker", "postgres");
    let restore = || world.run(&["restore", "roles", "--to", &to, "--password-file", "guest"]);
    // The first role is a superuser, which this one may not change; some 90 harmless complaints
    // follow.
    server.sql("postgres", "drop role zoe");
    let run = restore();
    assert!(
        run.code == Some(1) && run.stderr.contains(":  42501: "),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr
            .contains("statements failed, and the others were carried out")
    );
    let made = "select count(*) from pg_roles where rolname = 'zoe'";
    assert_eq!(
        server.sql("postgres", made).trim(),
        "1",
        "what the rights allow is restored"
    );
    let superuser = ["restore", "roles"];
    let run = world.run(&superuser);
    assert_eq!(run.code, Some(0), "that all is there already is no error");
    // The first one fails, and all that is heard behind it is harmless.
    let inventory = std::fs::read_to_string(world.path("tapline.toml")).unwrap();
    world.write("tapline.toml", format!("{inventory}tools = \"tools\"\n"));
    std::fs::create_dir(world.path("tools")).unwrap();
    let psql = "#!/bin/sh\n{ echo 'drop role nobody_is_called_so;'; cat; } | psql \"$@\"\n";
    world.write("tools/psql", psql);
    world.executable("tools/psql");
    let run = world.run(&superuser);
    assert!(
        run.code == Some(1) && run.stderr.contains(":  42704: "),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("1 statements failed"), "{}", run.stderr);
}

#[test]
fn what_a_killed_restore_or_drill_leaves_is_found_and_removed_by_the_next() {
    let server = Postgres::start();
    server.sql("postgres", "create database shop");
    server.sql(
        "shop",
        "create table t as select g as id, md5(g::text) as note from generate_series(1, 300000) g",
    );
    let world = world(&server, "[databases.shop]\n");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    server.sql("shop", "insert into t values (0, 'precious')");
    server.sql("postgres", "create database \"x_tapline_new_00000000\"");
    // As one that is killed right when its database is there.
    server.sql(
        "postgres",
        "create database \"y_tapline_new_00000000\" connection limit 1952542828",
    );
    for args in [
        ["restore", "shop", "--overwrite"],
        ["verify", "shop", "--drill"],
    ] {
        let mut running = world.tapline(&args).stdout(Stdio::null()).spawn().unwrap();
        let loading = "select count(*) from pg_stat_progress_copy where datname ~ '^shop_tapline'";
        server.wait_for_copy();
        // One that is at work is nobody's to remove.
        if args[0] == "restore" {
            let pid = running.id().to_string();
            let stop = std::process::Command::new("kill")
                .args(["-STOP", &pid])
                .status();
            assert!(stop.unwrap().success());
            // Not a drill: DROP DATABASE waits for every session, also for one that is stopped.
            assert_eq!(
                world.run(&["restore", "shop", "--to", "third"]).code,
                Some(0)
            );
            assert!(running.try_wait().unwrap().is_none(), "it goes on");
        }
        running.kill().unwrap();
        running.wait().unwrap();
        wait_until(|| server.sql("postgres", loading).trim() == "0");
    }
    assert_eq!(
        server.sql("shop", "select note from t where id = 0").trim(),
        "precious"
    );
    // The drill has removed what the restores had left, and left its own.
    assert_eq!(server.sql("postgres", LEFT).trim(), "2");
    let run = world.run(&["restore", "shop", "--to", "copy"]);
    assert!(run.code == Some(0) && run.stderr.contains("which a killed restore had left"));
    assert!(
        run.stderr
            .contains("look at it, and DROP DATABASE \"x_tapline_new_00000000\"")
    );
    assert_eq!(
        server.sql("postgres", LEFT).trim(),
        "1",
        "without a mark it is only named"
    );
}

#[test]
fn a_drill_removes_its_database_whatever_was_in_it() {
    let server = Postgres::start_with(&["-c", "wal_level=logical"]);
    server.sql("postgres", "create database shop");
    server.sql("shop", "create table t (x int)");
    server.sql(
        "shop",
        "create subscription s connection 'host=127.0.0.1 port=1 dbname=x' publication p
         with (connect = false, slot_name = 'x')",
    );
    let world = world(
        &server,
        "[databases.plain]\n[databases.custom]\nformat = \"custom\"\n",
    );
    assert_eq!(world.run(&["backup"]).code, Some(0));
    for source in ["plain", "custom"] {
        let drill = world.run(&["verify", source, "--drill"]);
        assert!(drill.code == Some(0) && drill.stdout.contains("1 table"));
        assert_eq!(server.sql("postgres", LEFT).trim(), "0");
    }
    let refused = world.run(&["restore", "plain", "--overwrite"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("has subscriptions (s)"));
}

#[test]
fn a_dump_that_names_a_database_reaches_none() {
    let server = Postgres::start();
    server.sql("postgres", "create database shop; ");
    server.sql("shop", "create table t (x int)");
    let world = world(&server, "[databases.shop]\ndump_tool = \"./naming\"\n");
    world.write(
        "naming",
        "#!/bin/sh\nset -e\npg_dump \"$@\"\necho 'ALTER DATABASE shop SET work_mem = 100;'\n",
    );
    world.executable("naming");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let run = world.run(&["restore", "shop", "--to", "copy"]);
    assert!(run.code == Some(1) && run.stderr.contains("names a database itself"));
    assert_eq!(
        server
            .sql("postgres", "select count(*) from pg_db_role_setting")
            .trim(),
        "0"
    );
    assert_eq!(server.sql("postgres", LEFT).trim(), "0");
}

/// Whoever owns a database says where its sessions look for names, and could have a superuser run
/// what he has put there.
#[test]
fn nothing_of_a_databases_own_answers_or_does_what_is_asked_of_its_server() {
    let server = Postgres::start();
    server.sql("postgres", "create database shop");
    server.sql(
        "shop",
        "create table t as select 1 as x; create schema trap;
         create function trap.sprung() returns int language plpgsql as $$ begin
           raise 'the trap is sprung'; end $$;
         create view trap.pg_class as select trap.sprung();
         create view trap.pg_database as select trap.sprung();
         create view trap.pg_settings as select trap.sprung();
         create view trap.pg_namespace as select trap.sprung();
         create function trap.current_setting(text) returns text language sql as
           'select trap.sprung()::text';
         create function trap.set_config(text, text, boolean) returns text language sql as
           'select trap.sprung()::text';
         create function trap.equal(name, name) returns bool language sql as
           'select trap.sprung() = 1';
         create operator trap.= (leftarg = name, rightarg = name, function = trap.equal);
         alter database shop set search_path = trap, pg_catalog",
    );
    let world = world(
        &server,
        "[databases.plain]\n[databases.several]\nparallel = 2\n\
         [databases.custom]\nformat = \"custom\"\n",
    );
    let good = |args: &[&str]| {
        let run = world.run(args);
        assert_eq!(run.code, Some(0), "{args:?}");
        assert!(!run.words().contains("sprung"), "{args:?}");
    };
    good(&["check"]);
    good(&["backup"]);
    for source in ["plain", "several", "custom"] {
        good(&["restore", source, "--overwrite"]);
        good(&["restore", source, "--overwrite", "--in-place"]);
        good(&["restore", source, "--overwrite", "--table", "t"]);
    }
    good(&["verify", "--drill"]);
    assert_eq!(server.sql("shop", "select x from public.t").trim(), "1");
}

#[test]
fn killed_at_any_instant_a_restore_leaves_the_old_database_or_the_new_one() {
    let server = Postgres::start();
    server.sql("postgres", "create database shop");
    server.sql(
        "shop",
        "create table t as select g as id, md5(g::text) as note from generate_series(1, 60000) g;
         create index on t (note); select lo_from_bytea(0, 'x')",
    );
    let world = world(
        &server,
        "[databases.plain]\n[databases.custom]\nformat = \"custom\"\n",
    );
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let holds = "select md5(string_agg(t::text, ',' order by id)), (select count(*) from pg_indexes
                 where tablename = 't'), (select count(*) from pg_largeobject_metadata) from t";
    let new = server.sql("shop", holds);
    let make_old = "insert into t values (0, 'precious')";
    server.sql("shop", make_old);
    let old = server.sql("shop", holds);
    super::restore_kills::at_random_instants(
        "postgres",
        &world,
        |n| {
            let source = ["plain", "custom"][n % 2];
            vec!["restore", source, "--overwrite"]
        },
        || {
            let alone = "select count(*) from pg_stat_activity where application_name = 'tapline'";
            wait_until(|| server.sql("postgres", alone).trim() == "0");
            let found = server.sql("shop", holds);
            assert!(
                found == old || found == new,
                "neither the old one nor the new one"
            );
            if found == new {
                server.sql("shop", make_old);
            }
            found == new
        },
    );
    assert_eq!(
        world.run(&["restore", "plain", "--overwrite"]).code,
        Some(0)
    );
    assert_eq!(server.sql("shop", holds), new);
    let left = server.sql("postgres", LEFT);
    assert_eq!(left.trim(), "0", "the next one leaves nothing");
}
