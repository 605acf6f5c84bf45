//! The state topic sink on a real broker.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy takes the helpers of an integration test for production code"
)]

mod contract;
mod states;
mod support;
