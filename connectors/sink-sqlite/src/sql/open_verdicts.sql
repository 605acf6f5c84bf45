SELECT
  v.topic AS topic,
  v.partition AS partition,
  v.offset AS offset,
  v.reason AS reason,
  v.definition AS definition
FROM _foldline_left_out AS v
JOIN _foldline_positions AS a USING (target, generation, topic, partition)
JOIN _foldline_positions AS p
  ON p.target = v.target AND p.generation = ?2
  AND p.topic = v.topic AND p.partition = v.partition
WHERE v.target = ?1 AND v.topic = ?3 AND v.partition = ?4 AND v.offset >= ?5
  AND (v.generation = ?2 OR v.reason = ?6 AND a.topic_id = p.topic_id)
ORDER BY v.offset, v.reason <> ?6
