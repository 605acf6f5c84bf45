INSERT INTO _foldline_positions (target, generation, topic, partition, topic_id, beginning, position, epoch)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, 0)
ON CONFLICT DO NOTHING
