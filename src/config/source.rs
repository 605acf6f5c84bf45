//! `[sources.NAME]`: where events come from, and what turns their bytes into values.

use std::path::PathBuf;

use foldline_api::secret::Secret;
use foldline_language::config::names::check_regex;
use foldline_language::config::reader::{Field, Reader};
use foldline_language::config::tree::Item;
use indexmap::IndexMap;
use regex::Regex;

use super::avro::{self, AvroFile};
use super::kafka;
use super::names::check_topic;

/// One source.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceConfig {
    /// Its name in the config.
    pub name: String,
    /// What decodes keys, where a topic says nothing else.
    pub key: ConverterKind,
    /// What decodes values, where a topic says nothing else.
    pub value: ConverterKind,
    /// What topics have of their own, by name or by regex.
    pub topics: IndexMap<String, TopicConfig>,
    /// Where it reads.
    pub kind: SourceKind,
}

/// Where a source reads.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// A Kafka cluster.
    Kafka {
        /// `host:port`, several joined by commas.
        bootstrap_servers: String,
        /// Other librdkafka properties; a value may be a secret.
        properties: IndexMap<String, Secret>,
        /// Which rebalance protocol; librdkafka's default where not given.
        group_protocol: Option<GroupProtocol>,
        /// Static membership.
        group_instance_id: Option<String>,
    },
    /// An NDJSON log on disk, one file per partition.
    File {
        /// Its directory.
        path: PathBuf,
    },
}

/// Who computes the assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupProtocol {
    /// A member of the group.
    Classic,
    /// The broker (KIP-848).
    Consumer,
}

/// From bytes to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConverterKind {
    /// JSON.
    Json,
    /// JSON in Kafka Connect's `{ schema, payload }`.
    ConnectJson,
    /// UTF-8 text.
    Text,
    /// Bytes as they are.
    Bytes,
    /// Avro with schemas from a registry.
    Avro {
        /// The registry's name.
        registry: String,
    },
    /// Avro by a schema from a file.
    AvroFile(AvroFile),
    /// Protobuf with schemas from a registry.
    Protobuf {
        /// The registry's name.
        registry: String,
    },
}

impl ConverterKind {
    /// Its name in the config.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::ConnectJson => "connect-json",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Avro { .. } | Self::AvroFile(_) => "avro",
            Self::Protobuf { .. } => "protobuf",
        }
    }

    /// The registry that it needs.
    pub fn registry(&self) -> Option<&str> {
        match self {
            Self::Avro { registry } | Self::Protobuf { registry } => Some(registry),
            Self::Json | Self::ConnectJson | Self::Text | Self::Bytes | Self::AvroFile(_) => None,
        }
    }
}

/// What a topic, or each topic that a regex matches, has of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicConfig {
    /// Its name, or a regex that starts with `^`.
    pub name: String,
    /// Decodes its keys.
    pub key: Option<ConverterKind>,
    /// Decodes its values.
    pub value: Option<ConverterKind>,
    /// Created with so many when missing, else checked.
    pub partitions: Option<i32>,
    /// Created with so many when missing, else checked.
    pub replication_factor: Option<i32>,
    /// Kafka's topic settings, created or checked.
    pub config: IndexMap<String, String>,
    /// Opens `POST /topics/NAME`.
    pub ingest: Option<IngestConfig>,
}

/// `ingest = true`, or with a JSON Schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngestConfig {
    /// The JSON Schema that values must fit.
    pub schema: Option<PathBuf>,
}

impl SourceConfig {
    /// What is said of one topic: by its name, else by the first regex that matches.
    pub fn topic(&self, name: &str) -> Option<&TopicConfig> {
        let matches = |pattern: &str| Regex::new(pattern).is_ok_and(|regex| regex.is_match(name));
        let by_regex = || {
            let mut regexes = self.topics.values().filter(|topic| topic.name.starts_with('^'));
            regexes.find(|topic| matches(&topic.name))
        };
        self.topics.get(name).or_else(by_regex)
    }

    /// What decodes the keys and the values of one topic.
    pub fn converters(&self, topic: &str) -> (&ConverterKind, &ConverterKind) {
        let own = self.topic(topic);
        let key = own.and_then(|topic| topic.key.as_ref()).unwrap_or(&self.key);
        let value = own.and_then(|topic| topic.value.as_ref()).unwrap_or(&self.value);
        (key, value)
    }
}

pub(super) fn read(name: &str, field: &Field<'_>, registries: &[&str]) -> Option<SourceConfig> {
    let Item::Table(table) = &field.node.item else {
        field.table("source.kafka");
        return None;
    };
    let Some(node) = table.get("type") else {
        field.problem_with_help("`type` is missing", "type = \"kafka\" or \"file\"");
        return None;
    };
    let kind = Field { cx: field.cx, path: format!("{}.type", field.path), node };
    let is_file = kind.choice(&[("kafka", false), ("file", true)])?;
    let mut reader = field.table(if is_file { "source.file" } else { "source.kafka" })?;
    reader.get("type");
    let kind = if is_file { read_file(&mut reader) } else { read_kafka(&mut reader) };
    let key = read_converter(reader.get("key"), registries).unwrap_or(ConverterKind::Text);
    let value = read_converter(reader.get("value"), registries).unwrap_or(ConverterKind::Json);
    let topics = read_topics(reader.entries("topics"), registries);
    reader.finish();
    Some(SourceConfig { name: name.to_owned(), key, value, topics, kind: kind? })
}

fn read_file(reader: &mut Reader<'_>) -> Option<SourceKind> {
    let path = reader.required("path", "\"log\"").and_then(|field| field.file_path());
    Some(SourceKind::File { path: path? })
}

fn read_kafka(reader: &mut Reader<'_>) -> Option<SourceKind> {
    let servers = kafka::read_servers(reader);
    let properties = kafka::read_properties(reader.entries("properties"), kafka::Side::Source);
    let protocols = [("classic", GroupProtocol::Classic), ("consumer", GroupProtocol::Consumer)];
    let group_protocol = reader.get("group_protocol").and_then(|field| field.choice(&protocols));
    let group_instance_id = reader.text("group_instance_id");
    Some(SourceKind::Kafka {
        bootstrap_servers: servers?,
        properties,
        group_protocol,
        group_instance_id,
    })
}

pub(super) fn read_converter(
    field: Option<Field<'_>>,
    registries: &[&str],
) -> Option<ConverterKind> {
    let field = field?;
    let (name, registry, file) = if field.is_table() {
        let mut reader = field.table("converter")?;
        let name = reader.required("type", "\"avro\"");
        let registry = reader.get("registry");
        let file = avro::Keys::read(&mut reader);
        reader.finish();
        (name?, registry, file)
    } else {
        (field.clone(), None, avro::Keys::default())
    };
    if file.are_given() {
        let is_avro = name.node.as_str() == Some("avro");
        return avro::read(&name, is_avro, file, registry).map(ConverterKind::AvroFile);
    }
    #[derive(Clone, Copy)]
    enum Needs {
        Nothing(fn() -> ConverterKind),
        Registry(fn(String) -> ConverterKind),
    }
    let choices = [
        ("json", Needs::Nothing(|| ConverterKind::Json)),
        ("connect-json", Needs::Nothing(|| ConverterKind::ConnectJson)),
        ("avro", Needs::Registry(|registry| ConverterKind::Avro { registry })),
        ("protobuf", Needs::Registry(|registry| ConverterKind::Protobuf { registry })),
        ("text", Needs::Nothing(|| ConverterKind::Text)),
        ("bytes", Needs::Nothing(|| ConverterKind::Bytes)),
    ];
    match (name.choice(&choices)?, registry) {
        (Needs::Nothing(kind), None) => Some(kind()),
        (Needs::Nothing(_), Some(registry)) => {
            registry.problem("only `avro` and `protobuf` read from a registry");
            None
        }
        (Needs::Registry(kind), Some(registry)) => {
            registry.reference("registry", registries.iter().copied()).map(kind)
        }
        (Needs::Registry(kind), None) => match registries {
            [only] => Some(kind((*only).to_owned())),
            _ => {
                let text = name.node.as_str().unwrap_or("avro");
                let mut help = format!("{{ type = \"{text}\", registry = \"main\" }}");
                let mut needs = "a `registry`".to_owned();
                if text == "avro" {
                    needs.push_str(" or a `schema`");
                    help.push_str(", or { type = \"avro\", schema = \"order.avsc\" }");
                }
                name.problem_with_help(format!("`{text}` needs {needs}"), help);
                None
            }
        },
    }
}

pub(super) fn read_topics(
    entries: Vec<(&str, Field<'_>)>,
    registries: &[&str],
) -> IndexMap<String, TopicConfig> {
    let read = |(name, field): (&str, Field<'_>)| {
        let topic = read_topic(name, &field, registries)?;
        Some((name.to_owned(), topic))
    };
    entries.into_iter().filter_map(read).collect()
}

fn read_topic(name: &str, field: &Field<'_>, registries: &[&str]) -> Option<TopicConfig> {
    if name.starts_with('^') {
        check_regex(field, name);
    } else {
        check_topic(field, name);
    }
    let mut reader = field.table("topic")?;
    let key = read_converter(reader.get("key"), registries);
    let value = read_converter(reader.get("value"), registries);
    let partitions = reader.get("partitions").and_then(|f| f.number(1, 1_000_000));
    let replication_factor = reader.get("replication_factor").and_then(|f| f.number(1, 32_767));
    let config = read_settings(reader.entries("config"));
    let ingest = reader.get("ingest").and_then(|f| read_ingest(name, &f));
    reader.finish();
    let name = name.to_owned();
    Some(TopicConfig { name, key, value, partitions, replication_factor, config, ingest })
}

/// Kafka's own settings: texts; a number or boolean is taken for its text.
fn read_settings(entries: Vec<(&str, Field<'_>)>) -> IndexMap<String, String> {
    let read = |(name, field): (&str, Field<'_>)| {
        let text = field.plain_text()?;
        Some((name.to_owned(), text))
    };
    entries.into_iter().filter_map(read).collect()
}

fn read_ingest(topic: &str, field: &Field<'_>) -> Option<IngestConfig> {
    if topic.starts_with('^') {
        field.problem("a regex names no topic to post to: give each topic its own `ingest`");
        return None;
    }
    if !field.is_table() {
        return field.flag()?.then(IngestConfig::default);
    }
    let mut reader = field.table("ingest")?;
    let schema = reader.get("schema").and_then(|f| f.file_path());
    reader.finish();
    Some(IngestConfig { schema })
}
