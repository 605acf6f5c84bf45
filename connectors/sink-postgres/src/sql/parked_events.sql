SELECT topic, partition, record_offset, keys, reason, request
FROM {schema}.parked
WHERE target = $1 AND generation = $2 AND (NOT $3 OR request IS NOT NULL)
ORDER BY topic COLLATE "C", partition, record_offset
