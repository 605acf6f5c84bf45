//! An NDJSON event log on disk as a source.
