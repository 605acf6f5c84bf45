SELECT
    c.oid AS oid,
    c.relkind::text AS kind,
    c.relpersistence::text AS persistence,
    c.relhasrules AS has_rules,
    row_security_active(c.oid) AS has_row_security,
    EXISTS (
        SELECT 1
        FROM pg_inherits i
        WHERE i.inhparent = c.oid
    ) AND c.relkind = 'r' AS is_inherited,
    EXISTS (
        SELECT 1
        FROM pg_partition_tree(c.oid) p
        JOIN pg_class l ON l.oid = p.relid
        WHERE c.relkind = 'p' AND (l.relkind NOT IN ('r', 'p') OR l.relpersistence <> 'p')
    ) AS has_strange_partitions
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2
