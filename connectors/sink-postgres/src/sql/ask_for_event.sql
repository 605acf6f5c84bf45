UPDATE {schema}.parked
SET request = $6
WHERE target = $1 AND generation = $2 AND topic = $3 AND partition = $4 AND record_offset = $5
