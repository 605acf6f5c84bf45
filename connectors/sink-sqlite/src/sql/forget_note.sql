DELETE FROM _foldline_notes
WHERE target = ?1 AND generation = ?2 AND looked_up = ?3 AND key = ?4
