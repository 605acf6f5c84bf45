//! Kafka as a source, in a build that was made without.

use std::sync::Arc;

use foldline_api::error::Result;
use foldline_api::producer::Producer;
use foldline_api::source::{DeadLetters, Log};
use foldline_language::config::diagnostic::Diagnostic;

use super::Parts;
use crate::config::unsupported::lacks;
use crate::config::{Config, SourceConfig};

/// Nothing more than that it is lacking is known of its properties.
pub(crate) fn limits(_: &Config) -> Vec<Diagnostic> {
    Vec::new()
}

pub(super) fn kafka_log(_: &Config, _: &Parts<'_>, _: &str) -> Result<Arc<dyn Log>> {
    Err(lacks("kafka"))
}

pub(super) fn topic_log(_: &SourceConfig, _: Vec<String>, _: &str) -> Result<Arc<dyn Log>> {
    Err(lacks("kafka"))
}

pub(super) fn group_log(_: &SourceConfig, _: &str) -> Result<Arc<dyn Log>> {
    Err(lacks("kafka"))
}

pub(super) fn kafka_dead_letters(_: &Parts<'_>, _: &str) -> Result<Arc<dyn DeadLetters>> {
    Err(lacks("kafka"))
}

pub(crate) fn producer(_: &SourceConfig) -> Result<Arc<dyn Producer>> {
    Err(lacks("kafka"))
}

pub(crate) fn command_producer(_: &SourceConfig) -> Result<Arc<dyn Producer>> {
    Err(lacks("kafka"))
}
