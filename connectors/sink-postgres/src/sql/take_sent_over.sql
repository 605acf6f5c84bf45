INSERT INTO {schema}.bad_records (target, generation, topic, partition, record_offset, by_store)
SELECT l.target, $3, l.topic, l.partition, l.record_offset, l.by_store
FROM {schema}.bad_records AS l
JOIN {schema}.positions AS a USING (target, generation, topic, partition)
JOIN {schema}.positions AS b
    ON b.target = l.target AND b.generation = $3
    AND b.topic = l.topic AND b.partition = l.partition
WHERE l.target = $1 AND l.generation = $2 AND l.letter IS NULL
    AND (a.topic_id <> b.topic_id) IS NOT TRUE
ON CONFLICT (target, generation, topic, partition, record_offset) DO UPDATE SET letter = NULL
