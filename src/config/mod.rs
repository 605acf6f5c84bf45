//! The config: TOML files and the environment, read into checked types.
//!
//! In reading order: `load` finds and merges the files, `layers` lays the environment over them, and one module a
//! section reads it. What projections are made of, and how any section is read, is the language's own
//! ([`foldline_language::config`]).

mod avro;
mod checks;
mod connector;
mod env;
mod kafka;
mod layers;
mod load;
mod names;
mod registry;
mod schema;
mod sink;
mod source;
pub(crate) mod unsupported;
mod worker;

pub use avro::AvroFile;
pub use connector::{
    BatchConfig, ConnectorConfig, ErrorsConfig, OnBadRecord, OnChange, PARKED_MAX, Start,
};
pub use env::process_env;
pub use load::{Config, files, load};
pub use registry::{RegistryConfig, RegistryKind};
pub use schema::json_schema;
pub use sink::{KafkaSink, SinkConfig, Store};
pub use source::{
    ConverterKind, GroupProtocol, IngestConfig, SourceConfig, SourceKind, TopicConfig,
};
#[cfg(not(feature = "registry"))]
pub(crate) use unsupported::lacks;
pub use unsupported::unsupported;
pub use worker::Worker;

#[cfg(test)]
mod tests;
