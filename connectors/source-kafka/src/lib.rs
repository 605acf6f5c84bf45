//! Kafka topics as a source, and the dead-letter topic.
//!
//! One operating-system thread per member owns its librdkafka consumer and polls it always; the task
//! talks to it through an inbox that is bounded in bytes. A partition is assigned to
//! librdkafka only when its task has said where to start, once, with that offset: the sink's
//! positions decide, and the group's committed offsets are never read from.
//!
//! librdkafka's event queue is polled directly (see `native`): the safe wrapper hides which topic an
//! end of partition belongs to and at which offset it is, and both are needed to be exact.

mod admin;
mod burst;
mod commit;
mod config;
mod consumer;
mod context;
mod dead_letter;
mod declared;
mod error;
mod group;
mod heard;
mod membership;
mod native;
mod producer;
mod queue;
mod reader;
mod rebalance;
mod source;
mod teller;
mod topic_id;
mod topics;
mod unreadable;

pub use admin::KafkaLog;
pub use config::{GroupProtocol, KafkaConfig, OWNED_PROPERTIES, is_property, library_version};
pub use dead_letter::KafkaDeadLetters;
pub use declared::{DeclaredTopic, delete_topics, property};
pub use error::from_kafka;
pub use foldline_api::producer::NewRecord;
pub use producer::{KafkaProducer, produce};
pub use topics::Topics;
