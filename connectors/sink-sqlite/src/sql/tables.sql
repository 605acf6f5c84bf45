-- Whose each target is, and what the operator wants of it. Each flush asks for the first columns, which the
-- binding has too.
CREATE TABLE IF NOT EXISTS _foldline_targets (
  target TEXT PRIMARY KEY,
  generation INTEGER NOT NULL,
  physical TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  binding TEXT NOT NULL,
  desired TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Where each partition stands. The id of a topic is empty where the log cannot tell.
CREATE TABLE IF NOT EXISTS _foldline_positions (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  topic_id TEXT NOT NULL,
  beginning INTEGER NOT NULL,
  position INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  PRIMARY KEY (target, generation, topic, partition)
) STRICT, WITHOUT ROWID;

-- Verdicts. The id of the topic is that of the position of the generation.
CREATE TABLE IF NOT EXISTS _foldline_left_out (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  reason TEXT NOT NULL,
  definition TEXT,
  open INTEGER NOT NULL,
  PRIMARY KEY (target, generation, topic, partition, offset)
) STRICT, WITHOUT ROWID;

-- A letter goes when it is acknowledged, the place stays.
CREATE TABLE IF NOT EXISTS _foldline_bad_records (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  by_store INTEGER NOT NULL,
  letter TEXT,
  PRIMARY KEY (target, generation, topic, partition, offset)
) STRICT, WITHOUT ROWID;

-- Events that are set aside with their keys, under the life of the topic that the position names.
CREATE TABLE IF NOT EXISTS _foldline_parked (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  topic_id TEXT NOT NULL,
  offset INTEGER NOT NULL,
  keys TEXT NOT NULL,
  reason TEXT,
  request TEXT,
  record TEXT NOT NULL,
  PRIMARY KEY (target, generation, topic, partition, offset)
) STRICT, WITHOUT ROWID;

-- Events that were left out by hand: from from_offset, before to_offset, and whether the next generation leaves them
-- out too.
CREATE TABLE IF NOT EXISTS _foldline_holes (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  from_offset INTEGER NOT NULL,
  to_offset INTEGER NOT NULL,
  repeated INTEGER NOT NULL DEFAULT 1,
  PRIMARY KEY (target, generation, topic, partition, from_offset)
) STRICT, WITHOUT ROWID;

-- The generations that are not the live one.
CREATE TABLE IF NOT EXISTS _foldline_generations (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  role TEXT NOT NULL,
  physical TEXT NOT NULL,
  relation TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  projection TEXT NOT NULL,
  goals TEXT NOT NULL,
  PRIMARY KEY (target, generation)
) STRICT, WITHOUT ROWID;

-- What ids of schema registries stood for, with all that each schema refers to. What was kept first stays.
CREATE TABLE IF NOT EXISTS _foldline_schemas (
  target TEXT NOT NULL,
  registry TEXT NOT NULL,
  id TEXT NOT NULL,
  schema TEXT NOT NULL,
  PRIMARY KEY (target, registry, id)
) STRICT, WITHOUT ROWID;

-- Before which moment rows are gone, by the rule that deletes them: milliseconds since the epoch. It only goes forward.
CREATE TABLE IF NOT EXISTS _foldline_horizons (
  target TEXT NOT NULL,
  rule TEXT NOT NULL,
  horizon INTEGER NOT NULL,
  PRIMARY KEY (target, rule)
) STRICT, WITHOUT ROWID;

-- Which generations show fields of which other target's rows, and of which life of that one they were brought up to date.
CREATE TABLE IF NOT EXISTS _foldline_lookups (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  looked_up TEXT NOT NULL,
  seen TEXT NOT NULL,
  PRIMARY KEY (target, generation, looked_up)
) STRICT, WITHOUT ROWID;

-- Which generations hold rows of which other target as children, by which of its columns.
CREATE TABLE IF NOT EXISTS _foldline_gathers (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  looked_up TEXT NOT NULL,
  via TEXT NOT NULL,
  PRIMARY KEY (target, generation, looked_up, via)
) STRICT, WITHOUT ROWID;

-- What a generation has still to look at: its rows that show the other row of a key, or all of them; those behind the key
-- up to which that was done.
CREATE TABLE IF NOT EXISTS _foldline_notes (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  looked_up TEXT NOT NULL,
  key TEXT NOT NULL,
  after TEXT,
  noted_at REAL NOT NULL,
  PRIMARY KEY (target, generation, looked_up, key)
) STRICT, WITHOUT ROWID;
