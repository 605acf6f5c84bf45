INSERT OR REPLACE INTO _foldline_bad_records (
  target, generation, topic, partition, offset, by_store, letter
)
SELECT l.target, b.generation, l.topic, l.partition, l.offset, l.by_store, NULL
FROM _foldline_bad_records AS l
JOIN _foldline_positions AS a USING (target, generation, topic, partition)
JOIN _foldline_positions AS b
  ON b.target = l.target AND b.generation = ?3
  AND b.topic = l.topic AND b.partition = l.partition
WHERE l.target = ?1 AND l.generation = ?2 AND l.letter IS NULL
  AND (a.topic_id = b.topic_id OR a.topic_id = '' OR b.topic_id = '')
