//! `[sinks.NAME]`: target stores. What a store's keys are, its crate says.

use std::iter::once;
use std::sync::Arc;

use foldline_api::error::{Error, Result};
use foldline_api::kind::Sink;
use foldline_api::secret::Secret;
use foldline_language::config::diagnostic::join;
use foldline_language::config::reader::{Field, Reader};
use foldline_language::config::sink::{SinkKind, TargetKey};
use foldline_language::config::table_kind::{TableKind, read_type};
use foldline_language::converter::Framing;
use indexmap::IndexMap;

use super::registry::{RegistryConfig, RegistryKind};
use super::source::{ConverterKind, TopicConfig};
use super::unsupported::lacks;
use super::{kafka, source};

/// The stores of this build: the one place that names their crates.
pub(super) static KINDS: &[&SinkKind] = &[
    #[cfg(feature = "postgres")]
    &foldline_sink_postgres::KIND,
    #[cfg(feature = "elasticsearch")]
    &foldline_sink_elasticsearch::KIND,
    #[cfg(feature = "sqlite")]
    &foldline_sink_sqlite::KIND,
];
/// Those that a build can leave out: then they are known by name.
const FEATURES: [&str; 3] = ["postgres", "elasticsearch", "sqlite"];
/// State topics. Their keys are those of Kafka sources, so they are read here.
pub(super) const KAFKA: &str = "kafka";

/// One sink.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// Its name in the config.
    pub name: String,
    /// Which store, and how to reach it.
    pub store: Store,
}

/// Which store, and how to reach it.
#[derive(Clone, Debug)]
pub enum Store {
    /// One of this build.
    Built {
        /// Which kind it is.
        kind: &'static SinkKind,
        /// What its crate read.
        sink: Arc<dyn Sink>,
    },
    /// State topics of a Kafka cluster.
    Kafka(Box<KafkaSink>),
    /// One that this build was made without; its keys are not looked at.
    Lacking(&'static str),
}

/// State topics of a Kafka cluster.
#[derive(Clone, Debug)]
pub struct KafkaSink {
    /// `host:port`, several joined by commas.
    pub bootstrap_servers: String,
    /// Other librdkafka properties; a value may be a secret.
    pub properties: IndexMap<String, Secret>,
    /// What encodes keys, where a topic says nothing else.
    pub key: ConverterKind,
    /// What encodes values, where a topic says nothing else.
    pub value: ConverterKind,
    /// What topics have of their own.
    pub topics: IndexMap<String, TopicConfig>,
    /// The registries that are topics.
    schema_topics: Vec<String>,
    /// What makes its targets; none in a build without Kafka.
    sink: Option<Arc<dyn Sink>>,
}

impl KafkaSink {
    /// What of it no state topic can have yet: a key path under the sink's, and why.
    #[must_use]
    pub fn unsupported(&self) -> Vec<(String, &'static str)> {
        let mut out = Vec::new();
        let mut look = |path: String,
                        key: Option<&ConverterKind>,
                        value: Option<&ConverterKind>| {
            if key.is_some_and(|key| *key != ConverterKind::Text) {
                out.push((format!("{path}key"), "keys of a state topic are `text`: any other is"));
            }
            if let Some(what) = value.and_then(|value| self.lacks_value(value)) {
                out.push((format!("{path}value"), what));
            }
        };
        look(String::new(), Some(&self.key), Some(&self.value));
        for topic in self.topics.values() {
            let path = format!("{}.", join("topics", &topic.name));
            look(path, topic.key.as_ref(), topic.value.as_ref());
        }
        out
    }

    /// Why a state topic cannot have such values yet.
    fn lacks_value(&self, value: &ConverterKind) -> Option<&'static str> {
        match value {
            ConverterKind::Json => None,
            ConverterKind::Avro { registry, .. } if self.schema_topics.contains(registry) => {
                Some("a state topic's schema in a registry of type \"topic\" is")
            }
            ConverterKind::Avro { framing: Framing::Auto | Framing::Confluent, .. } => None,
            ConverterKind::Avro { .. } => {
                Some("values of a state topic are framed as `confluent`: any other framing is")
            }
            ConverterKind::AvroFile(_) => Some(
                "the columns make a state topic's schema, which a `registry` is handed: one from a file is",
            ),
            _ => Some("values of a state topic are `json` or `avro`: any other is"),
        }
    }

    /// The registries that its values need.
    pub fn registries(&self) -> impl Iterator<Item = &str> {
        let own = self.topics.values().filter_map(|topic| topic.value.as_ref());
        once(&self.value).chain(own).filter_map(ConverterKind::registry)
    }
}

impl SinkConfig {
    /// The registries that it needs.
    pub fn registries(&self) -> impl Iterator<Item = &str> {
        let kafka = match &self.store {
            Store::Kafka(kafka) => Some(kafka),
            Store::Built { .. } | Store::Lacking(_) => None,
        };
        kafka.into_iter().flat_map(|kafka| kafka.registries())
    }
}

impl Store {
    /// The name of its kind in the config.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Built { kind, .. } => kind.name,
            Self::Kafka(_) => KAFKA,
            Self::Lacking(name) => name,
        }
    }

    /// What a connector calls its target here, where the build knows it.
    #[must_use]
    pub fn target_key(&self) -> Option<TargetKey> {
        match self {
            Self::Built { kind, .. } => Some(kind.target),
            Self::Kafka(_) => Some(TargetKey::Topic),
            Self::Lacking(_) => None,
        }
    }

    /// What makes its targets.
    ///
    /// # Errors
    /// A config error where the build or this version lacks the sink.
    pub fn sink(&self) -> Result<&Arc<dyn Sink>> {
        match self {
            Self::Built { sink, .. } => Ok(sink),
            Self::Kafka(kafka) => match kafka.unsupported().first() {
                Some((path, what)) => {
                    Err(Error::config(format!("`{path}`: {what} not available yet")))
                }
                None => kafka.sink.as_ref().ok_or_else(|| lacks(KAFKA)),
            },
            Self::Lacking(name) => Err(lacks(name)),
        }
    }
}

/// Kinds that this build was made without.
pub(super) fn lacking() -> impl Iterator<Item = &'static str> {
    FEATURES.into_iter().filter(|name| KINDS.iter().all(|kind| kind.name != *name))
}

/// How one kind is read.
#[derive(Clone, Copy)]
enum Reads {
    Built(&'static SinkKind),
    Kafka,
    Lacking(&'static str),
}

fn kinds() -> Vec<(&'static str, Reads)> {
    let built = KINDS.iter().map(|kind| (kind.name, Reads::Built(kind)));
    let lacking = lacking().map(|name| (name, Reads::Lacking(name)));
    built.chain(lacking).chain(once((KAFKA, Reads::Kafka))).collect()
}

pub(super) fn read(
    name: &str,
    field: &Field<'_>,
    registries: &IndexMap<String, RegistryConfig>,
) -> Option<SinkConfig> {
    let kind = read_type(field, &kinds())?;
    let store = match kind {
        Reads::Built(kind) => {
            let mut reader = kind.table().reader(field)?;
            let sink = (kind.read)(&mut reader);
            reader.finish();
            Store::Built { kind, sink: sink? }
        }
        Reads::Kafka => {
            let mut reader = KAFKA_TABLE.reader(field)?;
            let sink = read_kafka(&mut reader, registries);
            reader.finish();
            Store::Kafka(Box::new(sink?))
        }
        Reads::Lacking(name) => Store::Lacking(name),
    };
    Some(SinkConfig { name: name.to_owned(), store })
}

pub(super) static KAFKA_TABLE: TableKind = TableKind {
    of: "sink",
    name: KAFKA,
    doc: "State topics.",
    keys: &[&kafka::SERVERS, &kafka::PROPERTIES, &source::KEY, &source::VALUE, &source::TOPICS],
};

fn read_kafka(
    reader: &mut Reader<'_>,
    registries: &IndexMap<String, RegistryConfig>,
) -> Option<KafkaSink> {
    let servers = reader.read(&kafka::SERVERS);
    let properties = kafka::read_properties(reader, kafka::Side::Sink);
    let topics = reader.given(&source::TOPICS).filter(Field::is_table);
    for (name, field) in topics.and_then(|field| field.entries()).unwrap_or_default() {
        if name.starts_with('^') {
            field.problem("a regex names no topic to write to");
        }
    }
    let names: Vec<&str> = registries.keys().map(String::as_str).collect();
    let (key, value, topics) = source::read_converters(reader, &names);
    let is_topic = |one: &&RegistryConfig| matches!(one.kind, RegistryKind::Topic { .. });
    let schema_topics = registries.values().filter(is_topic).map(|one| one.name.clone()).collect();
    let bootstrap_servers = servers?;
    let mut sink =
        KafkaSink { bootstrap_servers, properties, key, value, topics, schema_topics, sink: None };
    match state_topics(&sink, registries) {
        Ok(made) => sink.sink = made,
        Err(error) => reader.problem(error.message()),
    }
    Some(sink)
}

#[cfg(feature = "kafka")]
fn state_topics(
    sink: &KafkaSink,
    registries: &IndexMap<String, RegistryConfig>,
) -> Result<Option<Arc<dyn Sink>>> {
    let declared = |topic: &TopicConfig| foldline_source_kafka::DeclaredTopic {
        name: topic.name.clone(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        config: topic.config.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    };
    let text = |(name, value): (&String, &Secret)| (name.clone(), value.expose().to_owned());
    let mut values = Vec::new();
    for topic in sink.topics.values() {
        if let Some(value) = &topic.value {
            values.push((topic.name.clone(), format_of(sink, value, registries)?));
        }
    }
    let config = foldline_sink_kafka::KafkaSinkConfig {
        bootstrap_servers: sink.bootstrap_servers.clone(),
        properties: sink.properties.iter().map(text).collect(),
        topics: sink.topics.values().map(declared).collect(),
        value: format_of(sink, &sink.value, registries)?,
        values,
    };
    Ok(Some(Arc::new(foldline_sink_kafka::KafkaSink::new(config))))
}

/// How values are written; as JSON where it is told elsewhere that there is no such way yet.
#[cfg(feature = "kafka")]
fn format_of(
    sink: &KafkaSink,
    value: &ConverterKind,
    registries: &IndexMap<String, RegistryConfig>,
) -> Result<foldline_sink_kafka::ValueFormat> {
    use foldline_sink_kafka::{StateRegistry, ValueFormat};

    let registry = value.registry().and_then(|name| registries.get(name));
    Ok(match (value, registry) {
        (ConverterKind::Avro { .. }, Some(registry)) if sink.lacks_value(value).is_none() => {
            let (name, registry) = (registry.name.clone(), registry.server()?);
            ValueFormat::Avro(StateRegistry { name, registry })
        }
        _ => ValueFormat::Json,
    })
}

#[cfg(not(feature = "kafka"))]
#[expect(clippy::unnecessary_wraps, reason = "a build with Kafka may fail")]
fn state_topics(
    _: &KafkaSink,
    _: &IndexMap<String, RegistryConfig>,
) -> Result<Option<Arc<dyn Sink>>> {
    Ok(None)
}
