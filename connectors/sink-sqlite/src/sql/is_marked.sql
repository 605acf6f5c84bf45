SELECT 1
FROM sqlite_schema
WHERE type = 'trigger' AND name = ?1 AND tbl_name = ?2 COLLATE NOCASE
