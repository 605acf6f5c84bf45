SELECT seen
FROM _foldline_lookups
WHERE target = ?1 AND generation = ?2 AND looked_up = ?3
