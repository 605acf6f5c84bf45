SELECT type, name, sql
FROM sqlite_schema
WHERE type IN ('index', 'trigger') AND sql IS NOT NULL
  AND tbl_name = ?1 COLLATE NOCASE
  AND substr(name, 1, length(?2)) <> ?2
ORDER BY rowid
