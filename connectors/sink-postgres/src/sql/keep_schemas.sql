INSERT INTO {schema}.schemas (target, registry, id, schema)
SELECT $1, registry, id, schema FROM unnest($2::text[], $3::text[], $4::text[]) AS new (registry, id, schema)
ORDER BY registry, id
ON CONFLICT (target, registry, id) DO NOTHING
