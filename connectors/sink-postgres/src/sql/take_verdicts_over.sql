INSERT INTO {schema}.verdicts (
    target, generation, topic, partition, record_offset, reason, definition, open
)
SELECT
    v.target, $3, v.topic, v.partition, v.record_offset, v.reason, v.definition, true
FROM {schema}.verdicts AS v
JOIN {schema}.positions AS a USING (target, generation, topic, partition)
JOIN {schema}.positions AS b
    ON b.target = v.target AND b.generation = $3
    AND b.topic = v.topic AND b.partition = v.partition
WHERE v.target = $1 AND v.generation = $2
    AND (NOT v.open OR v.record_offset >= a.position)
    AND (a.topic_id <> b.topic_id) IS NOT TRUE
ON CONFLICT DO NOTHING
