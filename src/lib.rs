//! Foldline folds Kafka event streams into PostgreSQL, Elasticsearch and SQLite, from TOML alone.
//!
//! In reading order: [`config`] (what is asked for), [`converter`] and [`event`] (bytes to what the
//! projection names), [`expr`] and [`projection`] (the pure fold), `task` (the loop), [`connector`],
//! [`rebuild`] and [`worker`] (who runs it), `admin` (what is seen from outside) and [`cli`].

mod admin;
mod chance;
pub mod cli;
pub mod config;
pub mod connector;
pub mod converter;
pub mod dead_letter;
mod demo;
pub mod event;
mod explain;
pub mod expr;
pub mod log;
mod maps;
pub mod metrics;
mod offload;
pub mod policy;
mod printable;
pub mod projection;
pub mod rebuild;
#[cfg(test)]
mod reference;
pub mod registry;
mod replay;
pub mod reset;
mod retry;
pub mod task;
mod verify;
pub mod worker;
