INSERT INTO {schema}.holes (target, generation, topic, partition, from_offset, to_offset)
SELECT h.target, $3, h.topic, h.partition, h.from_offset, h.to_offset
FROM {schema}.holes AS h
JOIN {schema}.positions AS a USING (target, generation, topic, partition)
JOIN {schema}.positions AS b
    ON b.target = h.target AND b.generation = $3
    AND b.topic = h.topic AND b.partition = h.partition
WHERE h.target = $1 AND h.generation = $2 AND h.repeated
    AND h.to_offset > b.position
    AND (a.topic_id <> b.topic_id) IS NOT TRUE
ON CONFLICT DO NOTHING
