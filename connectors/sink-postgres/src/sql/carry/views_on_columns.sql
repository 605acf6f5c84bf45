SELECT DISTINCT 'view ' || r.ev_class::regclass || ' on column ' || quote_ident(a.attname)
FROM pg_depend d
JOIN pg_rewrite r ON r.oid = d.objid
JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_rewrite'::regclass
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid = {oid}
    AND a.attname IN ({columns})
