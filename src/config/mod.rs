//! The config: TOML files and the environment, read into checked types.
//!
//! In reading order: `load` finds and merges the files, `tree` holds them with the line of each
//! value, `layers` lays the environment over them, `interpolate` replaces `${VAR}`, and `reader`
//! hands the tree out key by key to one module per section. Every problem is a [`Diagnostic`];
//! all are collected before any is reported.

mod cases;
mod checks;
mod connector;
mod diagnostic;
mod env;
mod fields;
mod handlers;
mod interpolate;
mod kafka;
mod layers;
mod load;
mod names;
pub mod projection;
mod projections;
mod reader;
mod registry;
mod scalar;
mod schema;
mod schema_projection;
mod secret;
mod sink;
mod source;
mod tree;
mod unsupported;
mod worker;

pub use connector::{
    BatchConfig, ConnectorConfig, ErrorsConfig, OnBadRecord, OnChange, PARKED_MAX, Start,
};
pub use diagnostic::{Diagnostic, Severity, closest};
pub use env::Env;
pub use interpolate::interpolate;
pub use load::{Config, Places, files, load};
pub use registry::{RegistryConfig, RegistryKind};
pub use scalar::{format_duration, format_size, parse_duration, parse_size};
pub use schema::json_schema;
pub use secret::Secret;
pub use sink::{SinkConfig, SinkKind};
pub use source::{
    ConverterKind, GroupProtocol, IngestConfig, SourceConfig, SourceKind, TopicConfig,
};
pub use unsupported::unsupported;
pub use worker::Worker;

#[cfg(test)]
mod tests;
