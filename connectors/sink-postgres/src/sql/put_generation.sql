INSERT INTO {schema}.generations (
    target, generation, role, physical, relation, fingerprint, projection, goals, loaded_xid
)
VALUES ($1, $2, $3, $4, $5, $6, $7::json, $8::json, $9)
ON CONFLICT (target, generation) DO UPDATE SET
    role = excluded.role,
    relation = excluded.relation,
    goals = excluded.goals,
    loaded_xid = excluded.loaded_xid,
    updated_at = now()
