-- Every kind of object that a database of Oracle's MySQL can have, with names and content of the worst
-- kind. It is loaded into the session's database.
set names utf8mb4, sql_mode = 'STRICT_TRANS_TABLES', time_zone = '+00:00';
create table `all types` (
  id int unsigned not null auto_increment primary key, t tinyint(1), s smallint unsigned zerofill, m mediumint,
  b bigint unsigned, d decimal(65,30), f float, do double, bits bit(33), y year, da date, ti time(6), dt datetime(6),
  ts timestamp(3) default current_timestamp(3) on update current_timestamp(3), c char(5) character set latin1,
  v varchar(300) collate utf8mb4_0900_as_cs, vb varbinary(300), bi binary(3), tt tinytext, mt mediumtext, lb longblob,
  e enum('a','it''s','\\','ü'), se set('x','y','z'), j json, jd json default (json_array(1, 'ü')), g geometry,
  p point not null srid 4326, poly polygon, invis int default 7 invisible, vec vector(3),
  u binary(16) default (uuid_to_bin('6ccd780c-baba-1026-9564-5b8c656024db')),
  spatial index (p), fulltext index (mt), key `odd ``key` (v(20) desc), unique key hidden (b, s) invisible,
  key functional ((lower(v))), key multi ((cast(j->'$.n' as unsigned array)))
) engine=InnoDB auto_increment=1000 default charset=utf8mb4 row_format=dynamic comment='it''s; -- \\ "x"';
insert into `all types` (id, t, s, m, b, d, f, do, bits, y, da, ti, dt, ts, c, v, vb, bi, tt, mt, lb, e, se, j, g, p, poly, invis, vec) values
  (1, 1, 7, -8388608, 18446744073709551615, 12345678901234567890123456789012345.123456789012345678901234567891, 1.5e-30,
   -1.7976931348623157e308, b'111111111111111111111111111111111', 2155, '9999-12-31', '-838:59:59', '1000-01-01 00:00:00.000001',
   '2024-02-29 12:00:00.123', 'äöü', 'größe € 𝄞 \0 \' " \\ \n \r \t \Z %', x'0001027F80FF5C275C00220A0D1A', x'00', '', '-- x;\nDELIMITER ;;\n/*! */', null,
   'it''s', 'x,z', '{"a": [1, null, "\\u00fc"], "n": [2, 3], "d": 1e300}', st_geomfromtext('LINESTRING(0 0,1 1)'),
   st_srid(point(1, -2), 4326), st_geomfromtext('POLYGON((0 0,1 0,1 1,0 0))'), 8, to_vector('[1.5,-2,3e-30]')),
  (2, null, null, null, null, null, null, null, null, null, null, null, null, '2024-02-29 12:00:00.123', null, null, null, null, null,
   'INSERT INTO `x` VALUES (1);', null, null, '', null, null, st_srid(point(0, 0), 4326), null, null, null);
-- Every byte, and a row that is long.
create table bytes (id int primary key, x longblob);
set session cte_max_recursion_depth = 10000;
insert into bytes with recursive n (n) as (select 0 union all select n + 1 from n where n < 255) select n, char(n using binary) from n;
insert into bytes values (1000, repeat(x'00FF0A5C2700', 500000));
set sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES';
create table zeroes (id int auto_increment primary key, d date default '0000-00-00', dt datetime default '0000-00-00 00:00:00');
insert into zeroes values (0, '0000-00-00', '2024-02-31 00:00:00'), (5, default, default);
set sql_mode = 'STRICT_TRANS_TABLES';
create table latin (x varchar(50), y text character set utf8mb3 collate utf8mb3_bin) charset latin1 collate latin1_german2_ci;
insert into latin values ('größe', 'größe €');
create table cyrillic (`имя` varchar(50)) charset koi8r; insert into cyrillic values ('привет');
create table wide (x varchar(50)) charset utf16; insert into wide values ('𝄞ü');
create table `odd ``name``; "x" 'y' \\ %s ü €` (`sel``ect` int, `a b;` int default 3 check (`a b;` <> 4)) charset utf8mb4;
insert into `odd ``name``; "x" 'y' \\ %s ü €` values (1, 2);
create table `table` (`from` int primary key, `percent%` int, `back\slash` int); insert into `table` values (1, 2, 3);
create table parents (a int, b int, c varchar(20) default (concat('x', 'y')), primary key (a, b)) engine=InnoDB;
create table kids (id int primary key, a int, b int, self int,
  constraint `odd ``fk` foreign key (a, b) references parents (a, b) on delete cascade on update set null,
  foreign key (self) references kids (id), constraint positive check (id > 0), constraint slack check (id < 10) not enforced);
insert into parents values (1, 2, default); insert into kids values (1, 1, 2, 1), (2, null, null, 1), (11, null, null, null);
create table computed (a int, v int as (a * 2) virtual, p int generated always as (a + 1) stored, `in` varchar(10) as (left(concat('x', a), 3)) stored,
  key (v), key (p)); insert into computed (a) values (1), (2), (null);
create table parted (id int not null, at date not null, x text, primary key (id, at))
  partition by range (year(at)) subpartition by hash (id) subpartitions 2
  (partition p0 values less than (2020), partition p1 values less than maxvalue);
insert into parted with recursive n (n) as (select 1 union all select n + 1 from n where n < 1500) select n, date '2018-01-01' + interval n day, 'x' from n;
create table listed (id int) partition by list (id) (partition a values in (1, 2), partition b values in (9, null));
insert into listed values (1), (9), (null);
create table by_key (id int primary key, x text) partition by key () partitions 3; insert into by_key values (1, 'a'), (2, 'b'), (3, 'c');
create table mine (id int primary key auto_increment, x text) engine=MyISAM auto_increment=77; insert into mine (x) values ('m');
create table heap (id int primary key) engine=MEMORY;
create table csv (id int not null) engine=CSV; insert into csv values (1);
create table archived (id int not null) engine=ARCHIVE; insert into archived values (1), (2);
create table `empty` (id int);
create table compressed_rows (id int primary key, x text) row_format=compressed key_block_size=4; insert into compressed_rows values (1, 'x');
create table pages (x text) compression = 'zlib'; insert into pages values (repeat('p', 5000));
set sql_generate_invisible_primary_key = on;
create table keyless (x int); insert into keyless (x) values (3), (1);
set sql_generate_invisible_primary_key = off;
create view simple as select id, v from `all types`;
create algorithm=merge definer=`corpus ``odd`@`%` sql security definer view `odd ``view; %` as select `sel``ect` as `x``y;` from `odd ``name``; "x" 'y' \\ %s ü €` with cascaded check option;
create algorithm=temptable sql security invoker view on_view as select count(*) as n, 'it''s \\ ; --' as t from simple;
create definer=`gone`@`%` view of_one_gone as select b.id, (select max(k.id) from kids k where k.a = b.id) as `m;` from bytes b where exists (select 1 from kids where kids.id = b.id);
create view z_first as select 1 as x; create view a_on_z as select * from z_first;
create view windowed as with recursive n (n) as (select 1 union all select n + 1 from n where n < 3) select n, row_number() over (order by n desc) as r from n;
delimiter $$
create function add_tax(x decimal(10,2)) returns decimal(10,2) deterministic comment 'it''s; "x"' begin declare `a``b` int default 1; -- ;
  return x * 1.19; end $$
create definer=`corpus ``odd`@`%` procedure `odd ``proc;`(in a int, out `b``c` text, inout d json) modifies sql data sql security invoker
begin
  declare exit handler for sqlexception begin rollback; end;
  start transaction; insert into `empty` values (a); set `b``c` = 'DELIMITER ;'; commit;
end $$
create trigger first_ before insert on kids for each row begin if new.id > 1000000 then set new.id = 1; end if; end $$
create trigger second_ before insert on kids for each row precedes first_ set new.self = coalesce(new.self, new.id) $$
create definer=`corpus ``odd`@`%` trigger `odd ``trigger;` after delete on `empty` for each row insert into parents values (old.id, 1, ';') $$
create event `odd ``event;` on schedule every 1 day starts '2036-01-01 00:00:00' ends '2037-01-01' on completion preserve enable comment 'it''s' do begin delete from `empty`; end $$
create event sleeping on schedule at '2036-01-01 00:00:00' disable do select 1 $$
set sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES' $$
create procedure of_mode() select "id", 'a\' || 'b' from "all types" $$
create trigger of_mode_too before update on `empty` for each row set new.id = length('\') $$
create view of_mode_view as select 'a' || '\' as "x y" $$
set sql_mode = 'STRICT_TRANS_TABLES' $$
set names latin1 $$
create procedure of_latin() select 'gr' as x $$
set names utf8mb4 $$
delimiter ;
