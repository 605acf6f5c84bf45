SELECT coalesce(
    string_agg(DISTINCT g.tgname::text, ', ') FILTER (WHERE g.tgtype & 3 = 3),
    string_agg(DISTINCT g.tgname::text, ', ')
)
FROM pg_trigger AS g, (SELECT to_regclass({table})::oid) AS t(oid)
WHERE NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgtype & 28 <> 0
    AND (g.tgrelid = t.oid OR g.tgrelid IN (SELECT relid FROM pg_partition_tree(t.oid)))
