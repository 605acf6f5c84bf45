SELECT v.topic, v.partition, v.record_offset, v.reason, v.definition
FROM {schema}.verdicts AS v
JOIN {schema}.positions AS a USING (target, generation, topic, partition)
JOIN {schema}.positions AS p
    ON p.target = v.target AND p.generation = $2
    AND p.topic = v.topic AND p.partition = v.partition
JOIN unnest($3::text[], $4::int4[]) AS u(topic, partition)
    ON u.topic = v.topic AND u.partition = v.partition
WHERE v.target = $1 AND v.record_offset >= p.position
    AND (v.generation = $2 OR v.reason = $5 AND (a.topic_id <> p.topic_id) IS NOT TRUE)
ORDER BY v.topic, v.partition, v.record_offset, v.reason <> $5
