SELECT (julianday('now') - min(noted_at)) * 86400
FROM _foldline_notes
WHERE target = ?1 AND generation = ?2
