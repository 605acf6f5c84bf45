//! The sink against a real PostgreSQL. `DATABASE_URL` names one; each test works in schemas of its own
//! and removes them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test says what it expects, and lists are long"
)]

mod access;
mod books;
mod changes;
mod contract;
mod joins;
mod pool;
mod queries;
mod support;
mod swap;
mod tls;
mod values;
mod verdicts;
mod writes;
