SELECT format('ALTER TABLE %s SET TABLESPACE %I', {next}, t.spcname)
FROM pg_class c
JOIN pg_tablespace t ON t.oid = c.reltablespace
WHERE c.oid = {oid}
