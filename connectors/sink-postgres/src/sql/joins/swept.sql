DELETE FROM {schema}.notes AS n
WHERE n.target = $1 AND n.generation = $2 AND n.id = $3
