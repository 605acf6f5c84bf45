//! `[sinks.NAME]`: target stores. What a store's keys are, its crate says.

use std::iter::once;
use std::sync::Arc;

use foldline_api::error::{Error, Result};
use foldline_api::kind::Sink;
use foldline_api::secret::Secret;
use foldline_language::config::reader::{Field, Reader};
use foldline_language::config::sink::{SinkKind, TargetKey};
use foldline_language::config::tree::Item;
use indexmap::IndexMap;

use super::kafka;
use super::source::{ConverterKind, TopicConfig, read_converter, read_topics};
use super::unsupported::lacks;

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
/// State topics, which are read here and not written yet.
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
            Self::Kafka(_) => {
                Err(Error::config("a sink of type \"kafka\" is not available yet".to_owned()))
            }
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

pub(super) fn read(name: &str, field: &Field<'_>, registries: &[&str]) -> Option<SinkConfig> {
    let Item::Table(table) = &field.node.item else {
        field.table("sink.postgres");
        return None;
    };
    let kinds = kinds();
    let Some(node) = table.get("type") else {
        field.problem_with_help("`type` is missing", format!("type = {}", one_of(&kinds)));
        return None;
    };
    let kind = Field { cx: field.cx, path: format!("{}.type", field.path), node }.choice(&kinds)?;
    let store = match kind {
        Reads::Built(kind) => {
            let mut reader = reader_of(field, kind.name)?;
            let sink = (kind.read)(&mut reader);
            reader.finish();
            Store::Built { kind, sink: sink? }
        }
        Reads::Kafka => {
            let mut reader = reader_of(field, KAFKA)?;
            let sink = read_kafka(&mut reader, registries);
            reader.finish();
            Store::Kafka(Box::new(sink?))
        }
        Reads::Lacking(name) => Store::Lacking(name),
    };
    Some(SinkConfig { name: name.to_owned(), store })
}

/// The table of a sink of this kind, which is read already.
fn reader_of<'a>(field: &Field<'a>, kind: &str) -> Option<Reader<'a>> {
    let mut reader = field.table(format!("sink.{kind}"))?;
    reader.get("type");
    Some(reader)
}

/// `"a", "b" or "c"`.
fn one_of(kinds: &[(&str, Reads)]) -> String {
    let names: Vec<String> = kinds.iter().map(|(name, _)| format!("{name:?}")).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

fn read_kafka(reader: &mut Reader<'_>, registries: &[&str]) -> Option<KafkaSink> {
    let servers = kafka::read_servers(reader);
    let properties = kafka::read_properties(reader.entries("properties"), kafka::Side::Sink);
    let key = read_converter(reader.get("key"), registries).unwrap_or(ConverterKind::Text);
    let value = read_converter(reader.get("value"), registries).unwrap_or(ConverterKind::Json);
    let topics = reader.entries("topics");
    for (name, field) in &topics {
        if name.starts_with('^') {
            field.problem("a regex names no topic to write to");
        }
    }
    let topics = read_topics(topics, registries);
    Some(KafkaSink { bootstrap_servers: servers?, properties, key, value, topics })
}
