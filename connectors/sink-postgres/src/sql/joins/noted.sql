SELECT n.key
FROM {schema}.notes AS n
WHERE n.target = $1 AND n.generation = $2 AND n.looked_up = $3
    AND (n.key IS NULL OR n.key = ANY($4))
