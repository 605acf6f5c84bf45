SELECT CASE
    WHEN a.attgenerated <> '' OR a.attidentity <> ''
        OR pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%' THEN 'fine'
    ELSE coalesce('(' || pg_get_expr(d.adbin, d.adrelid) || ')', 'NULL')
END
FROM pg_attribute a
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = {oid} AND a.attname = {column}
