WITH full_ones AS (
    SELECT l.target, l.generation, l.looked_up
    FROM {schema}.lookups AS l
    CROSS JOIN LATERAL (
        SELECT max(n.id) - min(n.id) AS span
        FROM {schema}.notes AS n
        WHERE n.target = l.target AND n.generation = l.generation AND n.looked_up = l.looked_up
    ) AS notes
    WHERE l.looked_up = $1 AND notes.span > $2
),

gone AS (
    DELETE FROM {schema}.notes AS d
    USING (
        SELECT n.target, n.generation, n.looked_up, n.id
        FROM {schema}.notes AS n
        JOIN full_ones AS f USING (target, generation, looked_up)
        WHERE n.key IS NOT NULL
        FOR UPDATE OF n SKIP LOCKED
    ) AS free
    WHERE d.target = free.target AND d.generation = free.generation
        AND d.looked_up = free.looked_up AND d.id = free.id
    RETURNING d.target, d.generation, d.looked_up, d.noted_at
)

INSERT INTO {schema}.notes (target, generation, looked_up, noted_at)
SELECT g.target, g.generation, g.looked_up, min(g.noted_at)
FROM gone AS g
GROUP BY g.target, g.generation, g.looked_up
