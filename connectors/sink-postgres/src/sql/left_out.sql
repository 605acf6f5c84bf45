SELECT topic, partition, record_offset, reason, definition
FROM {schema}.verdicts
WHERE target = $1 AND generation = $2 AND NOT open
ORDER BY topic, partition, record_offset
