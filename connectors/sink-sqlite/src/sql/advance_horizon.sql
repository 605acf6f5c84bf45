INSERT INTO _foldline_horizons (target, rule, horizon) VALUES (?1, ?2, ?3)
ON CONFLICT (target, rule) DO UPDATE SET horizon = max(horizon, excluded.horizon)
