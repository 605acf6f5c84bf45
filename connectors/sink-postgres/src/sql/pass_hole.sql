UPDATE {schema}.positions AS p
SET
    position = CASE WHEN p.position >= $5 THEN $6 ELSE p.position END,
    epoch = p.epoch + 1,
    updated_at = now()
FROM {schema}.positions AS l
WHERE l.target = p.target AND l.generation = $2
    AND l.topic = p.topic AND l.partition = p.partition
    AND p.target = $1 AND p.topic = $3 AND p.partition = $4 AND p.position < $6
    AND (l.topic_id <> p.topic_id) IS NOT TRUE
