INSERT INTO {schema}.extensions (target, generation, fingerprint, topic, partition, position)
SELECT target, generation, $3, topic, partition, position
FROM {schema}.positions
WHERE target = $1 AND generation = $2
ON CONFLICT DO NOTHING
