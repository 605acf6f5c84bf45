SELECT coalesce(
    hashtextextended(
        string_agg(
            concat_ws(
                ' ', attnum, attname, atttypid, atttypmod, attnotnull,
                atthasdef, attidentity, attgenerated, attcollation
            ),
            ',' ORDER BY attnum
        ),
        0
    ),
    0
)
FROM pg_attribute
WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
