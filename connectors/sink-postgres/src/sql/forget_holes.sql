UPDATE {schema}.holes
SET repeated = false
WHERE target = $1
