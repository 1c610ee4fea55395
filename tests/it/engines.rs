//! Servers that are newer than this machine's, and one that it has not: `tests/engines.sh` unpacks them
//! and runs these.

use super::corpus::{
    Dialect, POSTGRES_WAYS, by_hand, every_kind_comes_back_on_every_way, make_postgres,
    postgres_look, same, staged, world,
};
use super::restore_kills::at_random_instants;
use super::servers::{Mariadb, Mysql, PASSWORD, Postgres};
use super::world::{World, wait_until};

/// What of a database follows from the version of the server that it was made on: constraints that
/// are no null's have names since 18.
fn lasting(look: &str) -> String {
    let is_lasting = |line: &&str| !(line.starts_with("constraint|") && line.contains("|n|"));
    let lines: Vec<_> = look.lines().filter(is_lasting).collect();
    lines.join("\n")
}

fn postgres_comes_back_on_a_newer_server(user: &str) {
    let new = Postgres::start();
    let old = Postgres::start_of_release();
    // Its rows are what they were, and the rest as if it had been made there, in that server's words.
    let [expected, before] = [&new, &old].map(|server| {
        make_postgres(server, user);
        lasting(&postgres_look(server, "corpus", true))
    });
    let rows = |look: &str| look.find("\nrows|").expect("they come last");
    let expected = expected[..rows(&expected)].to_owned() + &before[rows(&before)..];
    new.sql("postgres", "drop database corpus");
    new.sql(
        "postgres",
        r#"drop role corpus_owner; drop role corpus_reader; drop role "corpus ""odd"" %""#,
    );
    new.sql("postgres", "drop role if exists corpus_user");
    let version = old.sql("postgres", "show server_version_num");
    let version: u32 = version.trim().parse().unwrap();
    let to = |user: &str, database: &str| {
        format!("postgres://{user}@127.0.0.1:{}/{database}", new.port())
    };
    let password = ["--password-file", "password"];
    let globals = world(
        "postgres",
        "admin",
        old.port(),
        "[databases.roles]\nglobals = true\n",
    );
    assert_eq!(globals.run(&["backup"]).code, Some(0));
    let to_new = to("admin", "postgres");
    let args = [&["restore", "roles", "--to", &to_new][..], &password].concat();
    assert_eq!(globals.run(&args).code, Some(0));
    // By the clients of its own version, and by those of the newer one.
    let own = format!("tools = \"/usr/lib/postgresql/{}/bin\"\n", version / 10_000);
    for tools in [&own, ""] {
        let world = world(
            "postgres",
            user,
            old.port(),
            &format!("{tools}{POSTGRES_WAYS}"),
        );
        let staged = format!("plain@{}", staged(&world));
        assert_eq!(world.run(&["backup"]).code, Some(0));
        for source in [&staged, "plain", "custom", "zstd", "sealed"] {
            let to = to(user, "copy");
            let key = ["--identity", "age.key"];
            let more = if source == "sealed" { &key[..] } else { &[] };
            let args = [&["restore", source, "--to", &to][..], &password, more].concat();
            assert_eq!(world.run(&args).code, Some(0), "{source}");
            let there = lasting(&postgres_look(&new, "copy", true));
            same(&expected, &there, source);
            new.sql("postgres", "drop database copy");
        }
        let make = format!("create database by_hand template template0 owner {user}");
        new.sql("postgres", &make);
        let mut psql = new.client("psql", "by_hand");
        psql.env("PGUSER", user)
            .args(["-Xq", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1"]);
        by_hand(&world, "plain", psql);
        new.sql("postgres", "drop database by_hand");
        // What the newer one's clients have dumped goes back to where it is from.
        assert_eq!(
            world.run(&["restore", "plain", "--overwrite"]).code,
            Some(0)
        );
        let back = lasting(&postgres_look(&old, "corpus", true));
        same(&before, &back, "into itself");
    }
}

#[test]
#[ignore = "tests/engines.sh runs it"]
fn all_of_an_older_postgres_comes_back_on_a_newer_one() {
    postgres_comes_back_on_a_newer_server("admin");
}

#[test]
#[ignore = "tests/engines.sh runs it"]
fn all_of_any_user_of_an_older_postgres_comes_back_on_a_newer_one() {
    postgres_comes_back_on_a_newer_server("corpus_user");
}

/// What has come with PostgreSQL 16 to 18.
#[test]
#[ignore = "tests/engines.sh runs it"]
fn what_newer_versions_of_postgres_have_comes_back() {
    let server = Postgres::start();
    server.sql(
        "postgres",
        "create database modern template template0 locale_provider builtin builtin_locale 'C.UTF-8'
           lc_collate 'C' lc_ctype 'C'",
    );
    server.sql(
        "postgres",
        "create database ruled template template0 locale_provider icu icu_locale 'und'
           icu_rules '&b < a' lc_collate 'C' lc_ctype 'C'",
    );
    let make = "create extension btree_gist; create extension citext;
         create table t (id int constraint told not null, at daterange, twice int generated always as (id * 2) virtual,
           x text collate pg_unicode_fast, constraint period primary key (id, at without overlaps));
         create table u (id int, at daterange, constraint leads foreign key (id, period at)
           references t (id, period at), y int, constraint slack check (y > 0) not enforced);
         insert into t values (1, '[2024-01-01,2025-01-01)', default, 'ß'), (1, '[2025-01-01,2026-01-01)', default, 'a');
         insert into u values (1, '[2024-02-01,2024-03-01)', -1);
         alter table u add constraint later not null id not valid;
         create table parts (id int generated always as identity, k text) partition by list (k);
         create table one partition of parts for values in ('a'); insert into parts (k) values ('a'), ('a');
         create view v with (security_invoker) as select merge_action from (select 1 as merge_action) s;
         create statistics st on id, y from u; analyze";
    for database in ["modern", "ruled"] {
        server.sql(database, make);
    }
    let world = World::new(&format!(
        "[defaults]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\ndatabase = \"modern\"\n[databases.plain]\n\
         [databases.parallel]\nparallel = 2\n[databases.custom]\nformat = \"custom\"\n\
         [databases.ruled]\ndatabase = \"ruled\"\n\
         [databases.known]\noptions = [\"--statistics\"]\n",
        server.port()
    ));
    world.write("password", PASSWORD);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let more = "select datlocprovider, datlocale, daticurules from pg_database where datname = current_database();
         select conrelid::regclass, conname, contype, convalidated, conenforced, conperiod from pg_constraint where conrelid <> 0 order by 1::text, 2;
         select * from t order by 2; select * from u; select * from parts order by 1";
    let look =
        |database: &str| postgres_look(&server, database, true) + &server.sql(database, more);
    for (source, database) in [
        ("plain", "modern"),
        ("parallel", "modern"),
        ("custom", "modern"),
        ("known", "modern"),
        ("ruled", "ruled"),
    ] {
        let before = look(database);
        for args in [&["--to", "copy"][..], &["--overwrite"]] {
            let run = world.run(&[&["restore", source][..], args].concat());
            assert_eq!(run.code, Some(0), "{source}");
        }
        same(&before, &look("copy"), source);
        same(&before, &look(database), source);
        if source == "known" {
            let known = "select count(*) > 0 from pg_stats where tablename = 'u'";
            assert_eq!(server.sql("copy", known).trim(), "t");
        }
        server.sql("postgres", "drop database copy");
    }
}

#[test]
#[ignore = "tests/engines.sh runs it"]
fn all_of_an_older_mariadb_comes_back_on_a_newer_one() {
    let new = Mariadb::start();
    let old = Mariadb::start_of_release();
    let users = ["", ""];
    let dialect = |port, client| Dialect {
        engine: "mariadb",
        port,
        client,
        by_sequence: "",
        users,
    };
    let (of_old, of_new) = (|| old.client(), || new.client());
    let (from, to) = (dialect(old.port(), &of_old), dialect(new.port(), &of_new));
    from.make();
    new.sql("create user `corpus ``odd`@`%`");
    let before = from.look("corpus");
    // Versions sum computed columns otherwise.
    let by_any = |look: &str| {
        let lines = look.lines().filter(|line| !line.starts_with("computed\t"));
        lines.collect::<Vec<_>>().join("\n")
    };
    // Newer clients insist on encryption, which the older server has not.
    for tools in ["tools = \"/usr/bin\"\n", "ssl_mode = \"disabled\"\n"] {
        let ways = format!("{tools}[databases.plain]\n");
        let world = world("mariadb", "admin", old.port(), &ways);
        let staged = staged(&world);
        assert_eq!(world.run(&["backup"]).code, Some(0));
        let url = format!("mariadb://admin@127.0.0.1:{}/copy", new.port());
        for source in [&format!("plain@{staged}"), "plain"] {
            let args = [
                "restore",
                source,
                "--to",
                &url,
                "--password-file",
                "password",
            ];
            assert_eq!(world.run(&args).code, Some(0), "{source}");
            let there = to.look("copy");
            same(&by_any(&before), &by_any(&there), source);
            new.sql("drop database copy");
        }
        assert_eq!(
            world.run(&["restore", "plain", "--overwrite"]).code,
            Some(0)
        );
        same(&before, &from.look("corpus"), "into itself");
    }
}

#[test]
#[ignore = "tests/engines.sh runs it"]
fn every_kind_of_object_of_mysql_comes_back_on_every_way() {
    let server = Mysql::start(&["--log-bin-trust-function-creators=ON"]);
    every_kind_comes_back_on_every_way(&Dialect {
        engine: "mysql",
        port: server.port(),
        client: &|| server.client(),
        by_sequence: "",
        users: [
            "Who backs MySQL up",
            "Who restores MySQL, the database `shop`",
        ],
    });
}

fn mysql_world(server: &Mysql, entries: &str) -> World {
    World::of_shop("mysql", server.port(), entries)
}

#[test]
#[ignore = "tests/engines.sh runs it"]
fn where_mysql_counts_transactions_a_database_comes_back() {
    let server = Mysql::start(&["--gtid-mode=ON", "--enforce-gtid-consistency=ON"]);
    server.sql("create database shop; create table shop.t (x int primary key); insert into shop.t values (1)");
    let world = mysql_world(&server, "[databases.shop]\n");
    assert_eq!(world.run(&["check"]).code, Some(0));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    server.sql("insert into shop.t values (2)");
    for args in [
        &["restore", "shop", "--overwrite"][..],
        &["restore", "shop", "--to", "copy"],
        &["verify", "--drill"],
    ] {
        assert_eq!(world.run(args).code, Some(0), "{args:?}");
    }
    assert_eq!(server.sql("select x from shop.t").trim(), "1");
    assert_eq!(server.sql("select x from copy.t").trim(), "1");
}

#[test]
#[ignore = "tests/engines.sh runs it"]
fn a_table_and_parts_of_a_mysql_database_come_back() {
    let server = Mysql::start(&[]);
    server.sql(
        "create database shop; use shop; create table parent (id int primary key);
         create table child (id int primary key, parent int, foreign key (parent) references parent (id));
         insert into parent values (1); insert into child values (1, 1);
         create trigger tr before insert on child for each row set @x = 1",
    );
    let world = mysql_world(&server, "[databases.shop]\n");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    server.sql("use shop; insert into child values (2, 1)");
    let table = ["restore", "shop", "--table", "child", "--overwrite"];
    assert_eq!(world.run(&table).code, Some(0));
    let look = "use shop; select * from child; select trigger_name from information_schema.triggers
         where trigger_schema = 'shop'; select constraint_name, unique_constraint_schema
         from information_schema.referential_constraints where constraint_schema = 'shop'";
    assert_eq!(server.sql(look), "1\t1\ntr\nchild_ibfk_1\tshop\n");
    let definitions = ["restore", "shop", "--schema-only", "--to", "copy"];
    assert_eq!(world.run(&definitions).code, Some(0));
    assert_eq!(server.sql("select count(*) from copy.child").trim(), "0");
    let rows = ["restore", "shop", "--data-only", "--to", "copy"];
    assert_eq!(world.run(&rows).code, Some(0));
    assert_eq!(server.sql("select count(*) from copy.child").trim(), "1");
}

/// What `mariadb-dump` writes of a MySQL server's users, MySQL does not understand.
#[test]
#[ignore = "tests/engines.sh runs it"]
fn that_users_and_grants_of_mysql_do_not_come_back_is_said_with_the_way_out() {
    let server = Mysql::start(&[]);
    let world = mysql_world(&server, "[databases.users]\nglobals = true\n");
    for verb in ["check", "backup"] {
        let words = world.run(&[verb]).words();
        assert!(words.contains("SHOW CREATE USER"), "{verb}");
    }
}

#[test]
#[ignore = "tests/engines.sh runs it"]
fn killed_at_any_instant_a_restore_leaves_the_old_mysql_database_or_the_new_one() {
    let server = Mysql::start(&["--log-bin-trust-function-creators=ON"]);
    server.sql(
        "create database shop; use shop; create table big (id int primary key, note text);
         set cte_max_recursion_depth = 100000;
         insert into big with recursive n (n) as (select 1 union all select n + 1 from n where n < 30000)
           select n, sha2(n, 256) from n;
         create table mine (id int primary key) engine = myisam; insert into mine values (1);
         create view v as select count(*) as n from big; create procedure p() select 1;
         create trigger tr before insert on big for each row set @x = 1",
    );
    let world = mysql_world(&server, "[databases.shop]\n");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let look = || {
        server.sql(
            "use shop; checksum table big, mine; select * from v; call p();
             select trigger_name from information_schema.triggers where trigger_schema = 'shop'",
        )
    };
    let new = look();
    let make_old = "use shop; insert into big values (0, 'precious'); drop procedure p;
         create procedure p() select 'old'; create trigger tr2 before delete on mine for each row set @x = 1";
    server.sql(make_old);
    let old = look();
    at_random_instants(
        "mysql",
        &world,
        |_| vec!["restore", "shop", "--overwrite"],
        || {
            let others = "select count(*) from information_schema.processlist where user = 'admin'";
            wait_until(|| server.sql(others).trim() == "0");
            let found = look();
            assert!(found == old || found == new, "{found}");
            if found == new {
                server.sql(make_old);
            }
            found == new
        },
    );
    assert_eq!(world.run(&["restore", "shop", "--overwrite"]).code, Some(0));
    assert_eq!(look(), new);
}
