//! Foldline folds Kafka event streams into PostgreSQL, Elasticsearch and SQLite, from TOML alone.
//!
//! In reading order: [`config`] (what is asked for), [`event`] (what is read), `expr` and
//! `projection` (the pure fold), the task loop and the worker.

pub mod event;
pub mod expr;
