INSERT OR IGNORE INTO _foldline_left_out
SELECT v.target, b.generation, v.topic, v.partition, v.offset, v.reason, v.definition, 1
FROM _foldline_left_out AS v
JOIN _foldline_positions AS a USING (target, generation, topic, partition)
JOIN _foldline_positions AS b
  ON b.target = v.target AND b.generation = ?3
  AND b.topic = v.topic AND b.partition = v.partition
WHERE v.target = ?1 AND v.generation = ?2
  AND (v.open = 0 OR v.offset >= a.position)
  AND (a.topic_id = b.topic_id OR a.topic_id = '' OR b.topic_id = '')
