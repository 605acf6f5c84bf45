UPDATE {schema}.verdicts AS v
SET open = true
FROM {schema}.positions AS p
WHERE p.target = v.target AND p.generation = v.generation
    AND p.topic = v.topic AND p.partition = v.partition
    AND v.record_offset >= p.position
