SELECT n.id, n.looked_up, n.key
FROM {schema}.notes AS n
WHERE n.target = $1 AND n.generation = $2 AND n.key IS NOT NULL
ORDER BY n.id
LIMIT $3
FOR UPDATE SKIP LOCKED
