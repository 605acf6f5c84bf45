SELECT generation
FROM {schema}.positions
WHERE target = $1 AND topic = $2 AND partition = $3
ORDER BY generation
FOR UPDATE
