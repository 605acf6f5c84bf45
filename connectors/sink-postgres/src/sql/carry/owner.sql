SELECT format('ALTER TABLE %s OWNER TO %I', {next}, pg_get_userbyid(relowner))
FROM pg_class
WHERE oid = {oid}
    AND relowner <> (
        SELECT oid
        FROM pg_roles
        WHERE rolname = current_user
    )
