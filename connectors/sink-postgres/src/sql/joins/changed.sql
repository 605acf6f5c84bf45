SELECT l.looked_up
FROM {schema}.lookups AS l
LEFT JOIN {schema}.targets AS t ON t.target = l.looked_up
WHERE l.target = $1 AND l.generation = $2
    AND l.seen <> concat_ws(' ', $3::text, t.generation, t.physical)
ORDER BY l.looked_up
