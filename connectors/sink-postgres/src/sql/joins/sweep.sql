SELECT n.id, n.after
FROM {schema}.notes AS n
WHERE n.target = $1 AND n.generation = $2 AND n.key IS NULL
ORDER BY n.after IS NULL, n.id
LIMIT 1
FOR UPDATE SKIP LOCKED
