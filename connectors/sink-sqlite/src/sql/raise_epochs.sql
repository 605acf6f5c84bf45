UPDATE _foldline_positions
SET epoch = epoch + 1
WHERE target = ?1 AND generation = coalesce(?2, generation)
