SELECT target, worker, connector, consumer_group, log
FROM {schema}.targets
WHERE connector = $1
ORDER BY target
