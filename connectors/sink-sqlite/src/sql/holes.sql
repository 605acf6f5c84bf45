SELECT topic, partition, from_offset, to_offset, repeated
FROM _foldline_holes
WHERE target = ?1 AND generation = ?2
ORDER BY topic, partition, from_offset
