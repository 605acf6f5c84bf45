SELECT topic, partition, from_offset, to_offset, repeated
FROM {schema}.holes
WHERE target = $1 AND generation = $2
ORDER BY topic COLLATE "C", partition, from_offset
