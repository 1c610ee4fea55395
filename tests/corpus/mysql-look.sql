-- All that is in the session's database, a line each, by catalog and by content; the same for the same
-- database under whatever name.
set names utf8mb4, time_zone = '+00:00', information_schema_stats_expiry = 0, @here = concat('`', database(), '`.'),
  show_gipk_in_create_table_and_information_schema = on, group_concat_max_len = 100000000;
select 'database', default_character_set_name, default_collation_name from information_schema.schemata
  where schema_name = database();
select 'table', table_name, table_type, engine, row_format, auto_increment, table_collation, create_options, hex(table_comment)
  from information_schema.tables where table_schema = database() order by 2;
select 'column', table_name, ordinal_position, hex(column_name), replace(column_default, @here, ''), is_nullable, column_type,
    character_set_name, collation_name, column_key, extra, hex(column_comment), hex(generation_expression), srs_id
  from information_schema.columns where table_schema = database() order by 2, 3;
select 'check', table_name, c.constraint_name, hex(check_clause), enforced
  from information_schema.check_constraints c join information_schema.table_constraints t
    on t.constraint_schema = c.constraint_schema and t.constraint_name = c.constraint_name
  where c.constraint_schema = database() order by 2, 3;
select 'index', table_name, hex(index_name), seq_in_index, non_unique, column_name, collation, sub_part, index_type, index_comment,
    is_visible, hex(expression)
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
    character_set_client, collation_connection from information_schema.views where table_schema = database() order by 2;
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
-- The rows, in whatever order: CHECKSUM TABLE says something else each time where a column is JSON with
-- an index of its values.
select group_concat(of_table order by table_name separator ' union all ') into @rows from (
  select table_name, concat('select ''', replace(replace(table_name, '\\', '\\\\'), '''', ''''''), ''', count(*), coalesce(sum(crc32(concat_ws(''|'', ',
      group_concat(if(data_type regexp 'binary|blob|bit|vector|geometry|point|polygon',
          concat('coalesce(hex(`', replace(column_name, '`', '``'), '`), ''-'')'),
          concat('coalesce(hex(cast(`', replace(column_name, '`', '``'), '` as char)), ''-'')'))
        order by ordinal_position separator ', '),
      '))), 0) from `', replace(table_name, '`', '``'), '`') as of_table
    from information_schema.columns join information_schema.tables using (table_schema, table_name)
    where table_schema = database() and table_type = 'BASE TABLE' group by table_name) t;
prepare look from @rows;
execute look;
