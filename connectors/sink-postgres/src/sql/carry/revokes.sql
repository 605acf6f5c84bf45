SELECT DISTINCT format(
    'REVOKE ALL ON TABLE %s FROM %s',
    {next},
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
)
FROM pg_class c, aclexplode(c.relacl) a
WHERE c.oid = {next_oid} AND a.grantee <> c.relowner
