//! A restore by several sessions is whole, or leaves what was there.

use std::process::Stdio;

use super::super::servers::{PASSWORD, Postgres};
use super::super::world::{World, signal, wait_until};
use super::{content, database, same, world};

/// Tables that take their time to be loaded, keys that go this way and that, and a definition whose
/// comment looks like another one's header.
const TABLES: &str = "\
    create table orders as select g as id, g % 1000 + 1 as event, repeat('o', 80) as note
      from generate_series(1, 100000) g;
    create table events as select g as id, g % 1000 + 1 as \"order\", repeat('e', 80) as note
      from generate_series(1, 100000) g;
    alter table orders add constraint slow check (id % 1000 <> 0 or pg_sleep(0.02) is not null);
    alter table events add constraint slow check (id % 1000 <> 0 or pg_sleep(0.02) is not null);
    alter table orders add primary key (id); alter table events add primary key (id);
    create index on orders (event); create index on events (\"order\"); create index on orders (note);
    alter table orders add foreign key (event) references events;
    alter table events add foreign key (\"order\") references orders;
    create index clustered on events (note, id); cluster events using clustered;
    comment on index clustered is E'--\\n-- Name: x; Type: INDEX\\n--\\ncreate index x on orders (id);';
    create function f() returns trigger language plpgsql as $$ begin return new; end $$;
    create trigger t before update on orders for each row execute function f()";

/// Sessions that load rows into a database beside the target.
const LOADING: &str = "select count(*) from pg_stat_activity where state = 'active' \
    and datname like 'shop\\_tapline\\_new%' and query like 'COPY%'";

fn beside(server: &Postgres) -> String {
    let beside = "select count(*) from pg_database where datname like 'shop\\_tapline%'";
    server.sql("postgres", beside).trim().to_owned()
}

#[test]
fn a_restore_by_several_sessions_is_whole_or_leaves_what_was_there() {
    let server = Postgres::start();
    database(&server, TABLES);
    let entries =
        "[run]\nmemory = \"24MiB\"\n[databases.shop]\nparallel = 2\ncompression = \"zstd\"\n";
    let world = world(&server, "", entries);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let before = content(&server, "shop");
    server.sql("shop", "create table since (x int)");
    let restore = ["restore", "shop", "--overwrite", "--jobs", "3"];
    for what in ["a session is lost", "the program is killed"] {
        let restore = world.tapline(&restore).stderr(Stdio::piped()).spawn();
        let mut restore = restore.unwrap();
        wait_until(|| {
            server
                .sql("postgres", LOADING)
                .trim()
                .parse::<u32>()
                .unwrap()
                > 1
        });
        if what == "a session is lost" {
            let end = LOADING.replace("count(*)", "pg_terminate_backend(pid)") + " limit 1";
            assert_eq!(server.sql("postgres", &end).trim(), "t");
            assert!(!restore.wait().unwrap().success(), "{what}");
            assert_eq!(beside(&server), "0", "{what}");
        } else {
            signal(&restore, "KILL");
            restore.wait().unwrap();
        }
        assert_eq!(server.sql("shop", "select count(*) from since").trim(), "0");
    }
    assert_eq!(world.run(&restore).code, Some(0));
    same(&before, &content(&server, "shop"), "three sessions");
    // What the killed one has left is gone, too.
    assert_eq!(beside(&server), "0");
    // In place it is one transaction, and one session.
    let in_place = world.run(&[
        "restore",
        "shop",
        "--overwrite",
        "--in-place",
        "--jobs",
        "3",
    ]);
    assert_eq!(in_place.code, Some(0));
    same(&before, &content(&server, "shop"), "in place");
}

#[test]
fn a_sealed_dump_of_several_sessions_keeps_its_names_and_comes_back() {
    let server = Postgres::start();
    database(
        &server,
        "create table secret_orders as select g as id, md5(g::text) as note
           from generate_series(1, 60000) g; alter table secret_orders add primary key (id)",
    );
    let world = World::new("");
    let public = world.age_recipient();
    let port = server.port();
    world.inventory(&format!(
        "[defaults]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\nencrypt_to = [\"{public}\"]\nhide_names = true\n\
         [databases.shop]\nparallel = 3\ncompression = \"zstd\"\n"
    ));
    world.write("password", PASSWORD);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let manifest = String::from_utf8(world.manifest("shop").to_json()).unwrap();
    assert!(!manifest.contains("secret_orders") && !manifest.contains("pre-data"));
    for (to, jobs) in [("one", "1"), ("many", "2")] {
        let restore = [
            "restore",
            "shop",
            "--identity",
            "age.key",
            "--to",
            to,
            "--jobs",
            jobs,
        ];
        assert_eq!(world.run(&restore).code, Some(0));
        same(&content(&server, "shop"), &content(&server, to), to);
    }
}
