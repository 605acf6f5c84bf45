//! The sink against a real cluster: `ELASTICSEARCH` is its address. Each test works on names of its own and removes them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy takes the helpers of an integration test for production code"
)]

mod adopt;
mod aliases;
mod contract;
mod joins;
mod opening;
mod queries;
mod rebuild;
mod shape;
mod support;
mod tls;
mod values;
mod writes;
