//! Kafka as a source.

use std::sync::Arc;

use foldline_api::error::{Error, Result};
use foldline_api::source::{DeadLetters, Log};
use foldline_language::config::diagnostic::Diagnostic;
use foldline_language::config::projection::Names;
pub use foldline_source_kafka::Topics;
use foldline_source_kafka::{
    DeclaredTopic, GroupProtocol, KafkaConfig, KafkaDeadLetters, KafkaLog,
};

use regex::Regex;

use super::{Parts, dead_letter_topics};
use crate::config::{Config, SourceConfig, SourceKind, TopicConfig};

/// What is wrong with the properties of Kafka sources together: librdkafka compares its limits only where a
/// client is made.
pub(crate) fn limits(config: &Config) -> Vec<Diagnostic> {
    let check = |source: &SourceConfig| {
        let SourceKind::Kafka { properties, .. } = &source.kind else { return None };
        let kafka = kafka_config(source, "validate", Topics::List(vec![String::new()]));
        let error = kafka.and_then(|kafka| kafka.check_limits()).err()?;
        let named = properties.keys().find(|name| error.message().contains(&format!("`{name}`")));
        let path = match named {
            Some(name) => format!("sources.{}.properties.{name}", source.name),
            None => format!("sources.{}.properties", source.name),
        };
        Some(config.places.problem(&path, error.message()))
    };
    config.sources.values().filter_map(check).collect()
}

/// The Kafka client's settings for a source, with `group` and `topics`.
///
/// # Errors
/// When the source is no Kafka.
pub fn kafka_config(source: &SourceConfig, group: &str, topics: Topics) -> Result<KafkaConfig> {
    let SourceKind::Kafka { bootstrap_servers, properties, group_protocol, group_instance_id } =
        &source.kind
    else {
        return Err(Error::config(format!("source {:?} is not of type \"kafka\"", source.name)));
    };
    Ok(KafkaConfig {
        bootstrap_servers: bootstrap_servers.clone(),
        properties: properties
            .iter()
            .map(|(name, value)| (name.clone(), value.expose().to_owned()))
            .collect(),
        group: group.to_owned(),
        declared: declared(source, &topics),
        topics,
        group_protocol: match group_protocol {
            Some(crate::config::GroupProtocol::Consumer) => GroupProtocol::Consumer,
            Some(crate::config::GroupProtocol::Classic) | None => GroupProtocol::Classic,
        },
        group_instance_id: group_instance_id.clone(),
        client_id: format!("foldline-{group}"),
    })
}

/// The topics of `topics` that the source describes: by name where they are listed, by regex also where they are found.
fn declared(source: &SourceConfig, topics: &Topics) -> Vec<DeclaredTopic> {
    let is_read = |topic: &&TopicConfig| match topics {
        Topics::List(names) => names.contains(&topic.name),
        Topics::Regex { pattern, .. } => {
            topic.name == *pattern
                || Regex::new(pattern).is_ok_and(|regex| regex.is_match(&topic.name))
        }
    };
    let of = |topic: &TopicConfig| DeclaredTopic {
        name: topic.name.clone(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        config: topic.config.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    };
    source.topics.values().filter(|topic| topic.is_described()).filter(is_read).map(of).collect()
}

pub(super) fn kafka_log(config: &Config, parts: &Parts<'_>, group: &str) -> Result<Arc<dyn Log>> {
    let topics = match &parts.projection.topics {
        Names::List(list) => Topics::List(list.clone()),
        Names::Regex(regex) => {
            Topics::Regex { pattern: regex.clone(), except: dead_letter_topics(config) }
        }
    };
    Ok(Arc::new(KafkaLog::new(kafka_config(parts.source, group, topics)?)?))
}

pub(super) fn kafka_dead_letters(parts: &Parts<'_>, topic: &str) -> Result<Arc<dyn DeadLetters>> {
    let topics = Topics::List(vec![topic.to_owned()]);
    let config = kafka_config(parts.source, &parts.connector.group, topics)?;
    Ok(Arc::new(KafkaDeadLetters::new(config, topic)?))
}
