INSERT INTO {schema}.verdicts (target, generation, topic, partition, record_offset, reason, definition)
SELECT $1, $2, u.topic, u.partition, u.record_offset, u.reason, u.definition
FROM unnest($3::text[], $4::int4[], $5::int8[], $6::text[], $7::text[])
    AS u(topic, partition, record_offset, reason, definition)
ON CONFLICT (target, generation, topic, partition, record_offset) DO UPDATE SET
    reason = excluded.reason,
    definition = excluded.definition,
    open = false
