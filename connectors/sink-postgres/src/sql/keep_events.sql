UPDATE {schema}.parked AS k
SET request = NULL, reason = coalesce(u.reason, k.reason)
FROM unnest($3::text[], $4::int4[], $5::int8[], $6::text[])
    AS u(topic, partition, record_offset, reason)
WHERE k.target = $1 AND k.generation = $2
    AND k.topic = u.topic AND k.partition = u.partition AND k.record_offset = u.record_offset
