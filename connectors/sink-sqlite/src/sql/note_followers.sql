INSERT INTO _foldline_notes (target, generation, looked_up, key, noted_at)
SELECT l.target, l.generation, l.looked_up, ?2, julianday('now')
FROM _foldline_lookups AS l
WHERE l.looked_up = ?1
ON CONFLICT (target, generation, looked_up, key) DO UPDATE SET after = NULL
