UPDATE {schema}.positions AS p
SET position = u.next, updated_at = now()
FROM unnest($3::text[], $4::int4[], $5::int8[], $6::int8[], $7::int8[])
    AS u(topic, partition, epoch, prev, next)
WHERE p.target = $1 AND p.generation = $2
    AND p.topic = u.topic AND p.partition = u.partition
    AND p.epoch = u.epoch AND p.position = u.prev
