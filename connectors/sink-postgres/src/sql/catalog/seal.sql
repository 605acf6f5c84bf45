SELECT
    pg_current_xact_id()::xid AS xid,
    t.oid AS oid,
    coalesce(
        (
            SELECT max(CASE WHEN g.tgtype & 3 = 3 THEN 2 ELSE 1 END)
            FROM pg_trigger AS g
            WHERE NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgtype & 28 <> 0
                AND (g.tgrelid = t.oid OR g.tgrelid IN (SELECT relid FROM pg_partition_tree(t.oid)))
        ),
        0
    ) AS triggers,
    (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8 AS started,
    EXISTS (SELECT 1 FROM {schema}.lookups WHERE looked_up = {label}) AS followed,
    ARRAY(SELECT DISTINCT via FROM {schema}.gathers WHERE looked_up = {label} ORDER BY via) AS vias
FROM (SELECT to_regclass({table})::oid) AS t(oid)
