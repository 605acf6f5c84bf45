SELECT topic, partition, topic_id, beginning, position, epoch
FROM _foldline_positions
WHERE target = ?1 AND generation = ?2
ORDER BY topic, partition
