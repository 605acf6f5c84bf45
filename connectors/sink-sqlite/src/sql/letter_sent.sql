UPDATE _foldline_bad_records
SET letter = NULL
WHERE target = ?1 AND generation = ?2 AND topic = ?3 AND partition = ?4 AND offset = ?5
