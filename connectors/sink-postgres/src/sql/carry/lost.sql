SELECT pg_describe_object(d.classid, d.objid, d.objsubid)
FROM pg_depend d
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = {oid}
    AND NOT (d.classid = 'pg_class'::regclass AND d.objid = {oid})
    AND NOT (
        d.classid = 'pg_class'::regclass
        AND EXISTS (
            SELECT 1
            FROM pg_class c
            WHERE c.oid = d.objid
                AND (c.relkind IN ('i', 'I', 't') OR (c.relkind = 'S' AND d.deptype IN ('a', 'i')))
        )
    )
    AND d.classid NOT IN (
        'pg_attrdef'::regclass, 'pg_trigger'::regclass, 'pg_type'::regclass,
        'pg_statistic_ext'::regclass, 'pg_constraint'::regclass
    )
    AND NOT (
        d.classid = 'pg_rewrite'::regclass
        AND EXISTS (
            SELECT 1
            FROM pg_rewrite r
            JOIN pg_class v ON v.oid = r.ev_class
            WHERE r.oid = d.objid AND v.relkind = 'v'
        )
    )
UNION
SELECT pg_describe_object(d.classid, d.objid, d.objsubid)
FROM pg_depend d
JOIN pg_class c ON c.oid = {oid}
JOIN pg_type t ON t.oid = c.reltype
WHERE d.refclassid = 'pg_type'::regclass AND d.refobjid IN (t.oid, t.typarray) AND d.deptype <> 'i'
UNION
SELECT 'the foreign key ' || quote_ident(conname) || ' to itself'
FROM pg_constraint
WHERE contype = 'f' AND conrelid = {oid} AND confrelid = {oid}
UNION
SELECT 'a partitioned table'
FROM pg_class
WHERE oid = {oid} AND relkind = 'p'
UNION
SELECT 'replica identity by an index'
FROM pg_class
WHERE oid = {oid} AND relreplident = 'i'
UNION
SELECT 'security label'
FROM pg_seclabel
WHERE objoid = {oid} AND classoid = 'pg_class'::regclass
UNION
SELECT 'row security policy ' || quote_ident(polname)
FROM pg_policy
WHERE polrelid = {oid}
UNION
SELECT 'table or view ' || c.oid::regclass || ', which this role does not own'
FROM pg_class c
WHERE NOT pg_has_role(c.relowner, 'USAGE')
    AND (
        c.oid = {oid}
        OR c.oid IN (
            SELECT conrelid
            FROM pg_constraint
            WHERE contype = 'f' AND confrelid = {oid}
        )
        OR c.oid IN (
            SELECT r.ev_class
            FROM pg_depend d
            JOIN pg_rewrite r ON r.oid = d.objid
            WHERE d.classid = 'pg_rewrite'::regclass
                AND d.refclassid = 'pg_class'::regclass AND d.refobjid = {oid}
        )
    )
ORDER BY 1
LIMIT 5
