SELECT coalesce(
    max(age(p.xmin)) > (
        SELECT age(a.xmin)
        FROM pg_attribute AS a
        WHERE a.attrelid = $3 AND a.attname = 'tableoid'
    ),
    false
)
FROM {schema}.positions AS p
WHERE p.target = $1 AND p.generation = $2
