INSERT INTO {schema}.holes (target, generation, topic, partition, from_offset, to_offset)
VALUES ($1, $2, $3, $4, $5, $6)
