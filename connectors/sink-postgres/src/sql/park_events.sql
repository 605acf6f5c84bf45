INSERT INTO {schema}.parked (
    target, generation, topic, partition, topic_id, record_offset, keys, reason, record
)
SELECT
    $1, $2, u.topic, u.partition, p.topic_id, u.record_offset, u.keys, u.reason, u.record
FROM unnest($3::text[], $4::int4[], $5::int8[], $6::text[], $7::text[], $8::text[])
    AS u(topic, partition, record_offset, keys, reason, record)
JOIN {schema}.positions AS p
    ON p.target = $1 AND p.generation = $2
    AND p.topic = u.topic AND p.partition = u.partition
ON CONFLICT (target, generation, topic, partition, record_offset) DO UPDATE SET
    keys = excluded.keys,
    reason = excluded.reason,
    record = excluded.record,
    request = NULL
