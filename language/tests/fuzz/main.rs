//! No expression, no projection, no record and no event makes the language panic, overflow its stack or stop.
//!
//! Inputs are mutations of the project's own tables, scenarios and wrong configs ([`foldline_testkit::walk`]).
//! `just fuzz 3600` walks for an hour; the tests that CI runs take a fixed number of steps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so and ends"
)]

mod avro;
mod converters;
mod expressions;
#[path = "../avro/generate.rs"]
mod generate;
mod projections;
#[cfg(feature = "protobuf")]
mod protobuf;
#[cfg(feature = "protobuf")]
#[path = "../protobuf/generate.rs"]
mod protobuf_generate;
