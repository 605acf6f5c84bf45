SELECT 1
FROM {schema}.notes AS n
WHERE n.target = $1 AND n.generation = $2
    AND (n.key IS NULL OR n.noted_at < clock_timestamp() - interval '2 seconds')
LIMIT 1
