SELECT topic, partition, topic_id, beginning, position, epoch, generation
FROM {schema}.positions
WHERE target = $1
ORDER BY topic COLLATE "C", partition
