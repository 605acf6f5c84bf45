//! Protobuf, with `prost-reflect` as the encoder: whatever schema and message it writes are read as they were meant, what is
//! named of a message is what is there in the whole, and wrong bytes are refused with their place.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says so"
)]

mod bytes;
mod generate;
mod oracle;
