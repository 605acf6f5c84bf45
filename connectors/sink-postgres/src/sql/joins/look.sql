SELECT
    EXISTS (
        SELECT 1
        FROM {schema}.lookups AS l
        LEFT JOIN {schema}.targets AS t ON t.target = l.looked_up
        WHERE l.target = $1 AND l.generation = $2
            AND l.seen <> concat_ws(' ', $3::text, t.generation, t.physical)
    ) AS changed,
    (
        SELECT extract(epoch FROM clock_timestamp() - min(n.noted_at))::float8
        FROM {schema}.notes AS n
        WHERE n.target = $1 AND n.generation = $2
    ) AS waits
