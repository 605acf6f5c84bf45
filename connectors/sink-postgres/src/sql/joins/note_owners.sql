INSERT INTO {schema}.notes (target, generation, looked_up, key)
SELECT g.target, g.generation, g.target, u.key
FROM {schema}.gathers AS g
CROSS JOIN unnest($3::text[]) AS u(key)
WHERE g.looked_up = $1 AND g.via = $2
