SELECT
    ARRAY(
        SELECT a.attname::text
        FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(n, ord)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n
        WHERE k.ord <= i.indnkeyatts
        ORDER BY k.ord
    ) AS columns,
    i.indisprimary AS is_primary,
    i.indisunique AND i.indimmediate AND i.indisvalid
        AND i.indpred IS NULL AND i.indexprs IS NULL AS is_arbiter,
    i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AS is_plain,
    k.conname::text AS constraint_name
FROM pg_index i
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype = 'p'
WHERE i.indrelid = $1
