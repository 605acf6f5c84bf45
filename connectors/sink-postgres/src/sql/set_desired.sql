UPDATE {schema}.targets
SET desired = $2, updated_at = now()
WHERE target = $1
