DELETE FROM {schema}.parked AS k
USING unnest($3::text[], $4::int4[], $5::int8[]) AS u(topic, partition, record_offset)
WHERE k.target = $1 AND k.generation = $2
    AND k.topic = u.topic AND k.partition = u.partition AND k.record_offset = u.record_offset
