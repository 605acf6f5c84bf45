SELECT type, sql
FROM sqlite_schema
WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'view')
