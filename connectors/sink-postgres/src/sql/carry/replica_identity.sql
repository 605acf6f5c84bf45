SELECT format(
    'ALTER TABLE %s REPLICA IDENTITY %s',
    {next},
    CASE relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END
)
FROM pg_class
WHERE oid = {oid} AND relreplident IN ('f', 'n')
