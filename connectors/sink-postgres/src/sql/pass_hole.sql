UPDATE {schema}.positions
SET position = $6, epoch = epoch + 1, updated_at = now()
WHERE target = $1 AND generation = $2 AND topic = $3 AND partition = $4 AND position = $5
