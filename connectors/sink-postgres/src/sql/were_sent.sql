SELECT n.topic, n.partition, n.record_offset
FROM {schema}.bad_records AS n
JOIN unnest($3::text[], $4::int4[], $5::int8[]) AS u(topic, partition, record_offset)
    ON n.topic = u.topic AND n.partition = u.partition AND n.record_offset = u.record_offset
WHERE n.target = $1 AND n.generation = $2 AND n.letter IS NULL
