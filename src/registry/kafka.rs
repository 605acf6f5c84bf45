//! Kafka as a source.

use std::sync::Arc;

use foldline_api::error::{Error, Result};
use foldline_api::producer::Producer;
use foldline_api::source::{DeadLetters, Log};
use foldline_language::config::diagnostic::Diagnostic;
use foldline_language::config::projection::Names;
pub use foldline_source_kafka::Topics;
use foldline_source_kafka::{
    DeclaredTopic, GroupProtocol, KafkaConfig, KafkaDeadLetters, KafkaLog, KafkaProducer,
};

use regex::Regex;

use super::{Parts, dead_letter_topics};
use crate::config::{Config, RegistryKind, SourceConfig, SourceKind, TopicConfig};

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
        worker: None,
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
    let mut kafka = kafka_config(parts.source, group, topics)?;
    kafka.worker = Some(config.worker.advertised.clone());
    // A producer needs its schemas' topic before there is any record.
    for topic in schema_topics(config, parts.source) {
        let more = declared(parts.source, &Topics::List(vec![topic.to_owned()]));
        let known = |one: &DeclaredTopic| kafka.declared.iter().any(|known| known.name == one.name);
        let more: Vec<DeclaredTopic> = more.into_iter().filter(|one| !known(one)).collect();
        kafka.declared.extend(more);
    }
    Ok(Arc::new(KafkaLog::new(kafka)?))
}

/// The topics of a source that have schemas.
fn schema_topics<'c>(config: &'c Config, source: &SourceConfig) -> Vec<&'c str> {
    let topics = config.registries.values().filter_map(|registry| match &registry.kind {
        RegistryKind::Topic { topic, source: at } => {
            let at = config.source_of(at.as_deref())?;
            (at.name == source.name).then_some(topic.as_str())
        }
        RegistryKind::Confluent { .. } => None,
    });
    topics.collect()
}

pub(super) fn topic_log(
    source: &SourceConfig,
    topics: Vec<String>,
    name: &str,
) -> Result<Arc<dyn Log>> {
    Ok(Arc::new(KafkaLog::new(kafka_config(source, name, Topics::List(topics))?)?))
}

pub(super) fn group_log(source: &SourceConfig, group: &str) -> Result<Arc<dyn Log>> {
    // That no topic has.
    let topics = Topics::Regex { pattern: "^$".to_owned(), except: Vec::new() };
    Ok(Arc::new(KafkaLog::new(kafka_config(source, group, topics)?)?))
}

pub(super) fn kafka_dead_letters(parts: &Parts<'_>, topic: &str) -> Result<Arc<dyn DeadLetters>> {
    let topics = Topics::List(vec![topic.to_owned()]);
    let config = kafka_config(parts.source, &parts.connector.group, topics)?;
    Ok(Arc::new(KafkaDeadLetters::new(config, topic)?))
}

/// Writes posted records to a source's topics, none of which it makes.
///
/// # Errors
/// When the source is no Kafka, or its properties contradict each other.
pub(crate) fn producer(source: &SourceConfig) -> Result<Arc<dyn Producer>> {
    let config = kafka_config(source, "ingest", Topics::List(Vec::new()))?;
    Ok(Arc::new(KafkaProducer::of_known_topics(&config)?))
}

/// Writes records to any topic of a source, at a command.
///
/// # Errors
/// As [`producer`].
pub(crate) fn command_producer(source: &SourceConfig) -> Result<Arc<dyn Producer>> {
    let config = kafka_config(source, "produce", Topics::List(Vec::new()))?;
    Ok(Arc::new(KafkaProducer::new(&config)?))
}

#[cfg(test)]
mod tests {
    use foldline_source_kafka::{is_property, library_version};

    use crate::config::kafka::property_names;

    /// A new librdkafka has new properties: its CONFIGURATION.md tells them.
    #[test]
    fn the_list_of_properties_is_that_of_the_library() {
        let list = include_str!("../config/librdkafka.txt");
        let head = list.lines().next().unwrap();
        assert!(head.contains(&format!("librdkafka {},", library_version())), "{head}");
        let unknown: Vec<&str> = property_names().filter(|name| !is_property(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(property_names().count() > 150);
        assert!(!is_property("securty.protocol"));
    }
}
