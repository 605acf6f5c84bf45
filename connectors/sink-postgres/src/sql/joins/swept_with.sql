DELETE FROM {schema}.notes AS d
USING (
    SELECT n.id
    FROM {schema}.notes AS n
    WHERE n.target = $1 AND n.generation = $2 AND n.key IS NULL AND n.after IS NULL AND n.id <> $3
    FOR UPDATE SKIP LOCKED
) AS free
WHERE d.target = $1 AND d.generation = $2 AND d.id = free.id
