INSERT OR IGNORE INTO _foldline_left_out
SELECT v.target, p.generation, v.topic, v.partition, v.offset, v.reason, NULL, v.offset >= p.position
FROM _foldline_verdicts AS v
JOIN _foldline_positions AS p USING (target, topic, partition, topic_id);

DROP TABLE _foldline_verdicts;
