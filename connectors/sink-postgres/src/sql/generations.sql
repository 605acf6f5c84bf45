SELECT
    generation,
    role,
    physical,
    relation,
    fingerprint,
    projection::text AS projection,
    goals::text AS goals,
    loaded_xid
FROM {schema}.generations
WHERE target = $1
ORDER BY generation
