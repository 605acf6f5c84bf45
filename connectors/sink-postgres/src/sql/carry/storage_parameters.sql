SELECT format('ALTER TABLE %s SET (%s)', {next}, array_to_string(reloptions, ', '))
FROM pg_class
WHERE oid = {oid} AND reloptions IS NOT NULL
