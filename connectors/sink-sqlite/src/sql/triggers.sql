SELECT name
FROM sqlite_schema
WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE
  AND substr(name, 1, length(?2)) <> ?2
ORDER BY name
