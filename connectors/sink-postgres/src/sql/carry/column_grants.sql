SELECT format(
    'GRANT %s (%I) ON TABLE %s TO %s%s',
    a.privilege_type,
    t.attname,
    {next},
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
)
FROM pg_attribute t, aclexplode(t.attacl) a
WHERE t.attrelid = {live_oid} AND NOT t.attisdropped
    AND EXISTS (
        SELECT 1
        FROM pg_attribute o
        WHERE o.attrelid = {next_oid} AND o.attname = t.attname
    )
