UPDATE {schema}.notes AS n
SET after = $4
WHERE n.target = $1 AND n.generation = $2 AND n.id = $3
