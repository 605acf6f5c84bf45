INSERT OR REPLACE INTO _foldline_parked
  (target, generation, topic, partition, topic_id, offset, keys, reason, request, record)
SELECT target, generation, topic, partition, topic_id, ?5, ?6, ?7, NULL, ?8
FROM _foldline_positions
WHERE target = ?1 AND generation = ?2 AND topic = ?3 AND partition = ?4
