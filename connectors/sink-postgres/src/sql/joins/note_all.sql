INSERT INTO {schema}.notes (target, generation, looked_up)
VALUES ($1, $2, $3)
