WITH lookups AS (DELETE FROM {schema}.lookups WHERE target = $1 AND generation = $2),

gathers AS (DELETE FROM {schema}.gathers WHERE target = $1 AND generation = $2)

DELETE FROM {schema}.notes
WHERE target = $1 AND generation = $2
