SELECT DISTINCT s.name
FROM sqlite_schema AS s, pragma_foreign_key_list(s.name) AS f
WHERE s.type = 'table' AND f."table" = ?1 COLLATE NOCASE
