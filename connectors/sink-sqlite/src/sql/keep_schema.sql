INSERT INTO _foldline_schemas (target, registry, id, schema) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (target, registry, id) DO NOTHING
