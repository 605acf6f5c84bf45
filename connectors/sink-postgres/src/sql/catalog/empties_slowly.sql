SELECT
    EXISTS (
        SELECT 1
        FROM pg_constraint
        WHERE confrelid = $1 AND contype = 'f' AND conrelid <> confrelid
    )
    OR NOT has_table_privilege($1, 'TRUNCATE')
