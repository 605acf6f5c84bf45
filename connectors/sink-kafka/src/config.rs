//! The sink as the worker knows it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use foldline_api::kind::Sink;
use foldline_api::removal::Owned;
use foldline_api::sink::{Target, TargetSpec};
use foldline_api::{Error, Result};
use foldline_source_kafka::{DeclaredTopic, GroupProtocol, KafkaConfig, Topics};

use crate::removal;
use crate::target::{Copy, KafkaTarget};
use crate::values::{self, ValueFormat, Values};

/// A state topic keeps the last record of each key.
pub(crate) const POLICY: (&str, &str) = ("cleanup.policy", "compact");
/// What the books' topic is made with: little of it is read anew at a start, and the largest record fits that was parked.
const BOOKS: [(&str, &str); 4] = [
    POLICY,
    ("segment.bytes", "67108864"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("max.message.bytes", "104857600"),
];

/// A Kafka cluster that state topics are written to.
#[derive(Clone)]
pub struct KafkaSinkConfig {
    /// `host:port`, several joined by commas.
    pub bootstrap_servers: String,
    /// Further librdkafka properties; none of Foldline's own.
    pub properties: Vec<(String, String)>,
    /// The topics that the config describes.
    pub topics: Vec<DeclaredTopic>,
    /// How values are written.
    pub value: ValueFormat,
    /// The topics whose values are written otherwise.
    pub values: Vec<(String, ValueFormat)>,
}

/// Property values may hold secrets: only names are shown.
impl fmt::Debug for KafkaSinkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.properties.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("KafkaSinkConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &names)
            .field("topics", &self.topics)
            .finish()
    }
}

/// State topics of one cluster. Targets of one spec share a copy.
#[derive(Debug)]
pub struct KafkaSink {
    config: KafkaSinkConfig,
    copies: Mutex<HashMap<String, Weak<Copy>>>,
}

/// What the topic of the books of a state topic has behind that one's name.
pub(crate) const BOOKS_OF: &str = "-foldline";

/// The topic of the books of a state topic.
pub(crate) fn books(states: &str) -> String {
    format!("{states}{BOOKS_OF}")
}

impl KafkaSinkConfig {
    /// How a connector's state topic is made: as the config describes it, and compacted.
    fn declared(&self, spec: &TargetSpec) -> Result<DeclaredTopic> {
        let described = self.topics.iter().find(|topic| topic.name == spec.target);
        let mut states = described.cloned().unwrap_or(DeclaredTopic {
            name: spec.target.clone(),
            partitions: None,
            replication_factor: None,
            config: Vec::new(),
        });
        match states.config.iter().find(|(name, _)| name == POLICY.0) {
            Some((_, policy)) if policy.trim() != POLICY.1 => Err(Error::config(format!(
                "the state topic `{}` must have {} = \"{}\", not {policy:?}: what a broker deletes by time or size is a \
                 state that is lost",
                spec.target, POLICY.0, POLICY.1
            ))),
            Some(_) => Ok(states),
            None => {
                states.config.push((POLICY.0.to_owned(), POLICY.1.to_owned()));
                Ok(states)
            }
        }
    }

    /// How a topic's values are written.
    fn values(&self, topic: &str) -> &ValueFormat {
        let own = self.values.iter().find(|(name, _)| name == topic);
        own.map_or(&self.value, |(_, format)| format)
    }

    /// The client's settings for a connector's state topic.
    pub(crate) fn kafka(&self, spec: &TargetSpec) -> Result<KafkaConfig> {
        let states = self.declared(spec)?;
        let books = DeclaredTopic {
            name: books(&spec.target),
            partitions: Some(1),
            replication_factor: states.replication_factor,
            config: BOOKS.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        };
        Ok(KafkaConfig {
            bootstrap_servers: self.bootstrap_servers.clone(),
            properties: self.properties.clone(),
            group: books.name.clone(),
            topics: Topics::List(vec![spec.target.clone(), books.name.clone()]),
            group_protocol: GroupProtocol::Classic,
            group_instance_id: None,
            client_id: format!("foldline-{}", spec.connector),
            worker: None,
            declared: vec![states, books],
        })
    }
}

impl KafkaSink {
    /// A sink of this cluster.
    #[must_use]
    pub fn new(config: KafkaSinkConfig) -> Self {
        KafkaSink { config, copies: Mutex::default() }
    }
}

#[async_trait]
impl Sink for KafkaSink {
    fn target(&self, spec: TargetSpec) -> Result<Arc<dyn Target>> {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        // All of it: another model, or another log, is another copy.
        let name = format!("{spec:?}");
        if let Some(copy) = copies.get(&name).and_then(Weak::upgrade) {
            return Ok(Arc::new(KafkaTarget::new(copy)));
        }
        copies.retain(|_, copy| copy.strong_count() > 0);
        let values = Values::new(self.config.values(&spec.target).clone(), &spec)?;
        let copy = Arc::new(Copy::new(self.config.kafka(&spec)?, spec, values)?);
        copies.insert(name, Arc::downgrade(&copy));
        Ok(Arc::new(KafkaTarget::new(copy)))
    }

    fn plan(&self, spec: &TargetSpec) -> Vec<String> {
        let Ok(config) = self.config.kafka(spec) else { return Vec::new() };
        let or_default =
            |count: Option<i32>| count.map_or("the broker's default".to_owned(), |n| n.to_string());
        let topic = |topic: &DeclaredTopic| {
            let config: Vec<String> =
                topic.config.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!(
                "topic {}: partitions {}, replication factor {}, {}",
                topic.name,
                or_default(topic.partitions),
                or_default(topic.replication_factor),
                config.join(", ")
            )
        };
        let mut out: Vec<String> = config.declared.iter().map(topic).collect();
        let key: Vec<&str> = spec.model.key_columns().map(|column| &*column.name).collect();
        out.push(format!("key: {} as text, joined by ':'", key.join(", ")));
        out.push(values::plan(self.config.values(&spec.target), spec));
        out.push(format!("transactional.id: {}", books(&spec.target)));
        out
    }

    async fn owned(&self, connector: &str) -> Result<Vec<Owned>> {
        removal::owned(&self.config, connector).await
    }

    fn speaks_sql(&self) -> bool {
        false
    }
}
