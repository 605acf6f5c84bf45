SELECT k.topic, k.partition, k.record_offset, k.record
FROM unnest($3::text[], $4::int4[], $5::int8[]) WITH ORDINALITY
    AS u(topic, partition, record_offset, n)
JOIN {schema}.parked AS k
    ON k.target = $1 AND k.generation = $2
    AND k.topic = u.topic AND k.partition = u.partition AND k.record_offset = u.record_offset
ORDER BY u.n
