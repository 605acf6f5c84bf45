SELECT
    c.relname AS name,
    k.conname IS NOT NULL AS is_constraint,
    coalesce(
        pg_get_constraintdef(k.oid),
        substr(
            pg_get_indexdef(i.indexrelid),
            length(
                format(
                    'CREATE %sINDEX %I ON %I.%I',
                    CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END,
                    c.relname,
                    n.nspname,
                    t.relname
                )
            ) + 1
        )
    ) AS definition,
    i.indisunique AS is_unique,
    obj_description(c.oid, 'pg_class') AS comment
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_constraint k
    ON k.conindid = c.oid AND k.contype IN ('p', 'u', 'x') AND k.conrelid = t.oid
WHERE i.indrelid = {oid} AND i.indisvalid
    AND (i.indisunique OR coalesce(k.contype = 'x', false)) = {deciding}
    AND NOT EXISTS (
        SELECT 1
        FROM pg_depend d
        JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.refobjid = {oid} AND d.objid IN (c.oid, k.oid)
            AND to_regclass({next}) IS NOT NULL
            AND NOT EXISTS (
                SELECT 1
                FROM pg_attribute o
                WHERE o.attrelid = to_regclass({next})
                    AND o.attname = a.attname AND NOT o.attisdropped
            )
    )
ORDER BY c.relname
