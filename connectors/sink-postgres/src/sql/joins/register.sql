INSERT INTO {schema}.lookups (target, generation, looked_up, seen)
SELECT $1, $2, $3, concat_ws(' ', $4::text, t.generation, t.physical)
FROM (SELECT 1) AS one
LEFT JOIN {schema}.targets AS t ON t.target = $3
ON CONFLICT (target, generation, looked_up) DO UPDATE SET seen = excluded.seen
