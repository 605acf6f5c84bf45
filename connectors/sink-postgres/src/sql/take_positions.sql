UPDATE {schema}.positions AS p
SET epoch = p.epoch + 1, updated_at = now()
FROM unnest($3::text[], $4::int4[]) AS u(topic, partition)
WHERE p.target = $1 AND p.generation = $2
    AND p.topic = u.topic AND p.partition = u.partition
RETURNING p.topic, p.partition, p.topic_id, p.beginning, p.position, p.epoch
