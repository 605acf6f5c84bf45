INSERT INTO _foldline_notes (target, generation, looked_up, key, noted_at)
VALUES (?1, ?2, ?3, ?4, julianday('now'))
ON CONFLICT (target, generation, looked_up, key) DO UPDATE SET after = NULL
