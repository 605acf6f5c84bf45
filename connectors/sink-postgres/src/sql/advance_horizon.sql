INSERT INTO {schema}.horizons AS h (target, rule, horizon) VALUES ($1, $2, $3)
ON CONFLICT (target, rule) DO UPDATE SET horizon = greatest(h.horizon, excluded.horizon), updated_at = now()
RETURNING horizon
