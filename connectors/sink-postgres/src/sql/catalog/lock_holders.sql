SELECT DISTINCT 'process ' || a.pid || coalesce(' (' || nullif(a.application_name, '') || ')', '')
FROM pg_locks AS l
JOIN pg_stat_activity AS a USING (pid)
WHERE l.relation IN ({live}, {next})
    AND l.granted
    AND a.pid <> pg_backend_pid()
    AND coalesce(a.application_name, '') <> 'foldline'
    AND coalesce(a.application_name, '') NOT LIKE 'foldline/%'
