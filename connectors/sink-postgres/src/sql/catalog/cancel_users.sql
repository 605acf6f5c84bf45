SELECT pg_cancel_backend(pid)
FROM (
    SELECT DISTINCT pid
    FROM pg_locks
    WHERE relation = {oid} AND pid <> pg_backend_pid()
) AS busy
