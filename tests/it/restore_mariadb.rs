//! A MariaDB database that is replaced is the old one or the new one, and no statement of a dump
//! reaches another.

use std::process::Stdio;
use std::time::Duration;

use super::servers::Mariadb;
use super::world::{World, wait_until};

const LEFT: &str =
    "select count(*) from information_schema.schemata where schema_name regexp 'tapline'";

fn world(server: &Mariadb, entries: &str) -> World {
    World::of_shop("mariadb", server.port(), entries)
}

/// A database with every kind of thing in it, whose routine is older than its character set.
const EVERYTHING: &str = "\
create database shop character set latin1;
use shop;
create procedure p(x varchar(10)) select concat(x, 'ä');
alter database shop character set utf8mb4 collate utf8mb4_unicode_ci;
create table parent (id int primary key, note text) engine=InnoDB;
create table child (id int primary key, parent int,
  constraint fk_parent foreign key (parent) references parent (id)) engine=InnoDB;
create table `it's ``odd``` (a int, b blob, fulltext (note), note text) engine=MyISAM;
create sequence s start with 100;
insert into parent values (1, 'one; drop table x;'), (2, 'zwei ä');
insert into child values (10, 1), (20, 2);
insert into `it's ``odd``` values (1, x'00ff27', 'word');
create view v as select p.note, c.id from parent p join child c on c.parent = p.id;
create view `w``w` as select count(*) as n from v;
create function f() returns int deterministic return 42;
create trigger tr before insert on parent for each row set new.note = concat(new.note, '!');
create event awake on schedule every 1 second do insert into watch.log values (database());
create event asleep on schedule every 1 second disable do insert into watch.log values ('no');
";

/// All of that, in words.
fn everything(server: &Mariadb, database: &str) -> String {
    let quoted = database.replace('`', "``");
    server.sql(&format!(
        "use `{quoted}`; select * from parent order by id; select * from child order by id;
         select a, hex(b) from `it's ``odd```; select * from v order by 2; select * from `w``w`;
         select f(); call p('x'); show create procedure p; show create function f;
         select trigger_name, event_manipulation, action_timing, action_statement,
         definer, sql_mode, database_collation from information_schema.triggers
         where trigger_schema = database(); select table_name, engine, table_collation from
         information_schema.tables where table_schema = database() order by 1;
         select event_name, status, definer, sql_mode from information_schema.events
         where event_schema = database() order by 1;
         select constraint_name, table_name, referenced_table_name, unique_constraint_schema = database()
         from information_schema.referential_constraints where constraint_schema = database();
         select default_character_set_name, default_collation_name from information_schema.schemata
         where schema_name = database(); show create view v; show create view `w``w`;
         select nextval(s) > 99"
    ))
}

#[test]
fn a_database_is_replaced_in_one_step_and_nothing_else_on_the_server_is_touched() {
    let server = Mariadb::start();
    server.sql("create database watch; create table watch.log (t varchar(64))");
    server.sql(EVERYTHING);
    let world = world(&server, "[databases.shop]\n");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let original = everything(&server, "shop");
    // Under another name: the original is not told to change its character set.
    let charset = "select default_character_set_name from information_schema.schemata \
                   where schema_name = 'shop'";
    server.sql("create database `co``py` character set utf8mb4 collate utf8mb4_unicode_ci");
    assert_eq!(
        world.run(&["restore", "shop", "--to", "co`py"]).code,
        Some(0)
    );
    assert_eq!(server.sql(charset).trim(), "utf8mb4");
    assert_eq!(everything(&server, "co`py"), original);
    server.sql("drop database `co``py`");
    // A drill runs no events.
    server.sql("truncate watch.log");
    let drill = world.run(&["verify", "shop", "--drill"]);
    assert!(drill.code == Some(0) && drill.stdout.contains("3 tables"));
    let other = "select count(*) from watch.log where t <> 'shop'";
    assert_eq!(server.sql(other).trim(), "0");
    assert_eq!(server.sql(charset).trim(), "utf8mb4");

    server.sql(
        "use shop; insert into parent values (3, 'new'); drop view v; drop procedure p;
         create table more (x int references parent (id)); create procedure q() select 1;
         create trigger tr2 after insert on child for each row set @x = 1; drop event asleep;
         create event third on schedule every 1 year do select 1; create view u as select 1",
    );
    assert_eq!(world.run(&["restore", "shop", "--overwrite"]).code, Some(0));
    assert_eq!(everything(&server, "shop"), original);
    let rest =
        "select (select count(*) from information_schema.tables where table_schema = 'shop'),
        (select count(*) from information_schema.routines where routine_schema = 'shop'),
        (select count(*) from information_schema.triggers where trigger_schema = 'shop'),
        (select count(*) from information_schema.events where event_schema = 'shop')";
    assert_eq!(
        server.sql(rest).trim(),
        "6\t2\t1\t2",
        "and nothing that was new"
    );
    assert_eq!(server.sql(LEFT).trim(), "0");
    // Where it was not, and where its name is free.
    server.sql("drop database shop");
    assert_eq!(world.run(&["restore", "shop"]).code, Some(0));
    assert_eq!(server.sql(rest).trim(), "6\t2\t1\t2");
}

#[test]
fn what_cannot_be_switched_is_refused_with_the_way_out() {
    let server = Mariadb::start();
    server.sql(
        "create database shop; create database other; create table shop.t (id int primary key);
         create table other.u (x int, foreign key (x) references shop.t (id));
         insert into shop.t values (1); create user app identified by 'guest';
         grant all on shop.* to app; grant all on free.* to app",
    );
    let world = world(&server, "[databases.shop]\n");
    world.write("guest", "guest");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    server.sql("insert into shop.t values (2)");
    let refused = world.run(&["restore", "shop", "--overwrite"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("foreign keys of other databases"));
    assert!(refused.stderr.contains("other.u") && refused.stderr.contains("--in-place"));
    let url = format!("mysql://app@127.0.0.1:{}/shop", server.port());
    let args = [
        "restore",
        "shop",
        "--to",
        &url,
        "--password-file",
        "guest",
        "--overwrite",
    ];
    server.sql("drop database other");
    let refused = world.run(&args);
    assert!(refused.code == Some(1) && refused.stderr.contains("may not create"));
    assert_eq!(server.sql("select count(*) from shop.t").trim(), "2");
    let run = world.run(&[args.as_slice(), &["--replace-in-place"]].concat());
    assert!(run.code == Some(0) && run.stderr.contains("what the target held is gone"));
    assert_eq!(server.sql("select count(*) from shop.t").trim(), "1");
    // Another session in the middle of a transaction: the switch waits, then all is as it was.
    server.sql("create trigger shop.tr before insert on shop.t for each row set @a = 1");
    server.sql("insert into shop.t values (2)");
    let mut holder = server
        .client()
        .args(["-e", "begin; select * from shop.t; select sleep(120)"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let sleeping =
        "select count(*) from information_schema.processlist where info like '%sleep(120)'";
    wait_until(|| server.sql(sleeping).trim() != "0");
    let wait = ["restore", "shop", "--overwrite", "--lock-timeout", "8s"];
    let failed = world.run(&wait);
    assert!(failed.code == Some(1) && failed.stderr.contains("Lock wait timeout"));
    assert!(
        failed
            .stderr
            .contains("waited (--lock-timeout) for connection")
    );
    assert_eq!(server.sql("select count(*) from shop.t").trim(), "2");
    let triggers = "select count(*) from information_schema.triggers where trigger_schema = 'shop'";
    assert_eq!(server.sql(triggers).trim(), "1");
    assert_eq!(server.sql(LEFT).trim(), "0");
    holder.kill().unwrap();
    holder.wait().unwrap();
    let system = world.run(&["restore", "shop", "--to", "mysql", "--overwrite"]);
    assert!(system.code == Some(1) && system.stderr.contains("the server's own"));
}

#[test]
fn definers_that_are_gone_and_statements_about_the_server_are_left_out() {
    let server = Mariadb::start();
    server.sql(
        "create database shop; create user gone; grant all on shop.* to gone; use shop;
         create table t (id int);
         create definer=gone view v as select * from t;
         create definer=gone procedure p() select 1",
    );
    server.sql("create user app identified by 'guest'; grant all on `copy%`.* to app");
    let world = world(&server, "[databases.shop]\ndump_tool = \"./gtid\"\n");
    world.write("guest", "guest");
    // As Oracle's mysqldump writes it where GTIDs are on, and as --master-data does.
    world.write(
        "gtid",
        "#!/bin/sh\nset -e\necho 'SET @@SESSION.SQL_LOG_BIN= 0;'\n\
         echo \"SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ 'x:1-5';\"\n\
         echo \"CHANGE MASTER TO MASTER_LOG_FILE='x', MASTER_LOG_POS=4;\"\nexec mariadb-dump \"$@\"\n",
    );
    world.executable("gtid");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    server.sql("drop user gone");
    let url = format!("mysql://app@127.0.0.1:{}/copy", server.port());
    let args = ["restore", "shop", "--to", &url, "--password-file", "guest"];
    let refused = world.run(&args);
    assert!(refused.code == Some(1) && refused.stderr.contains("--skip-definer"));
    assert_eq!(server.sql(LEFT).trim(), "0");
    let run = world.run(&[args.as_slice(), &["--skip-definer"]].concat());
    assert_eq!(run.code, Some(0));
    let definer = "select definer from information_schema.views where table_schema = 'copy'";
    assert_eq!(server.sql(definer).trim(), "app@%");
    assert_eq!(server.sql("select count(*) from copy.v").trim(), "0");
    assert_eq!(server.sql("show slave status").trim(), "");
}

#[test]
fn history_and_grants_on_routines_come_back_by_a_user_who_is_no_superuser() {
    let server = Mariadb::start();
    server.sql(
        "create database shop; create user keeper identified by 'guest'; create user caller;
         create role callers; use shop;
         grant all on shop.* to keeper; grant all on `%\\_tapline\\_%`.* to keeper;
         grant select on mysql.procs_priv to keeper; grant grant option on shop.* to keeper;
         create table prices (id int primary key, price int) with system versioning;
         insert into prices values (1, 10); update prices set price = 20; delete from prices;
         insert into prices values (1, 30);
         create definer = keeper procedure p() select 'old';
         create definer = keeper function `f``'` () returns int return 1;
         grant execute on procedure p to caller; grant execute, alter routine on function `f``'`
         to callers with grant option; grant select (id), insert on prices to caller",
    );
    let world = World::new(&format!(
        "[databases.shop]\nengine = \"mariadb\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"keeper\"\n\
         password = {{ file = \"password\" }}\nstrict = true\n",
        server.port()
    ));
    world.write("password", "guest");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let look = || {
        server.sql(
            "select *, row_start, row_end from shop.prices for system_time all order by row_start;
             show grants for caller; show grants for callers; call shop.p()",
        )
    };
    let before = look();
    assert_eq!(before.matches("\t10\t").count(), 1, "{before}");
    server.sql(
        "update shop.prices set price = 40; drop procedure shop.p; use shop;
                create definer = keeper procedure p() select 'new';
                grant execute on procedure p to caller",
    );
    let run = world.run(&["restore", "shop", "--overwrite"]);
    assert_eq!(run.code, Some(0));
    assert_eq!(look(), before);
    // Where it cannot be kept, that is said.
    server.sql(
        "use shop; create table by_transaction (x int, s bigint unsigned generated always as row
         start, e bigint unsigned generated always as row end, period for system_time (s, e))
         with system versioning engine = innodb",
    );
    let run = world.run(&["backup"]);
    assert!(run.code == Some(1) && run.stdout.contains("history of 2 system-versioned tables"));
}

/// What a user sees who logs in.
fn login(server: &Mariadb, user: &str, password: &str) -> String {
    let output = std::process::Command::new("mariadb")
        .args([
            "--no-defaults",
            "-h127.0.0.1",
            "-N",
            "-e",
            "select current_role()",
        ])
        .arg(format!("-P{}", server.port()))
        .arg(format!("-u{user}"))
        .arg(format!("-p{password}"))
        .output()
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn users_roles_and_grants_come_back_and_every_statement_is_judged() {
    let server = Mariadb::start();
    server.sql(
        "grant all on *.* to admin@'%' with grant option;
         grant proxy on ''@'%' to admin@'%' with grant option;
         create database shop; create role globals_r; grant globals_r to admin@'%' with admin option; grant select on shop.* to globals_r;
         create user `it's` identified by 'sesame'; grant globals_r to `it's`;
         set default role globals_r for `it's`; grant insert on shop.* to `it's` with grant option;
         create user maker identified by 'guest'; grant create user on *.* to maker;
         grant select on shop.* to maker with grant option",
    );
    let world = world(
        &server,
        "[databases.users]\nglobals = true\n[databases.shop]\n",
    );
    world.write("guest", "guest");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert_eq!(world.manifest("users").dump_format, "globals");
    assert_eq!(world.run(&["check"]).code, Some(0));
    assert_eq!(world.run(&["verify", "users", "--drill"]).code, Some(0));
    let look = || server.sql("show grants for `it's`; show grants for globals_r");
    let before = look();
    server.sql("drop user `it's`; drop role globals_r");
    assert_eq!(world.run(&["restore", "users"]).code, Some(0));
    assert_eq!(look(), before);
    assert_eq!(
        world.run(&["restore", "users"]).code,
        Some(0),
        "that all is there is no error"
    );
    let login = login(&server, "it's", "sesame");
    assert!(login.contains("globals_r"), "{login}");
    // Whoever may less restores less, and hears of it.
    server.sql("drop user `it's`; drop role globals_r");
    let url = format!("mysql://maker@127.0.0.1:{}/shop", server.port());
    let run = world.run(&["restore", "users", "--to", &url, "--password-file", "guest"]);
    assert!(
        run.code == Some(1)
            && run
                .stderr
                .contains("statements failed, and the others were")
    );
    assert!(run.stderr.contains("Access denied") && !run.stderr.contains("sesame"));
    assert!(
        look().contains("GRANT USAGE ON *.* TO `it's`"),
        "what the rights allow"
    );
}

#[test]
fn killed_at_any_instant_a_restore_leaves_the_old_database_or_the_new_one() {
    let server = Mariadb::start();
    server.sql("create database watch; create table watch.log (t varchar(64))");
    server.sql(EVERYTHING);
    server.sql(
        "use shop; drop event awake; create table big (id int primary key, note text);
        insert into big select seq, md5(seq) from seq_1_to_30000",
    );
    let world = world(&server, "[databases.shop]\n");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let look = || {
        everything(&server, "shop")
            + &server.sql(
                "use shop; checksum table big, parent, child;
            select trigger_name from information_schema.triggers where trigger_schema = 'shop'",
            )
    };
    let make_old = "use shop; insert into parent values (3, 'precious');
        create trigger tr2 after insert on child for each row set @x = 1; drop view `w``w`;
        create view `w``w` as select 'precious' as n";
    let new = look();
    server.sql(make_old);
    let old = look();
    super::restore_kills::at_random_instants(
        "mariadb",
        &world,
        |_| vec!["restore", "shop", "--overwrite"],
        || {
            // The switch does not end with the restore.
            wait_until(|| {
                let others = "select count(*) from information_schema.processlist
                    where user = 'admin'";
                server.sql(others).trim() == "0"
            });
            let found = look();
            assert!(
                found == old || found == new,
                "neither the old one nor the new one:\n{found}\nold:\n{old}\nnew:\n{new}"
            );
            if found == new {
                server.sql(make_old);
            }
            found == new
        },
    );
    assert_eq!(world.run(&["restore", "shop", "--overwrite"]).code, Some(0));
    assert_eq!(look(), new);
    assert_eq!(server.sql(LEFT).trim(), "0", "the next one leaves nothing");
}

/// After the tables have moved, what was there before is in a database that only its name tells
/// from what a killed restore leaves: no later restore may take it for that.
#[test]
fn what_a_switch_that_failed_has_moved_is_kept_by_later_restores() {
    let server = Mariadb::start();
    server.sql("create database shop; create table shop.t (x int); insert into shop.t values (1)");
    let world = world(&server, "[databases.shop]\n");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    server.sql("insert into shop.t values (2)");
    // A client whose script goes wrong right after the step in which the tables move.
    std::fs::create_dir(world.path("tools")).unwrap();
    let client = "#!/bin/sh\nsed -u '/^rename table /a do broken();' | mariadb \"$@\"\n";
    world.write("tools/mariadb", client);
    world.executable("tools/mariadb");
    let text = std::fs::read_to_string(world.path("tapline.toml")).unwrap();
    let broken = text.replace("[defaults]\n", "[defaults]\ntools = \"tools\"\n");
    world.write("tapline.toml", broken);
    let failed = world.run(&["restore", "shop", "--overwrite"]);
    assert!(
        failed.code == Some(1)
            && failed
                .stderr
                .contains("both stay until somebody drops them")
    );
    assert_eq!(server.sql("select count(*) from shop.t").trim(), "1");
    world.write("tapline.toml", text);
    let old = server.sql(
        "select table_schema from information_schema.tables
         where table_name = 't' and table_schema regexp 'tapline'",
    );
    let old = format!("select count(*) from `{}`.t", old.trim());
    assert_eq!(server.sql(&old).trim(), "2");
    for args in [
        &["restore", "shop", "--overwrite"][..],
        &["verify", "shop", "--drill"],
    ] {
        let run = world.run(args);
        assert!(run.code == Some(0) && run.stderr.contains("look at it, and DROP DATABASE"));
        assert_eq!(server.sql(&old).trim(), "2");
    }
}

/// A server that takes quotes for names, and backslashes for themselves, and every date that there
/// is not: what comes back is what was there, and what is used is its own.
#[test]
fn in_whatever_mode_a_server_is_by_default_all_comes_back() {
    let server = Mariadb::start();
    let modes = "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,IGNORE_SPACE,STRICT_ALL_TABLES,\
                 NO_ZERO_DATE,NO_ZERO_IN_DATE";
    server.sql("create database shop");
    server.sql(
        "use shop; create sequence numbers start with 7;
         create table by_number (id int default nextval(numbers), note text default 'a\\\\b');
         create function f() returns text return 'x\\\\y\"';
         create view v as select f() as `odd \"name\"`;
         insert into by_number values ();
         set sql_mode = 'ALLOW_INVALID_DATES';
         create table dates (d date, t datetime);
         insert into dates values ('2024-02-31', '0000-00-00'), ('2023-00-00', '2023-02-29 01:02:03')",
    );
    server.sql(&format!("set global sql_mode = '{modes}'"));
    let look = |database: &str| {
        let use_it = format!("set sql_mode = ''; use `{database}`;");
        let of_all = "select * from dates order by d; select note from by_number where id = 7;
             select * from v; show create function f; show create view v";
        server.sql(&format!("{use_it} {of_all}"))
    };
    let before = look("shop");
    assert!(before.starts_with("2023-00-00\t2023-02-29 01:02:03\n2024-02-31\t0000-00-00 00:00:00"));
    assert!(before.contains("a\\\\b"), "{before}");
    let world = world(&server, "[databases.shop]\n");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert_eq!(world.run(&["verify", "--drill"]).code, Some(0));
    let copied = world.run(&["restore", "shop", "--to", "co`p\\y"]);
    assert_eq!(copied.code, Some(0));
    assert_eq!(world.run(&["restore", "shop", "--overwrite"]).code, Some(0));
    for database in ["shop", "co``p\\y"] {
        assert_eq!(look(database), before, "{database}");
        // The sequence has moved with its table.
        server.sql(&format!(
            "insert into `{database}`.by_number (note) values ('more')"
        ));
    }
    server.sql("drop database `co``p\\y`");
    assert_eq!(server.sql(LEFT).trim(), "0");
}

/// Names that a program would take for its options; a database's, too.
#[test]
fn what_is_called_as_an_option_is_comes_back() {
    let server = Mariadb::start();
    server.sql(
        "create database `--help`; use `--help`; create table `-a` (x int);
         insert into `-a` values (1); create view `--v` as select x from `-a`;
         create trigger `-t` before insert on `-a` for each row set new.x = new.x + 1;
         create procedure `-p`() select 1; create sequence `-s`;
         create event `-e` on schedule every 1 year do select 1",
    );
    let world = world(&server, "[databases.odd]\ndatabase = \"--help\"\n");
    assert_eq!(world.run(&["check"]).code, Some(0));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let look = |database: &str| {
        server.sql(&format!(
            "use `{database}`; insert into `-a` values (2); select * from `--v`; call `-p`();
             select nextval(`-s`) > 0; select event_name from information_schema.events
             where event_schema = database()"
        ))
    };
    let to = ["restore", "odd", "--to", "copy"];
    assert_eq!(world.run(&to).code, Some(0));
    let expected = "1\n3\n1\n1\n-e\n";
    assert_eq!(look("copy"), expected);
    for more in [&[][..], &["--in-place"]] {
        let args = [&["restore", "odd", "--overwrite"][..], more].concat();
        assert_eq!(world.run(&args).code, Some(0));
        assert_eq!(look("--help"), expected, "{more:?}");
    }
    assert_eq!(world.run(&["verify", "--drill"]).code, Some(0));
    assert_eq!(server.sql(LEFT).trim(), "0");
}

#[test]
fn an_event_at_which_the_dump_tool_never_ends_is_named_before_the_dump() {
    let server = Mariadb::start();
    server.sql(
        "create database shop; use shop; create event e on schedule every 1 year do select ';;'",
    );
    let world = world(&server, "[databases.shop]\n");
    for verb in ["check", "backup"] {
        let run = world.at_most(Duration::from_mins(1), &[verb]);
        assert!(run.code != Some(0) && run.code != Some(137), "{verb}");
        let words = run.words();
        assert!(words.contains("1 events, such as e, have two semicolons in a row"));
        assert!(words.contains("--skip-events"));
    }
    world.assert_store_is_clean();
    let text = std::fs::read_to_string(world.path("tapline.toml")).unwrap();
    let without = text.replace(
        "[defaults]\n",
        "[defaults]\noptions = [\"--skip-events\"]\n",
    );
    world.write("tapline.toml", without);
    assert_eq!(world.run(&["backup"]).code, Some(0));
}

/// A blob is twice as long in the dump, and may be too long for the server that it came from.
#[test]
fn a_row_that_its_server_does_not_take_back_costs_nothing_and_the_way_out_is_said() {
    let server = Mariadb::start();
    server.sql(
        "set global max_allowed_packet = 16 << 20; create database shop;
         create table shop.t (id int primary key, x longblob)",
    );
    server.sql("insert into shop.t values (1, repeat(x'00ff', 5 << 20))");
    let sum = "select id, length(x), md5(x) from shop.t order by id";
    let before = server.sql(sum);
    let world = world(&server, "[databases.shop]\n");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    server.sql("insert into shop.t values (2, 'precious')");
    let held = server.sql(sum);
    let failed = world.run(&["restore", "shop", "--overwrite"]);
    assert_eq!(failed.code, Some(1));
    assert!(failed.stderr.contains("raise its max_allowed_packet"));
    assert_eq!(server.sql(sum), held, "the old content");
    assert_eq!(server.sql(LEFT).trim(), "0");
    server.sql("set global max_allowed_packet = 1 << 30");
    assert_eq!(world.run(&["restore", "shop", "--overwrite"]).code, Some(0));
    assert_eq!(server.sql(sum), before);
}
