SELECT 'column ' || quote_ident(attname)
FROM pg_attribute a
WHERE attrelid = {live} AND attnum > 0 AND NOT attisdropped
    AND attname NOT IN ({gone})
    AND NOT EXISTS (
        SELECT 1
        FROM pg_attribute o
        WHERE o.attrelid = {next} AND o.attname = a.attname AND NOT o.attisdropped
    )
UNION ALL
SELECT 'constraint ' || quote_ident(conname)
FROM pg_constraint k
WHERE conrelid = {live} AND contype IN ('c', 'f')
    AND NOT EXISTS (
        SELECT 1
        FROM pg_constraint o
        WHERE o.conrelid = {next} AND o.conname = k.conname
    )
    AND NOT EXISTS (
        SELECT 1
        FROM pg_attribute a
        WHERE a.attrelid = {live} AND a.attnum = ANY(k.conkey) AND a.attname IN ({gone})
    )
