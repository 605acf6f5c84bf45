//! Avro, with `apache-avro` as the encoder: whatever schema and value it writes are read as they were meant, what is named
//! of a value is what is there in the whole, and no bytes are read as another value than they hold.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says so"
)]

mod bytes;
mod debezium;
mod generate;
mod oracle;
mod speed;
