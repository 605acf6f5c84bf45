INSERT INTO {schema}.notes (target, generation, looked_up, key)
SELECT l.target, l.generation, l.looked_up, u.key
FROM {schema}.lookups AS l
CROSS JOIN unnest($3::text[]) AS u(key)
WHERE l.looked_up = $1
    AND EXISTS (SELECT 1 FROM {schema}.targets AS t WHERE t.target = $1 AND t.generation = $2)
