-- All that is in a database, a line each, by catalog and by content; the same for the same database.
set default_transaction_read_only = off;
set search_path = pg_catalog;
set extra_float_digits = 3;
create function pg_temp.q(text) returns text language sql as 'select to_json($1)::text';
-- What belongs to an extension is the extension's to make.
create temporary view own as
  select classid, objid from (
    select 'pg_class'::regclass as classid, oid as objid, relnamespace as space from pg_class where relkind <> 't'
    union all select 'pg_proc'::regclass, oid, pronamespace from pg_proc
    union all select 'pg_type'::regclass, oid, typnamespace from pg_type
    union all select 'pg_operator'::regclass, oid, oprnamespace from pg_operator
    union all select 'pg_collation'::regclass, oid, collnamespace from pg_collation
    union all select 'pg_conversion'::regclass, oid, connamespace from pg_conversion
    union all select 'pg_ts_config'::regclass, oid, cfgnamespace from pg_ts_config
    union all select 'pg_ts_dict'::regclass, oid, dictnamespace from pg_ts_dict
    union all select 'pg_statistic_ext'::regclass, oid, stxnamespace from pg_statistic_ext
    union all select 'pg_namespace'::regclass, oid, oid from pg_namespace
  ) o join pg_namespace n on n.oid = o.space
  where nspname !~ '^pg_' and nspname <> 'information_schema'
  except select classid, objid from pg_depend where deptype = 'e';
create temporary view named as
  select classid, objid, i.type, i.identity from own, pg_identify_object(classid, objid, 0) i;

select 'comment', i.type, i.identity, pg_temp.q(description) from pg_description d,
  pg_identify_object(classoid, objoid, objsubid) i
  where i.identity !~ '^(pg_catalog|information_schema)\.' and not exists (select from pg_depend e
    where e.classid = d.classoid and e.objid = d.objoid and e.deptype = 'e')
    and (classoid in ('pg_largeobject'::regclass, 'pg_trigger'::regclass, 'pg_constraint'::regclass) or exists
      (select from own o where o.classid = d.classoid and o.objid = d.objoid)) order by 1, 2, 3;
select 'relation', pg_temp.q(identity), relkind, relpersistence, relowner::regrole, relacl, reloptions, relrowsecurity,
    relforcerowsecurity, relreplident, relhasindex, relispartition, relispopulated,
    pg_get_expr(relpartbound, oid), case relkind when 'p' then pg_get_partkeydef(oid) end,
    (select amname from pg_am where oid = relam), reloftype::regtype,
    (select json_agg(inhparent::regclass order by inhseqno) from pg_inherits where inhrelid = c.oid),
    case when relkind in ('v', 'm') then pg_temp.q(pg_get_viewdef(oid)) end,
    case when relkind in ('i', 'I') then pg_temp.q(pg_get_indexdef(oid)) end
  from named join pg_class c on objid = oid where classid = 'pg_class'::regclass order by 2;
select 'index', indexrelid::regclass::text, indisunique, indisprimary, indisvalid, indisclustered, indisreplident, indnullsnotdistinct
  from pg_index join own on objid = indexrelid order by 2;
select 'column', attrelid::regclass::text, row_number() over (partition by attrelid order by attnum), pg_temp.q(attname::text),
    format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, attstorage, attcompression,
    nullif(attstattarget::int, -1), attislocal, attinhcount, attacl, attoptions, attfdwoptions, attcollation::regcollation,
    (select pg_get_expr(adbin, adrelid) from pg_attrdef where adrelid = attrelid and adnum = attnum)
  from pg_attribute join own on objid = attrelid and classid = 'pg_class'::regclass
  where attnum > 0 and not attisdropped order by 2, 3;
select 'constraint', conrelid::regclass::text, contypid::regtype::text, pg_temp.q(conname), contype, convalidated, condeferrable, condeferred,
    conislocal, coninhcount, connoinherit and contype = 'c', pg_temp.q(pg_get_constraintdef(c.oid))
  from pg_constraint c join pg_namespace n on n.oid = connamespace
  where nspname !~ '^pg_' and nspname <> 'information_schema' order by 2, 3, 4;
select 'trigger', tgrelid::regclass::text, pg_temp.q(tgname), tgenabled, pg_temp.q(pg_get_triggerdef(t.oid))
  from pg_trigger t where not tgisinternal order by 2, 3;
select 'rule', ev_class::regclass::text, pg_temp.q(rulename), ev_enabled, pg_temp.q(pg_get_ruledef(r.oid))
  from pg_rewrite r join own on objid = ev_class order by 2, 3;
select 'policy', polrelid::regclass::text, pg_temp.q(polname), polcmd, polpermissive, polroles::regrole[],
    pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid) from pg_policy order by 2, 3;
select 'function', pg_temp.q(identity), proowner::regrole, proacl, prokind, proconfig,
    case prokind when 'a' then (select row(aggtransfn, agginitval, aggtranstype::regtype)::text from pg_aggregate
      where aggfnoid = p.oid) else pg_temp.q(pg_get_functiondef(p.oid)) end
  from named join pg_proc p on objid = oid where classid = 'pg_proc'::regclass order by 2;
select 'type', pg_temp.q(identity), typtype, typowner::regrole, typacl, typnotnull, typdefault, typbasetype::regtype,
    (select json_agg(enumlabel order by enumsortorder) from pg_enum where enumtypid = t.oid),
    (select row(rngsubtype::regtype, rngsubdiff, rngcollation::regcollation)::text from pg_range where rngtypid = t.oid)
  from named join pg_type t on objid = oid where classid = 'pg_type'::regclass order by 2;
select 'operator', identity, oprcode, oprowner::regrole, oprcom, oprnegate from named join pg_operator on objid = oid
  where classid = 'pg_operator'::regclass order by 2;
select 'collation', pg_temp.q(identity), collprovider, collisdeterministic, collowner::regrole from named join pg_collation
  on objid = oid where classid = 'pg_collation'::regclass order by 2;
select 'other', type, pg_temp.q(identity) from named where classid in ('pg_conversion'::regclass, 'pg_ts_dict'::regclass,
  'pg_ts_config'::regclass) order by 2, 3;
select 'words', mapcfg::regconfig::text, maptokentype, mapseqno, mapdict::regdictionary from pg_ts_config_map
  where mapcfg >= 16384 order by 2, 3, 4;
select 'dictionary', dictname, dictinitoption from pg_ts_dict where oid >= 16384 order by 2;
select 'statistics', pg_temp.q(identity), nullif(stxstattarget::int, -1), stxowner::regrole, pg_get_statisticsobjdef(objid)
  from named join pg_statistic_ext on objid = oid where classid = 'pg_statistic_ext'::regclass order by 2;
select 'schema', pg_temp.q(nspname), nspowner::regrole, nspacl from pg_namespace
  where nspname !~ '^pg_' and nspname <> 'information_schema' order by 2;
select 'extension', extname, extversion, extnamespace::regnamespace from pg_extension order by 2;
select 'cast', castsource::regtype::text, casttarget::regtype::text, castcontext from pg_cast where oid >= 16384 order by 2, 3;
select 'event trigger', evtname, evtevent, evtowner::regrole, evtfoid::regproc, evtenabled, evttags from pg_event_trigger order by 2;
select 'publication', pg_temp.q(pubname), pubowner::regrole, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot
  from pg_publication order by 2;
select 'published', pubname, schemaname, pg_temp.q(tablename), attnames, rowfilter from pg_publication_tables
  where pubname = 'some' order by 2, 3, 4;
select 'wrapper', fdwname, fdwowner::regrole, fdwacl, fdwoptions from pg_foreign_data_wrapper where oid >= 16384 order by 2;
select 'server', pg_temp.q(srvname), srvowner::regrole, srvtype, srvversion, srvacl, srvoptions from pg_foreign_server order by 2;
select 'mapping', srvname, usename, umoptions from pg_user_mappings order by 2, 3;
select 'foreign', ftrelid::regclass::text, ftoptions from pg_foreign_table order by 2;
select 'language', lanname, lanowner::regrole, lanacl from pg_language order by 2;
select 'default', defaclrole::regrole::text, defaclnamespace::regnamespace::text, defaclobjtype, defaclacl from pg_default_acl order by 2, 3, 4;
select 'large', oid, lomowner::regrole, lomacl, md5(lo_get(oid)) from pg_largeobject_metadata order by 2;
select 'sequence', schemaname, pg_temp.q(sequencename), start_value, min_value, max_value, increment_by, cycle, cache_size,
  last_value, pg_get_serial_sequence from pg_sequences, lateral (select objid::regclass::text || refobjid::regclass::text
  || refobjsubid as pg_get_serial_sequence from pg_depend where objid = format('%I.%I', schemaname, sequencename)::regclass
  and deptype in ('a', 'i') and refclassid = 'pg_class'::regclass union all select '' limit 1) o order by 2, 3;
select 'database', encoding, datcollate, datctype, datlocprovider, pg_get_userbyid(datdba),
  (select array_agg(one order by one::text) from unnest(datacl) one), datconnlimit,
  pg_temp.q(shobj_description(oid, 'pg_database')) from pg_database where datname = current_database();
select 'setting', setrole::regrole::text, setconfig from pg_db_role_setting
  where setdatabase = (select oid from pg_database where datname = current_database()) order by 2;
-- The rows, in an order of their own.
select 'rows', pg_temp.q(identity), (xpath('/row/x/text()', query_to_xml(format(
    'select count(*) || '' '' || md5(coalesce(string_agg(md5(t::text), '''' order by md5(t::text)), '''')) as x
     from %s %s t', case when relkind = 'p' then '' else 'only' end, objid::regclass), false, true, '')))[1]
  from named join pg_class on oid = objid
  where classid = 'pg_class'::regclass and relkind in ('r', 'm', 'p') and relispopulated order by 2;
