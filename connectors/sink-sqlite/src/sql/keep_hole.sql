INSERT INTO _foldline_holes (target, generation, topic, partition, from_offset, to_offset)
SELECT p.target, p.generation, p.topic, p.partition, max(p.position, ?5), ?6
FROM _foldline_positions AS p
JOIN _foldline_positions AS l
  ON l.target = p.target AND l.generation = ?2
  AND l.topic = p.topic AND l.partition = p.partition
WHERE p.target = ?1 AND p.topic = ?3 AND p.partition = ?4 AND p.position < ?6
  AND (l.topic_id = p.topic_id OR l.topic_id = '' OR p.topic_id = '')
ON CONFLICT DO UPDATE SET
  to_offset = max(to_offset, excluded.to_offset),
  repeated = 1
