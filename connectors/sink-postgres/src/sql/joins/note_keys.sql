INSERT INTO {schema}.notes (target, generation, looked_up, key)
SELECT $1, $2, $3, u.key
FROM unnest($4::text[]) AS u(key)
