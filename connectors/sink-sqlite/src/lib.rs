//! SQLite as a sink: the embedded twin of the PostgreSQL sink.
