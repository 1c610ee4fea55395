-- Every kind of object that a PostgreSQL database can have, with names and content of the worst kind;
-- with `-v superuser=0` those that any user may make.
create extension hstore;
create extension citext;
create extension pg_trgm;
create schema "Odd ""schema"".x*%\ ü";
grant create on schema public to corpus_owner;
create schema private authorization corpus_owner;
comment on schema private is E'line one\nline two; -- and \\ no comment';

-- Types.
create domain positive as int default 1 check (value > 0);
comment on domain positive is 'it''s > 0';
create domain code as text collate "C" constraint shape check (value ~ '^[A-Z]\w*$') not null;
create type mood as enum ('sad', 'it''s ok', E'new\nline');
alter type mood add value 'between' before 'it''s ok';
create type pair as ("left" int, "ri ght" text collate "C");
create type span as range (subtype = float8, subtype_diff = float8mi);
create collation german (provider = icu, locale = 'de-u-kn-true');
create collation "case ""less" (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

-- Functions, in every language that is there, of every kind.
create function add_all(variadic numbers int[], out total int, out many int) language plpgsql
  strict stable parallel safe cost 7 as $body$
declare "a $ b" int := 0; one int;
begin
  foreach one in array numbers loop "a $ b" := "a $ b" + one; end loop; -- ; '
  total := "a $ b"; many := cardinality(numbers);
end $body$;
create function private.definer() returns name language sql security definer
  set search_path = private, pg_temp set work_mem = '5MB' as $$ select current_user; $$;
create function modern(x int) returns int language sql immutable return x * 2;
create function rows_of(n int) returns table (a int, "b;c" text) rows 3 language sql as
  $$ select g, E'\\x' || g from generate_series(1, n) g $$;
create procedure transfer(inout x int) language plpgsql as $$ begin x := x + 1; end $$;
create function unqualified(text) returns text language plpgsql immutable as
  $$ begin return lower($1); end $$;
create function "select"("from" int default 3) returns int language sql as 'select $1';
create aggregate product(int) (sfunc = int4mul, stype = int, initcond = '1');
create aggregate "most %s"(anycompatible) (sfunc = array_append, stype = anycompatiblearray, initcond = '{}');
create function pair_less(pair, pair) returns bool language sql immutable as
  'select $1."left" < $2."left"';
create operator <<< (leftarg = pair, rightarg = pair, function = pair_less);

-- Tables.
create sequence "a %s ""seq'uence" start 7 increment -3 minvalue -1000 maxvalue 10 cache 5 cycle;
select nextval('"a %s ""seq''uence"');
create table orders (
  id bigint generated always as identity (start 100 increment 5) primary key, gone int,
  customer positive, note text, feeling mood, tags hstore, words citext, ratio float8, small real,
  doubled bigint generated always as (customer * 2) stored, whole pair, during span, raw bytea,
  at timestamptz default '2024-02-29 12:00:00+01', during_time interval, net cidr, mac macaddr8, bits bit varying(9), money_ money,
  list int[][], doc jsonb, doc_text json, page xml, key uuid default gen_random_uuid(), place point, circ circle,
  n numeric(30, 10), odd_n numeric, of_c code default 'A' collate german, vector tsvector, q tsquery,
  lsn pg_lsn, multi int4multirange, c char(5), v varchar(7), o oid, r regclass, "Order" text);
alter table orders drop column gone;
alter table orders alter note set storage external, alter note set statistics 500,
  alter ratio set (n_distinct = -0.5);
alter table orders set (fillfactor = 70, autovacuum_enabled = false);
insert into orders (customer, note, feeling, tags, words, ratio, small, whole, during, raw, at,
  during_time, net, mac, bits, money_, list, doc, doc_text, page, key, place, circ, n, odd_n, vector, q, lsn,
  multi, c, v, o, r, "Order")
select 1 + g % 100,
  case g % 6 when 0 then null when 1 then '' when 2 then E'\t\n\r\b\f\v \\N \\.\n\\.\n' when 3 then 'größe € 𝄞 ﷽'
    when 4 then 'COPY orders FROM stdin;' else repeat('x', g * 20) end,
  (enum_range(null::mood))[1 + g % 4], hstore('a"=>', g::text), 'MiXed' || g,
  case g % 4 when 0 then 'NaN'::float8 when 1 then '-Infinity' when 2 then -0.0 else sqrt(g) end,
  1.0 / (g + 1), row(g, 'a,b)(" \')::pair, span(g, g + 0.5, '(]'), decode(md5(g::text), 'hex'),
  case when g % 5 = 0 then 'infinity'::timestamptz else timestamptz '0044-03-15 12:00:00+00 BC' + g * interval '7 years' end,
  '-1 mons +3 days -00:00:00.000001', '10.0.0.0/8', '08:00:2b:01:02:03:04:05', B'10101', g,
  case when g % 2 = 0 then '[2:3][0:1]={{1,null},{3,4}}'::int[] end,
  '{"a": [1, null, "\u00fc\\"], "b": {}}', '{"a" : 1,  "a":2}', '<a b="c">&amp;</a>',
  md5(g::text)::uuid, point(g, -g), circle(point(0, 0), g), g / 7.0, case when g % 9 = 0 then 'NaN' else 10.0 ^ g end,
  to_tsvector('german', 'die Häuser ' || g), 'a & !b:*', '16/B374D848', '{[1,3),[7,9)}', 'ab', 'v', 4294967295,
  'pg_class', E'\\.'
from generate_series(1, 100) g;
create table "Odd ""schema"".x*%\ ü"."a.b ""c"" /*;
COPY evil FROM stdin;" ("sel ect" int, "x"";y" text, "new
line" int);
insert into "Odd ""schema"".x*%\ ü"."a.b ""c"" /*;
COPY evil FROM stdin;" select g, repeat(E'o\\\n', g), g from generate_series(1, 50) g;
comment on column "Odd ""schema"".x*%\ ü"."a.b ""c"" /*;
COPY evil FROM stdin;"."x"";y" is '$$ %s \';
create table parts (id int, region text, load text default 'x', primary key (id, region))
  partition by list (region);
create table parts_eu partition of parts for values in ('eu', null) partition by hash (id);
create table parts_eu_0 partition of parts_eu for values with (modulus 2, remainder 0);
create table parts_eu_1 (load text, id int not null, region text not null, extra int);
alter table parts_eu_1 drop column extra;
alter table parts_eu attach partition parts_eu_1 for values with (modulus 2, remainder 1);
create table parts_rest partition of parts (load default 'rest') default;
insert into parts select g, case when g % 3 = 0 then 'eu' else 'us' end from generate_series(1, 90) g;
create index on parts (load);
create index on only parts (region);
create table animals (id int, name text not null check (name <> ''));
create table pets (owner text);
create table cats (lives int default 9, check (lives < 10) no inherit) inherits (animals, pets);
insert into animals values (1, 'a'); insert into cats values (2, 'c', 'me');
create table toasted (id int primary key, body text compression pglz);
insert into toasted select g, repeat(md5(g::text), 30000) from generate_series(1, 5) g;
create table empty (id int);
create table no_columns ();
insert into no_columns select from generate_series(1, 7);
create unlogged table fleeting (id int primary key);
insert into fleeting values (1), (2);
create table of_type of pair (primary key ("left"));
insert into of_type values (1, 'r');
create table lines (id int primary key, order_id bigint references orders on delete cascade
    deferrable initially deferred, other int references lines, x text,
  constraint "uni que" unique nulls not distinct (x, other), constraint spans exclude using gist
    (int4range(id, id + 1) with &&), constraint later check (id > 0) not valid);
insert into lines select g, 100 + 5 * (g % 100), null, 'l' || g from generate_series(1, 200) g;
create table looped (a int primary key, b int); create table looping (b int primary key, a int references looped);
alter table looped add foreign key (b) references looping; insert into looped values (1, null);
insert into looping values (2, 1); update looped set b = 2;
create table replicated (id int not null, unique (id)); alter table replicated replica identity using index replicated_id_key;
create temporary table of_session (x int);

-- Indexes.
create index "i %s" on orders using gin (note gin_trgm_ops) where customer > 5;
create index on orders (unqualified(v) text_pattern_ops desc nulls last, (customer + 1)) include (small) with (fillfactor = 60);
create index on orders using brin (at); create index on orders using hash (key);
create unique index on orders ("Order", id); alter table orders cluster on orders_pkey;
create index on orders (note collate "case ""less" desc);
create statistics private.of_orders (ndistinct, mcv) on customer, feeling, (customer % 3) from orders;
alter statistics private.of_orders set statistics 77;

-- Views, rules, triggers.
create view cheap with (security_barrier) as select id, customer, note from orders where customer < 10
  with local check option;
create view starred as select *, '\ %s $$' as "odd %" from animals;
create recursive view counting (n) as values (1) union all select n + 1 from counting where n < 5;
create view later_made as select 1 as x;
create or replace view later_made as select count(*)::int as x from cheap;
create materialized view totals as select customer, count(*) as n, unqualified(min(note)) as u from orders group by 1;
create unique index on totals (customer);
create materialized view unfilled as select * from totals with no data;
create rule "redirect %" as on insert to starred do instead insert into animals values (new.id, new.name);
create rule quiet as on delete to empty do also notify gone;
create function note_change() returns trigger language plpgsql as
  $$ begin if tg_op = 'DELETE' then return old; end if; new.name := new.name || tg_argv[0]; return new; end $$;
create trigger "fires; first" before insert or update of name on animals for each row
  when (new.id <> 7) execute function note_change('it''s \ %s');
create trigger never before insert on animals for each row execute function note_change('n');
alter table animals disable trigger never; alter table animals enable always trigger "fires; first";
create constraint trigger checks after insert on lines deferrable initially deferred for each row
  execute function note_change('c');
alter table lines disable trigger checks;
create function watch() returns event_trigger language plpgsql as
  $$ begin if current_setting('corpus.strict', true) = 'on' then raise exception 'no %', tg_tag; end if; end $$;
\if :superuser
create event trigger watches on ddl_command_end when tag in ('CREATE TABLE', 'DROP TABLE') execute function watch();
create event trigger sleeps on sql_drop execute function watch(); alter event trigger sleeps disable;
\endif
comment on trigger "fires; first" on animals is 'a trigger';

-- Text search, foreign data, publications, transforms of the catalog.
create text search configuration mine (copy = simple);
create text search dictionary stem (template = snowball, language = german, stopwords = german);
alter text search configuration mine alter mapping for asciiword, word with stem, simple;
\if :superuser
create foreign data wrapper nothing options (a 'it''s');
create server "nowhere %" type 't' version '1' foreign data wrapper nothing options (host 'x.invalid');
create user mapping for corpus_owner server "nowhere %" options (password 'p"w\');
create foreign table abroad (id int options (c 'x') not null) server "nowhere %" options (t 'y');
\endif
create publication "some" for table orders (id, note) where (id > 3), parts with (publish = 'insert');
\if :superuser
create publication every for all tables with (publish_via_partition_root);
\endif
create conversion "my conv" for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8;

-- Large objects.
select lo_from_bytea(4711, decode(repeat(md5('x'), 40000), 'hex'));
select lo_from_bytea(4712, '');
comment on large object 4711 is 'large';
alter large object 4712 owner to corpus_owner;
grant select on large object 4711 to corpus_reader;

-- Rights.
alter table orders enable row level security;
create policy mine on orders as restrictive for select to corpus_reader using (customer < 50);
create policy all_ on orders using (true) with check (note <> 'x');
\if :superuser
alter table animals force row level security;
alter table lines owner to corpus_owner;
alter view cheap owner to corpus_owner;
\endif
grant usage on schema private to corpus_reader with grant option;
grant select (id, note), update (note) on orders to corpus_reader;
grant all on sequence "a %s ""seq'uence" to "corpus ""odd"" %";
grant usage on type mood to corpus_reader; revoke usage on type span from public;
revoke execute on function private.definer() from public;
\if :superuser
grant usage on foreign server "nowhere %" to corpus_reader;
\endif
revoke create on schema public from public;
alter default privileges for role corpus_owner in schema private grant select on tables to corpus_reader;
alter default privileges for role corpus_owner revoke execute on functions from public;
comment on table orders is E'it''s; -- here\n\\.\nCOPY orders FROM stdin;';
comment on index "i %s" is 'index';
comment on constraint "uni que" on lines is '"';
