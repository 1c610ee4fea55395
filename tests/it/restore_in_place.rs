//! A PostgreSQL database whose content is replaced where it is: nothing of the old one is in the way
//! of the new one, and nothing of it stays.

use super::servers::{PASSWORD, Postgres};
use super::world::World;

/// What `pg_dump` takes for granted that there is not, in words.
const OTHERS: &str = "
select 'cast', castsource::regtype || ' as ' || casttarget::regtype from pg_cast where oid >= 16384
union all select 'access method', amname from pg_am where oid >= 16384
union all select 'language', lanname from pg_language where oid >= 16384
union all select 'event trigger', evtname from pg_event_trigger
union all select 'publication', pubname from pg_publication
union all select 'wrapper', fdwname from pg_foreign_data_wrapper
union all select 'extension', extname from pg_extension
union all select 'schema', nspname from pg_namespace
  where nspname !~ '^pg_' and nspname <> 'information_schema'
union all select 'table', oid::regclass::text from pg_class
  where relkind in ('r', 'p') and oid >= 16384
union all select 'large object', oid::text from pg_largeobject_metadata
union all select 'default', defaclobjtype::text || defaclacl::text from pg_default_acl
order by 1, 2";

#[test]
fn nothing_of_what_was_there_is_in_the_way_or_stays() {
    let server = Postgres::start();
    server.sql("postgres", "create database shop");
    server.sql(
        "shop",
        "create table parts (id int, region text, primary key (id, region)) partition by list (region);
         create table parts_eu partition of parts for values in ('eu');
         create table parts_rest partition of parts default;
         insert into parts values (1, 'eu'), (2, 'us'); create index on parts (id);
         create table led_to (id int, region text, foreign key (id, region) references parts);
         insert into led_to values (1, 'eu');
         create extension citext; create table words (w citext);",
    );
    let world = World::new(&format!(
        "[defaults]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\ndatabase = \"shop\"\n[databases.plain]\n\
         [databases.custom]\nformat = \"custom\"\n",
        server.port()
    ));
    world.write("password", PASSWORD);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let rows = "select * from parts order by 1; select * from led_to";
    let (before, content) = (server.sql("shop", OTHERS), server.sql("shop", rows));
    assert!(before.contains("parts_rest") && before.contains("citext"));
    for source in ["plain", "custom"] {
        // An extension with a schema of its own, as pgq, pg_cron and postgis_topology have one, and
        // what stands outside of all schemas.
        server.sql(
            "shop",
            "insert into parts values (9, 'us');
             create schema pgq; create table pgq.queue (id int); create schema of_hstore;
             create extension hstore schema of_hstore;
             alter extension hstore add schema pgq; alter extension hstore add table pgq.queue;
             create type money_of as (a int);
             create function as_int(money_of) returns int language sql as 'select ($1).a';
             create cast (money_of as int) with function as_int(money_of);
             create cast (point as json) with inout;
             create access method other type table handler heap_tableam_handler;
             create table of_other (a int) using other;
             create language spoken handler plpgsql_call_handler;
             create function watch() returns event_trigger language plpgsql as
               $$ begin raise 'nothing goes while I watch'; end $$;
             create event trigger watches on sql_drop execute function watch();
             create publication everything for all tables;
             create foreign data wrapper far; create server away foreign data wrapper far;
             create foreign table abroad (a int) server away;
             select lo_from_bytea(77, 'x');
             alter default privileges grant select on tables to public;
             alter default privileges revoke execute on functions from public",
        );
        let run = world.run(&["restore", source, "--overwrite", "--in-place"]);
        assert_eq!(run.code, Some(0), "{source}");
        assert_eq!(server.sql("shop", rows), content, "{source}");
        assert_eq!(server.sql("shop", OTHERS), before, "{source}");
    }
}
