//! The language as its users meet it, without any server: the reference page, the JSON Schema, `foldline test`, and what no
//! input may do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so and ends"
)]

mod commands;
mod fuzz;
mod hostile;
mod scenarios;
