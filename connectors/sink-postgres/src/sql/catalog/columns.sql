SELECT
    a.attname::text AS name,
    format_type(a.atttypid, a.atttypmod) AS type,
    a.attnotnull AS not_null,
    a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '' AS filled,
    a.attidentity = 'a' OR a.attgenerated <> '' AS written_by_server,
    coalesce(l.collisdeterministic, true) AS deterministic
FROM pg_attribute a
LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
