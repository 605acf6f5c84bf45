SELECT 1
FROM _foldline_bad_records
WHERE target = ?1 AND generation = ?2 AND topic = ?3 AND partition = ?4 AND offset = ?5
  AND letter IS NULL
