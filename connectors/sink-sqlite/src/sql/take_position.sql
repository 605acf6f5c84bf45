UPDATE _foldline_positions
SET epoch = epoch + 1
WHERE target = ?1 AND generation = ?2 AND topic = ?3 AND partition = ?4
RETURNING epoch, position
