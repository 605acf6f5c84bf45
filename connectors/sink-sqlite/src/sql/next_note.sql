SELECT looked_up, key, after
FROM _foldline_notes
WHERE target = ?1 AND generation = ?2
ORDER BY key = 'all', noted_at
LIMIT 1
