INSERT INTO _foldline_notes (target, generation, looked_up, key, noted_at)
SELECT g.target, g.generation, g.target, ?3, julianday('now')
FROM _foldline_gathers AS g
WHERE g.looked_up = ?1 AND g.via = ?2
ON CONFLICT (target, generation, looked_up, key) DO UPDATE SET after = NULL
