SELECT replace(pg_get_triggerdef(g.oid), format(' ON %I.%I ', n.nspname, c.relname), {on_next})
FROM pg_trigger g
JOIN pg_class c ON c.oid = g.tgrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE tgrelid = {oid} AND NOT tgisinternal AND tgtype & 2 <> 0
ORDER BY tgname
