-- Whose each target is, and what the operator wants of it.
CREATE TABLE IF NOT EXISTS {schema}.targets (
    target text PRIMARY KEY,
    worker text NOT NULL,
    connector text NOT NULL,
    consumer_group text NOT NULL,
    log text NOT NULL,
    physical text NOT NULL,
    generation bigint NOT NULL,
    fingerprint text NOT NULL,
    superseded text[] NOT NULL,
    projection json NOT NULL,
    desired text NOT NULL DEFAULT 'running',
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Where each partition stands. Rewritten by every flush: half empty pages keep the updates on them.
CREATE TABLE IF NOT EXISTS {schema}.positions (
    target text NOT NULL,
    generation bigint NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    topic_id text,
    beginning bigint NOT NULL,
    position bigint NOT NULL,
    epoch bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (target, generation, topic, partition)
) WITH (fillfactor = 50);

-- Records that a generation leaves out, or has still to decide.
CREATE TABLE IF NOT EXISTS {schema}.verdicts (
    target text NOT NULL,
    generation bigint NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    record_offset bigint NOT NULL,
    reason text NOT NULL,
    definition text,
    open boolean NOT NULL DEFAULT false,
    PRIMARY KEY (target, generation, topic, partition, record_offset)
);

-- From which positions on a changed projection holds.
CREATE TABLE IF NOT EXISTS {schema}.extensions (
    target text NOT NULL,
    generation bigint NOT NULL,
    fingerprint text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    position bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (target, generation, fingerprint, topic, partition)
);

-- The generations that are not the live one.
CREATE TABLE IF NOT EXISTS {schema}.generations (
    target text NOT NULL,
    generation bigint NOT NULL,
    role text NOT NULL,
    physical text NOT NULL,
    relation text NOT NULL,
    fingerprint text NOT NULL,
    projection json NOT NULL,
    goals json NOT NULL,
    loaded_xid bigint,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (target, generation)
);

-- Events that are set aside with their keys, each under the life of the topic that its position names.
CREATE TABLE IF NOT EXISTS {schema}.parked (
    target text NOT NULL,
    generation bigint NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    topic_id text,
    record_offset bigint NOT NULL,
    keys text NOT NULL,
    reason text,
    request text,
    record text NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (target, generation, topic, partition, record_offset)
);

-- Events that were left out by hand: the first offset, and the one behind the last.
CREATE TABLE IF NOT EXISTS {schema}.holes (
    target text NOT NULL,
    generation bigint NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    from_offset bigint NOT NULL,
    to_offset bigint NOT NULL,
    skipped_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (target, generation, topic, partition, from_offset)
);

-- A letter goes when it is acknowledged, the place stays.
CREATE TABLE IF NOT EXISTS {schema}.bad_records (
    target text NOT NULL,
    generation bigint NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    record_offset bigint NOT NULL,
    by_store boolean NOT NULL,
    letter text,
    PRIMARY KEY (target, generation, topic, partition, record_offset)
);
