SELECT topic, partition, topic_id, beginning, position, epoch
FROM {schema}.positions
WHERE target = $1 AND generation = $2
ORDER BY topic COLLATE "C", partition
