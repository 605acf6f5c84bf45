UPDATE _foldline_bad_records AS n
SET letter = NULL
WHERE target = ?1 AND generation = ?3 AND letter IS NOT NULL
  AND EXISTS (
    SELECT 1
    FROM _foldline_positions AS a
    JOIN _foldline_positions AS b
      ON b.target = a.target AND b.generation = ?3
      AND b.topic = a.topic AND b.partition = a.partition
      AND (a.topic_id = b.topic_id OR a.topic_id = '' OR b.topic_id = '')
    LEFT JOIN _foldline_bad_records AS l
      ON l.target = ?1 AND l.generation = ?2
      AND l.topic = n.topic AND l.partition = n.partition AND l.offset = n.offset
    WHERE a.target = ?1 AND a.generation = ?2
      AND a.topic = n.topic AND a.partition = n.partition
      AND CASE
        WHEN l.offset IS NOT NULL THEN l.letter IS NULL
        ELSE ?4 AND NOT n.by_store
          AND n.offset >= a.beginning AND n.offset < a.position
          AND NOT EXISTS (
            SELECT 1
            FROM _foldline_holes AS h
            WHERE h.target = ?1 AND h.generation = ?2
              AND h.topic = n.topic AND h.partition = n.partition
              AND n.offset >= h.from_offset AND n.offset < h.to_offset
          )
      END
  )
