//! The config: TOML files and the environment, read into checked types.
//!
//! In reading order: `load` finds and merges the files, `layers` lays the environment over them, and one module a
//! section reads it. What projections are made of, and how any section is read, is the language's own
//! ([`foldline_language::config`]).

mod avro;
mod checks;
mod connector;
mod env;
pub(crate) mod flat;
pub(crate) mod kafka;
mod layers;
mod load;
mod names;
mod presence;
mod prints;
#[cfg(feature = "protobuf")]
mod protobuf;
#[cfg(not(feature = "protobuf"))]
#[path = "without_protobuf.rs"]
mod protobuf;
mod registry;
mod schema;
mod schema_file;
mod schema_topics;
mod sink;
mod source;
mod suspect;
pub(crate) mod unsupported;
mod worker;

pub use avro::AvroFile;
pub use connector::{
    BatchConfig, ConnectorConfig, ErrorsConfig, OnBadRecord, OnChange, PARKED_MAX, Start,
};
pub use env::process_env;
pub(crate) use load::load_text;
pub use load::{Config, files, load};
pub use presence::presence;
pub(crate) use prints::{Content, content, contents};
pub use protobuf::ProtobufFile;
pub use registry::{RegistryConfig, RegistryKind};
pub use schema::json_schema;
pub use sink::{KafkaSink, SinkConfig, Store};
pub use source::{
    ConverterKind, GroupProtocol, IngestConfig, SourceConfig, SourceKind, TopicConfig,
};
pub use suspect::suspects;
#[cfg(not(all(feature = "registry", feature = "protobuf")))]
pub(crate) use unsupported::lacks;
pub use unsupported::unsupported;
pub use worker::Worker;

#[cfg(test)]
mod tests;
