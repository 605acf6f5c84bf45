UPDATE _foldline_positions
SET position = ?1
WHERE target = ?2 AND generation = ?3 AND topic = ?4 AND partition = ?5
  AND epoch = ?6 AND position = ?7
