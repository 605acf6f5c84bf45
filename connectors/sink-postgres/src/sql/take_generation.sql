UPDATE {schema}.generations
SET
    physical = $3,
    loaded_xid = CASE WHEN loaded_xid IS NOT NULL THEN pg_current_xact_id()::text::bigint END,
    updated_at = now()
WHERE target = $1 AND generation = $2
