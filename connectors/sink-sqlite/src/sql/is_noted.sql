SELECT EXISTS (
  SELECT 1
  FROM _foldline_notes
  WHERE target = ?1 AND generation = ?2 AND looked_up = ?3 AND key IN (?4, ?5)
)
