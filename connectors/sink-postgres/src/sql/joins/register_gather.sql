INSERT INTO {schema}.gathers (target, generation, looked_up, via)
VALUES ($1, $2, $3, $4)
ON CONFLICT (target, generation, looked_up, via) DO NOTHING
