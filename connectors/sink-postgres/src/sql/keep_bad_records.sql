INSERT INTO {schema}.bad_records (target, generation, topic, partition, record_offset, by_store, letter)
SELECT $1, $2, u.topic, u.partition, u.record_offset, u.by_store, u.letter
FROM unnest($3::text[], $4::int4[], $5::int8[], $6::bool[], $7::text[])
    AS u(topic, partition, record_offset, by_store, letter)
ON CONFLICT (target, generation, topic, partition, record_offset) DO UPDATE SET
    by_store = excluded.by_store,
    letter = excluded.letter
