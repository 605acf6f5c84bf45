UPDATE {schema}.bad_records AS n
SET letter = NULL
FROM {schema}.positions AS a, {schema}.positions AS b
WHERE n.target = $1 AND n.generation = $3 AND n.letter IS NOT NULL
    AND a.target = $1 AND a.generation = $2
    AND a.topic = n.topic AND a.partition = n.partition
    AND b.target = n.target AND b.generation = n.generation
    AND b.topic = n.topic AND b.partition = n.partition
    AND (a.topic_id <> b.topic_id) IS NOT TRUE
    AND (
        EXISTS (
            SELECT 1
            FROM {schema}.bad_records AS l
            WHERE l.target = $1 AND l.generation = $2
                AND l.topic = n.topic AND l.partition = n.partition
                AND l.record_offset = n.record_offset
                AND l.letter IS NULL
        )
        OR $4 AND NOT n.by_store
        AND n.record_offset >= a.beginning AND n.record_offset < a.position
        AND NOT EXISTS (
            SELECT 1
            FROM {schema}.bad_records AS l
            WHERE l.target = $1 AND l.generation = $2
                AND l.topic = n.topic AND l.partition = n.partition
                AND l.record_offset = n.record_offset
        )
        AND NOT EXISTS (
            SELECT 1
            FROM {schema}.holes AS h
            WHERE h.target = $1 AND h.generation = $2
                AND h.topic = n.topic AND h.partition = n.partition
                AND n.record_offset >= h.from_offset AND n.record_offset < h.to_offset
        )
    )
