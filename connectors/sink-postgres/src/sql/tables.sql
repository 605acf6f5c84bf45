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

-- Events that were left out by hand: the first offset, the one behind the last, and whether the next generation
-- leaves them out too.
CREATE TABLE IF NOT EXISTS {schema}.holes (
    target text NOT NULL,
    generation bigint NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    from_offset bigint NOT NULL,
    to_offset bigint NOT NULL,
    repeated boolean NOT NULL DEFAULT true,
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

-- What ids of schema registries stood for, with all that each schema refers to. What was kept first stays.
CREATE TABLE IF NOT EXISTS {schema}.schemas (
    target text NOT NULL,
    registry text NOT NULL,
    id text NOT NULL,
    schema text NOT NULL,
    kept_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (target, registry, id)
);

-- Before which moment rows are gone, by the rule that deletes them: milliseconds since the epoch. It only goes forward.
CREATE TABLE IF NOT EXISTS {schema}.horizons (
    target text NOT NULL,
    rule text NOT NULL,
    horizon bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (target, rule)
);

-- Which generations show fields of which other target's rows, and of which life of that one they were brought up to date.
CREATE TABLE IF NOT EXISTS {schema}.lookups (
    target text NOT NULL,
    generation bigint NOT NULL,
    looked_up text NOT NULL,
    seen text NOT NULL,
    PRIMARY KEY (target, generation, looked_up)
);

-- What a generation has still to look at: its rows that show the other row of this key. Without a key it is all its rows,
-- those behind the key up to which that was done.
CREATE TABLE IF NOT EXISTS {schema}.notes (
    target text NOT NULL,
    generation bigint NOT NULL,
    looked_up text NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    key text,
    after text,
    noted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (target, generation, looked_up, id)
);

-- Which generations hold rows of which other target as children, by which of its columns.
CREATE TABLE IF NOT EXISTS {schema}.gathers (
    target text NOT NULL,
    generation bigint NOT NULL,
    looked_up text NOT NULL,
    via text NOT NULL,
    PRIMARY KEY (target, generation, looked_up, via)
);
