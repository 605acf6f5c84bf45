INSERT INTO {schema}.positions (target, generation, topic, partition, topic_id, beginning, position, epoch)
SELECT $1, $2, u.topic, u.partition, u.id, u.start, u.start, 0
FROM unnest($3::text[], $4::int4[], $5::text[], $6::int8[]) AS u(topic, partition, id, start)
ORDER BY u.topic, u.partition
ON CONFLICT DO NOTHING
