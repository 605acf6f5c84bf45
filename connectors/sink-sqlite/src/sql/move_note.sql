UPDATE _foldline_notes
SET after = ?5
WHERE target = ?1 AND generation = ?2 AND looked_up = ?3 AND key = ?4
