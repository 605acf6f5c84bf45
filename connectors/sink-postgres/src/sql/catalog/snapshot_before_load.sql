SELECT 'process ' || pid || coalesce(' (' || nullif(application_name, '') || ')', '')
FROM pg_stat_activity
WHERE datname = current_database()
    AND pid <> pg_backend_pid()
    AND coalesce(backend_type, 'client backend') = 'client backend'
    AND backend_xmin IS NOT NULL
    AND age(backend_xmin) > age(({xid} % 4294967296)::text::xid)
ORDER BY xact_start
LIMIT 1
