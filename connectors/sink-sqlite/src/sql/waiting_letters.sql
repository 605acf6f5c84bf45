SELECT topic, partition, offset, letter
FROM _foldline_bad_records
WHERE target = ?1 AND generation = ?2 AND letter IS NOT NULL
LIMIT ?3
