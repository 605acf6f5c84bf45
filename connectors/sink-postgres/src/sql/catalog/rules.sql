SELECT r.name, r.definition, t.relname
FROM pg_class AS t, LATERAL (
    SELECT c.conname::text AS name, pg_get_constraintdef(c.oid) AS definition
    FROM pg_constraint AS c
    WHERE c.conrelid = t.oid AND c.contype IN ('c', 'x')
        AND NOT EXISTS (
            SELECT 1
            FROM pg_depend AS d
            WHERE d.classid = 'pg_constraint'::regclass AND d.objid = c.oid
                AND d.refclassid = 'pg_proc'::regclass
        )
    UNION ALL
    SELECT i.relname::text, 'UNIQUE' || substring(pg_get_indexdef(i.oid) FROM ' USING .*')
    FROM pg_index AS x
    JOIN pg_class AS i ON i.oid = x.indexrelid
    WHERE x.indrelid = t.oid AND x.indisunique
        AND NOT EXISTS (
            SELECT 1
            FROM pg_depend AS d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = i.oid
                AND d.refclassid = 'pg_proc'::regclass
        )
    UNION ALL
    SELECT a.attname::text, 'NOT NULL ' || quote_ident(a.attname)
    FROM pg_attribute AS a
    WHERE a.attrelid = t.oid AND a.attnum > 0 AND a.attnotnull
) AS r(name, definition)
WHERE t.oid = ANY($1)
    AND NOT EXISTS (
        SELECT 1
        FROM pg_trigger AS g
        WHERE g.tgrelid = t.oid AND NOT g.tgisinternal AND g.tgenabled <> 'D'
    )
