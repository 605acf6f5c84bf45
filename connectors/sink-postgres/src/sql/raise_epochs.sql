UPDATE {schema}.positions AS p
SET epoch = p.epoch + 1, updated_at = now()
WHERE p.target = $1 AND p.generation = $2
