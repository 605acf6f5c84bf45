SELECT format('ALTER SEQUENCE %I.%I OWNED BY %s.%I', n.nspname, s.relname, {live}, a.attname)
FROM pg_depend d
JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_namespace n ON n.oid = s.relnamespace
JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_class'::regclass
    AND d.refclassid = 'pg_class'::regclass
    AND d.deptype = 'a'
    AND d.refobjid = {live_oid}
    AND EXISTS (
        SELECT 1
        FROM pg_attribute o
        WHERE o.attrelid = {next_oid} AND o.attname = a.attname AND NOT o.attisdropped
    )
