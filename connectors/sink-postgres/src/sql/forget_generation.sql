DELETE FROM {schema}.generations
WHERE target = $1 AND generation = $2
