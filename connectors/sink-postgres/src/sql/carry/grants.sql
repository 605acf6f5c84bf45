SELECT format(
    'GRANT %s ON TABLE %s TO %s%s',
    a.privilege_type,
    {next},
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
)
FROM pg_class c, aclexplode(c.relacl) a
WHERE c.oid = {live_oid} AND a.grantee <> c.relowner
