-- All that a table can be, most of it large enough to be copied by several sessions.
create extension hstore;
create extension citext;
create schema "Odd ""schema"".x*";
create domain positive as int check (value > 0);
create type mood as enum ('sad', 'it''s ok');

create table orders (
  id bigint generated always as identity primary key, gone int, customer positive not null,
  note text, doubled bigint generated always as (customer * 2) stored, feeling mood, tags hstore,
  at timestamptz default now(), span interval, ratio float8, small real, raw bytea, "Order" text);
alter table orders drop column gone;
insert into orders (customer, note, feeling, tags, span, ratio, small, raw, "Order")
  select 1 + g % 1000, case g % 5 when 0 then null when 1 then '' when 2 then E'tab\t line\n \\N \\. end'
    when 3 then 'größe €' else repeat('x', g % 400) end, (array['sad', 'it''s ok'])[1 + g % 2]::mood,
    hstore('a', g::text), g * interval '1 second', random(), random()::real, decode(md5(g::text), 'hex'), E'\\.'
  from generate_series(1, 40000) g;
delete from orders where id % 7 = 0;
update orders set note = note || '!' where id % 11 = 0;

create table "Odd ""schema"".x*"."a.b ""c"" /*;
COPY evil FROM stdin;" ("sel ect" int, "x"";y" text);
insert into "Odd ""schema"".x*"."a.b ""c"" /*;
COPY evil FROM stdin;" select g, repeat('o', 100) from generate_series(1, 20000) g;
create table "Odd ""schema"".x*"."A.B ""C""" (x int, y text);
insert into "Odd ""schema"".x*"."A.B ""C""" select g, repeat('O', 100) from generate_series(1, 20000) g;
create sequence "Odd ""schema"".x*"."seq'uence" start 7;
select nextval('"Odd ""schema"".x*"."seq''uence"');

create table parts (id int, region text, load text) partition by list (region);
create table parts_eu partition of parts for values in ('eu') partition by range (id);
create table parts_eu_1 partition of parts_eu for values from (0) to (20000);
create table parts_eu_2 (load text, id int, region text);
alter table parts_eu attach partition parts_eu_2 for values from (20000) to (100000);
create table parts_rest partition of parts default;
insert into parts select g, case when g % 3 = 0 then 'eu' else 'us' end, repeat('p', 90)
  from generate_series(1, 50000) g;
alter table parts add primary key (id, region);

create table animals (id int, name text);
create table cats (lives int default 9) inherits (animals);
insert into animals select g, repeat('a', 90) from generate_series(1, 15000) g;
insert into cats select g, repeat('c', 90), 7 from generate_series(1, 15000) g;

create table secret (id int, owner text);
insert into secret select g, repeat('s', 90) from generate_series(1, 15000) g;
alter table secret enable row level security;
create policy mine on secret using (owner = current_user);

-- Rows longer than a segment, rows of every length around it, and short ones between them.
create table toasted (id int primary key, body text);
alter table toasted alter body set storage external;
insert into toasted select g, repeat(md5(g::text), case g % 10 when 0 then 30000 when 1 then 4000 when 2 then 3000
  else 1 end) from generate_series(1, 60) g;
insert into toasted values (1000, E'\n' || repeat(E'\\.\n', 200000));

create table empty (id int);
create table bloated (id int, x text);
insert into bloated select g, repeat('b', 100) from generate_series(1, 15000) g;
delete from bloated;
create unlogged table fleeting (id int, x text);
insert into fleeting select g, repeat('f', 90) from generate_series(1, 15000) g;
create table no_columns ();
insert into no_columns select from generate_series(1, 100000);
create table only_generated (a int generated always as (1) stored);
insert into only_generated select from generate_series(1, 40000);
create table wide (i int, filler text);
do $$ begin for i in 1..300 loop execute format('alter table wide add column %I int default %s',
  'a_column_with_a_long_name_' || i, i); end loop; end $$;
insert into wide select g from generate_series(1, 2000) g;
create table small (id serial primary key, x citext);
insert into small (x) select 'row ' || g from generate_series(1, 1000) g;
create schema many;
do $$ begin for i in 1..60 loop execute format('create table many.t%s as select g as id, repeat(''m'', 50) as x
  from generate_series(1, 300) g', i); end loop; end $$;

create view cheap as select * from orders where customer < 10;
create materialized view totals as select customer, count(*) as n from orders group by 1;
create index on orders (customer);
create function note_change() returns trigger language plpgsql as $$ begin raise exception 'fired'; end $$;
create trigger fires before insert on orders for each row execute function note_change();
create table lines (id int primary key, order_id bigint references orders, x text);
insert into lines select g, 1, repeat('l', 90) from generate_series(1, 15000) g;
create foreign data wrapper nothing;
create server nowhere foreign data wrapper nothing;
create foreign table abroad (id int) server nowhere;
create publication p for table orders;
select lo_from_bytea(0, decode(repeat(md5(g::text), 3000), 'hex')) from generate_series(1, 8) g;
comment on table orders is 'it''s; -- here';
