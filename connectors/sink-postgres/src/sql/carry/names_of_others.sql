SELECT relname
FROM pg_class
WHERE relnamespace = (
        SELECT relnamespace
        FROM pg_class
        WHERE oid = {live}
    )
    AND oid NOT IN (
        SELECT indexrelid
        FROM pg_index
        WHERE indrelid IN ({live}, {next})
    )
