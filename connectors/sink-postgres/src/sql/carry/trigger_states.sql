SELECT format(
    'ALTER TABLE %s %s TRIGGER %I',
    {live},
    CASE tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END,
    tgname
)
FROM pg_trigger
WHERE tgrelid = {oid} AND NOT tgisinternal AND tgenabled <> 'O'
