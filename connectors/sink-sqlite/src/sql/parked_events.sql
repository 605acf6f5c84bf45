SELECT topic, partition, offset, keys, reason, request
FROM _foldline_parked
WHERE target = ?1 AND generation = ?2 AND (NOT ?3 OR request IS NOT NULL)
ORDER BY topic, partition, offset
