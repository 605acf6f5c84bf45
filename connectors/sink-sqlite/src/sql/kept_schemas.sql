SELECT registry, id, schema FROM _foldline_schemas WHERE target = ?1 ORDER BY registry, id
