SELECT topic, partition, record_offset, letter
FROM {schema}.bad_records
WHERE target = $1 AND generation = $2 AND letter IS NOT NULL
LIMIT $3
