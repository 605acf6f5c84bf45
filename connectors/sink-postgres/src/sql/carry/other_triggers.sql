SELECT pg_get_triggerdef(t.oid)
FROM pg_trigger t
WHERE t.tgrelid = {live} AND NOT t.tgisinternal
    AND NOT EXISTS (
        SELECT 1
        FROM pg_trigger o
        WHERE o.tgrelid = {next} AND o.tgname = t.tgname
    )
ORDER BY t.tgname
