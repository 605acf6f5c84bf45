UPDATE {schema}.generations
SET
    role = $4,
    updated_at = now(),
    loaded_xid = coalesce(loaded_xid, pg_current_xact_id()::text::bigint)
WHERE target = $1 AND generation = $2 AND role = $3
