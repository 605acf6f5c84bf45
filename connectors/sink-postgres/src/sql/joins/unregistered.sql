SELECT u.looked_up
FROM unnest($3::text[]) AS u(looked_up)
WHERE NOT EXISTS (
    SELECT 1
    FROM {schema}.lookups AS l
    WHERE l.target = $1 AND l.generation = $2 AND l.looked_up = u.looked_up
)
