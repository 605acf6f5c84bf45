SELECT 1
FROM {schema}.targets
WHERE target = $1 AND generation = $2
FOR SHARE
