-- All that is in the session's database, a line each, by catalog and by content; the same for the same
-- database under whatever name.
set names utf8mb4, group_concat_max_len = 100000000, time_zone = '+00:00', @here = concat('`', database(), '`.');
select 'database', default_character_set_name, default_collation_name from information_schema.schemata
  where schema_name = database();
select 'table', table_name, table_type, engine, row_format, auto_increment, table_collation, create_options, hex(table_comment)
  from information_schema.tables where table_schema = database() order by 2;
select 'column', table_name, ordinal_position, hex(column_name), replace(column_default, @here, ''), is_nullable, column_type,
    character_set_name, collation_name, column_key, extra, hex(column_comment), is_generated, hex(generation_expression)
  from information_schema.columns where table_schema = database() order by 2, 3;
select 'check', table_name, constraint_name, level, hex(check_clause) from information_schema.check_constraints
  where constraint_schema = database() order by 2, 3;
select 'index', table_name, hex(index_name), seq_in_index, non_unique, column_name, collation, sub_part, index_type, index_comment
  from information_schema.statistics where table_schema = database() order by 2, 3, 4;
select 'key', k.table_name, hex(k.constraint_name), k.ordinal_position, k.column_name, k.referenced_table_name, k.referenced_column_name,
    r.update_rule, r.delete_rule, k.referenced_table_schema = database()
  from information_schema.key_column_usage k left join information_schema.referential_constraints r
    on r.constraint_schema = k.constraint_schema and r.constraint_name = k.constraint_name and r.table_name = k.table_name
  where k.table_schema = database() order by 2, 3, 4;
select 'partition', table_name, partition_name, subpartition_name, partition_method, subpartition_method, partition_expression,
    partition_description
  from information_schema.partitions where table_schema = database() and partition_name is not null order by 2, 3, 4;
select 'view', hex(table_name), hex(replace(view_definition, @here, '')), check_option, is_updatable, definer, security_type,
    character_set_client, collation_connection, algorithm from information_schema.views where table_schema = database() order by 2;
select 'trigger', hex(trigger_name), event_manipulation, event_object_table, action_order, hex(action_statement), action_timing, sql_mode,
    definer, character_set_client, collation_connection, database_collation
  from information_schema.triggers where trigger_schema = database() order by 2;
select 'routine', hex(routine_name), routine_type, dtd_identifier, hex(routine_definition), is_deterministic, sql_data_access, security_type,
    sql_mode, hex(routine_comment), definer, character_set_client, collation_connection, database_collation
  from information_schema.routines where routine_schema = database() order by 2, 3;
select 'parameter', hex(specific_name), ordinal_position, parameter_mode, hex(parameter_name), dtd_identifier, collation_name
  from information_schema.parameters where specific_schema = database() order by 2, 3;
select 'event', hex(event_name), definer, hex(event_definition), event_type, execute_at, interval_value, interval_field, sql_mode, starts,
    ends, status, on_completion, hex(event_comment), time_zone, character_set_client
  from information_schema.events where event_schema = database() order by 2;
-- The rows: a checksum does not depend on their order. What is in no column list is not in it, either.
select group_concat('`', replace(table_name, '`', '``'), '`' order by table_name) into @tables
  from information_schema.tables where table_schema = database() and table_type like '%BASE TABLE' or
    table_schema = database() and table_type = 'SYSTEM VERSIONED';
execute immediate concat('checksum table ', @tables, ' extended');
select group_concat('select ''history'', hex(''', replace(replace(table_name, '\\', '\\\\'), '''', ''''''), '''), count(*) from `',
    replace(table_name, '`', '``'), '` for system_time all' order by table_name separator ' union all ') into @history
  from information_schema.tables where table_schema = database() and table_type = 'SYSTEM VERSIONED';
execute immediate coalesce(@history, 'do 1');
select group_concat('select ''sequence'', hex(''', replace(replace(table_name, '\\', '\\\\'), '''', ''''''), '''), s.* from `',
    replace(table_name, '`', '``'), '` s' order by table_name separator ' union all ') into @sequences
  from information_schema.tables where table_schema = database() and table_type = 'SEQUENCE';
execute immediate coalesce(@sequences, 'do 1');
