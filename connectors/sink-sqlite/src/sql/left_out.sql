SELECT topic, partition, offset, reason, definition
FROM _foldline_left_out
WHERE target = ?1 AND generation = ?2 AND open = 0
ORDER BY topic, partition, offset
