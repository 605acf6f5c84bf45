SELECT format('COMMENT ON TABLE %s IS %L', {live}, obj_description({oid}, 'pg_class'))
