INSERT INTO {schema}.holes (target, generation, topic, partition, from_offset, to_offset)
SELECT p.target, p.generation, p.topic, p.partition, greatest(p.position, $5), $6
FROM {schema}.positions AS p
JOIN {schema}.positions AS l
    ON l.target = p.target AND l.generation = $2
    AND l.topic = p.topic AND l.partition = p.partition
WHERE p.target = $1 AND p.topic = $3 AND p.partition = $4 AND p.position < $6
    AND (l.topic_id <> p.topic_id) IS NOT TRUE
ON CONFLICT (target, generation, topic, partition, from_offset) DO UPDATE SET
    to_offset = greatest(holes.to_offset, excluded.to_offset),
    repeated = true
