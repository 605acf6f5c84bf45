SELECT EXISTS (
    SELECT 1
    FROM {schema}.extensions
    WHERE target = $1 AND generation = $2
)
