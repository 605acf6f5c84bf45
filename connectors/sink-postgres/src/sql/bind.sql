INSERT INTO {schema}.targets (
    target, worker, connector, consumer_group, log, physical, generation, fingerprint, superseded, projection
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::json)
ON CONFLICT (target) DO UPDATE SET
    worker = excluded.worker,
    connector = excluded.connector,
    consumer_group = excluded.consumer_group,
    log = excluded.log,
    physical = excluded.physical,
    generation = excluded.generation,
    fingerprint = excluded.fingerprint,
    superseded = excluded.superseded,
    projection = excluded.projection,
    updated_at = now()
