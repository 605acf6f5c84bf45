//! Foldline folds Kafka event streams into PostgreSQL, Elasticsearch and SQLite, from TOML alone.
//!
//! In reading order: [`config`] (what is asked for), `task` (the loop), [`connector`], [`rebuild`] and [`worker`] (who
//! runs it), `admin` (what is seen from outside), `adopt` (what a restore left) and [`cli`]. The pure fold is a crate of
//! its own, [`foldline_language`].

mod admin;
mod adopt;
mod chance;
mod clean;
pub mod cli;
mod clock;
pub mod config;
pub mod connector;
mod connector_spec;
pub mod dead_letter;
mod decoding;
mod demo;
mod expiry;
mod explain;
#[cfg(test)]
mod in_memory;
mod ingest;
mod joins;
mod letters;
pub mod log;
mod maps;
pub mod metrics;
mod offload;
mod pace;
pub mod policy;
mod prepared;
mod printable;
pub mod rebuild;
#[cfg(test)]
mod reference;
pub mod registry;
mod replay;
pub mod reset;
mod retry;
mod signals;
mod suggest;
pub mod task;
mod topic_ids;
mod verify;
pub mod worker;
