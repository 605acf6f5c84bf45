SELECT registry, id, schema FROM {schema}.schemas WHERE target = $1 ORDER BY registry, id
