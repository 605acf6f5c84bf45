//! The tests against real servers: the built worker, Kafka, PostgreSQL and Elasticsearch, with a plain fold of the log as
//! the judge. `./test` starts the servers and sets `KAFKA`, `ELASTICSEARCH`, `DATABASE_URL` and `FOLDLINE_KAFKA_BIN`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so and ends"
)]

mod e2e;
mod support;
