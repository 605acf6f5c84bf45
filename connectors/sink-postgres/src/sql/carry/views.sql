SELECT DISTINCT format(
    'CREATE OR REPLACE VIEW %I.%I %sAS %s',
    n.nspname,
    v.relname,
    CASE
        WHEN v.reloptions IS NULL THEN ''
        ELSE 'WITH (' || array_to_string(v.reloptions, ', ') || ') '
    END,
    pg_get_viewdef(v.oid)
)
FROM pg_depend d
JOIN pg_rewrite r ON r.oid = d.objid
JOIN pg_class v ON v.oid = r.ev_class
JOIN pg_namespace n ON n.oid = v.relnamespace
WHERE d.classid = 'pg_rewrite'::regclass
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid = {oid}
    AND v.relkind = 'v'
