SELECT
    worker,
    connector,
    consumer_group,
    log,
    physical,
    generation,
    fingerprint,
    superseded,
    projection::text AS projection,
    desired
FROM {schema}.targets
WHERE target = $1
