//! What is said about a database itself comes back with it, or is named.

use super::restore::forge;
use super::servers::{Mariadb, PASSWORD, Postgres};
use super::world::World;

fn world(engine: &str, port: u16, entries: &str) -> World {
    let world = World::new(&format!(
        "[defaults]\nengine = \"{engine}\"\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\n{entries}"
    ));
    world.write("password", PASSWORD);
    world
}

/// What a server says about a database.
fn said(server: &Postgres, database: &str) -> String {
    server.sql(
        "postgres",
        &format!(
            "select pg_get_userbyid(datdba), encoding, datcollate, datctype, datlocprovider,
             coalesce(to_jsonb(d)->>'daticulocale', to_jsonb(d)->>'datlocale'),
             datconnlimit, datistemplate, shobj_description(oid, 'pg_database'),
             (select string_agg(acl::text, ',' order by acl::text) from unnest(datacl) acl),
             (select string_agg(setrole::regrole || setconfig::text, ','
               order by setrole::regrole || setconfig::text)
              from pg_db_role_setting where setdatabase = d.oid)
             from pg_database d where datname = '{database}'"
        ),
    )
}

#[test]
fn a_postgres_database_that_is_gone_comes_back_with_all_that_is_said_about_it() {
    let server = Postgres::start();
    server.sql("postgres", "create role said_owner; create role said_user");
    server.sql(
        "postgres",
        "create database sorted owner said_owner template template0 encoding 'UTF8'
         locale_provider icu icu_locale 'de-u-kn' lc_collate 'C' lc_ctype 'C' connection limit 5",
    );
    server.sql(
        "postgres",
        "create database latin template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'",
    );
    server.sql(
        "postgres",
        r#"comment on database sorted is 'it''s \ "ours"'; alter database sorted is_template true;
         revoke all on database sorted from public;
         grant connect, create on database sorted to said_user with grant option;
         alter database sorted set search_path = "A ""b", public;
         alter database sorted set application_name = 'it''s \ x';
         alter database sorted set app.tenant = 'seven';
         alter database sorted set app.jwt_secret = 'sesame';
         alter role said_user in database sorted set statement_timeout = '5s'"#,
    );
    server.sql(
        "sorted",
        "create table t (x text); insert into t values ('a10'), ('a9')",
    );
    server.sql(
        "latin",
        "create table t (x text); insert into t values (chr(228))",
    );
    let world = world(
        "postgres",
        server.port(),
        "[databases.sorted]\n[databases.latin]\n",
    );
    let run = world.run(&["backup"]);
    assert!(run.code == Some(0) && run.stdout.contains("not in the backup: app.jwt_secret"));
    let key = world.keys("sorted");
    let key = key
        .iter()
        .find(|key| key.ends_with("manifest.json"))
        .unwrap();
    let manifest = String::from_utf8(world.server.store().read(key).unwrap()).unwrap();
    assert!(manifest.contains("seven") && !manifest.contains("sesame"));
    server.sql("postgres", "alter database sorted reset app.jwt_secret");
    let before = [said(&server, "sorted"), said(&server, "latin")];
    assert!(before[0].contains("de-u-kn") && before[0].contains("statement_timeout=5s"));

    // Under another name, too.
    assert_eq!(
        world.run(&["restore", "sorted", "--to", "copy"]).code,
        Some(0)
    );
    let grantor = |said: &str| said.replace("/admin", "/said_owner");
    assert_eq!(said(&server, "copy"), before[0]);
    server.sql("postgres", "alter database copy is_template false");
    server.sql("postgres", "drop database copy");
    server.sql("postgres", "alter database sorted is_template false");
    server.sql("postgres", "drop database sorted");
    server.sql("postgres", "drop database latin");
    for name in ["sorted", "latin"] {
        let run = world.run(&["restore", name]);
        assert_eq!(run.code, Some(0));
        assert_eq!(
            run.stderr.contains("app.jwt_secret"),
            name == "sorted",
            "named again"
        );
    }
    assert_eq!(grantor(&said(&server, "sorted")), grantor(&before[0]));
    assert_eq!(said(&server, "latin"), before[1]);
    let order = "select string_agg(x, ' ' order by x) from t";
    assert_eq!(
        server.sql("sorted", order).trim(),
        "a9 a10",
        "numbers are numbers"
    );
    assert_eq!(
        server.sql("latin", "select octet_length(x) from t").trim(),
        "1"
    );
}

#[test]
fn what_a_server_has_not_of_a_database_is_named_with_the_way_out() {
    let server = Postgres::start();
    server.sql("postgres", "create role gone_owner");
    server.sql("postgres", "create database shop owner gone_owner");
    server.sql(
        "postgres",
        "alter role gone_owner in database shop set work_mem = '1MB'",
    );
    server.sql("shop", "create table t as select 1 as x");
    let world = world("postgres", server.port(), "[databases.shop]\n");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    server.sql("postgres", "drop database shop");
    server.sql("postgres", "drop role gone_owner");
    let run = world.run(&["restore", "shop"]);
    assert_eq!(run.code, Some(0));
    for statement in [
        "alter database \"shop\" owner to \"gone_owner\"",
        "alter role \"gone_owner\" in database \"shop\" set \"work_mem\" to '1MB'",
    ] {
        assert!(run.stderr.contains(statement), "{statement}");
    }
    assert!(run.stderr.contains("comes with the globals"));
    let without = ["restore", "shop", "--to", "mine", "--no-owner"];
    assert!(!world.run(&without).stderr.contains("owner to"));

    server.sql("postgres", "drop database shop");
    forge(&world, "shop", |manifest| {
        let said = &mut manifest["properties"]["postgres"];
        said["collate"] = "xx_YY.utf8".into();
        said["ctype"] = "xx_YY.utf8".into();
    });
    let refused = world.run(&["restore", "shop"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("xx_YY.utf8"));
    assert!(refused.stderr.contains("restore again"));
    let left = "select count(*) from pg_database where datname ~ '^shop'";
    assert_eq!(server.sql("postgres", left).trim(), "0");
    // As it says: made by hand, it is taken as it is.
    server.sql("postgres", "create database shop");
    let run = world.run(&["restore", "shop"]);
    assert!(run.code == Some(0) && run.stderr.contains("stays what it is"));
    assert_eq!(server.sql("shop", "select x from t").trim(), "1");
}

#[test]
fn a_mariadb_database_that_is_gone_comes_back_with_its_character_set_and_comment() {
    let server = Mariadb::start();
    server.sql(
        "create database shop character set latin2 collate latin2_czech_cs
           comment 'it''s \\\\ \"ours\" */ x';
         create table shop.t (x varchar(9)); insert into shop.t values ('c')",
    );
    let world = world("mariadb", server.port(), "[databases.shop]\n");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let said = |name: &str| {
        server.sql(&format!(
            "select default_character_set_name, default_collation_name, schema_comment
             from information_schema.schemata where schema_name = '{name}'"
        ))
    };
    let before = said("shop");
    assert!(
        before.starts_with("latin2\tlatin2_czech_cs\tit's"),
        "{before}"
    );
    server.sql("drop database shop");
    assert_eq!(world.run(&["restore", "shop"]).code, Some(0));
    assert_eq!(said("shop").replace("* /", "*/"), before);
    assert_eq!(
        world.run(&["restore", "shop", "--to", "copy"]).code,
        Some(0)
    );
    assert_eq!(said("copy"), said("shop"));
    forge(&world, "shop", |manifest| {
        manifest["properties"]["mysql"]["collation"] = "utf8mb4_0900_ai_ci".into();
    });
    let refused = world.run(&["restore", "shop", "--to", "third"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("utf8mb4_0900_ai_ci"));
    assert!(refused.stderr.contains("restore again"));
    let left = "select count(*) from information_schema.schemata where schema_name like 'third%'";
    assert_eq!(server.sql(left).trim(), "0");
}
