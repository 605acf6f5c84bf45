//! `[sources.NAME]`: where events come from, and what turns their bytes into values.

use std::path::PathBuf;

use foldline_api::secret::Secret;
use foldline_language::config::form::{Choice, Entries, FilePath, KeyForm, Number, Other, Text};
use foldline_language::config::key::{Key, Or, Required, Section};
use foldline_language::config::names::check_regex;
use foldline_language::config::reader::{Field, Reader};
use foldline_language::config::schema::{of, refer};
use foldline_language::config::table_kind::{TableKind, read_type};
use foldline_language::config::topic_facts::{SourceFacts, TopicFacts};
use foldline_language::converter::Framing;
use indexmap::IndexMap;
use regex::Regex;
use serde_json::{Value, json};

use super::avro::AvroFile;
use super::kafka;
use super::names::check_topic;
use super::protobuf::ProtobufFile;
use super::schema_file;

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
    /// JSON behind a frame.
    FramedJson(Framing),
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
        /// Where a record says which schema it is of.
        framing: Framing,
    },
    /// Avro by a schema from a file.
    AvroFile(AvroFile),
    /// Protobuf with schemas from a registry.
    Protobuf {
        /// The registry's name.
        registry: String,
        /// Where a record says which schema it is of.
        framing: Framing,
    },
    /// Protobuf by a schema from a file.
    ProtobufFile(ProtobufFile),
}

impl ConverterKind {
    /// Its name in the config.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Json | Self::FramedJson(_) => "json",
            Self::ConnectJson => "connect-json",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Avro { .. } | Self::AvroFile(_) => "avro",
            Self::Protobuf { .. } | Self::ProtobufFile(_) => "protobuf",
        }
    }

    /// The registry that it needs.
    pub fn registry(&self) -> Option<&str> {
        match self {
            Self::Avro { registry, .. } | Self::Protobuf { registry, .. } => Some(registry),
            Self::Json
            | Self::FramedJson(_)
            | Self::ConnectJson
            | Self::Text
            | Self::Bytes
            | Self::AvroFile(_)
            | Self::ProtobufFile(_) => None,
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
    /// Of a Debezium topic: `before` holds true values.
    pub full: bool,
}

/// `ingest = true`, or with a JSON Schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestConfig {
    /// The JSON Schema that values must fit.
    pub schema: Option<PathBuf>,
    /// The header that an event's name is written as.
    pub event_header: String,
}

impl Default for IngestConfig {
    fn default() -> Self {
        IngestConfig { schema: None, event_header: EVENT_HEADER.default() }
    }
}

impl TopicConfig {
    /// Whether it says how the topic is made.
    pub fn is_described(&self) -> bool {
        self.partitions.is_some() || self.replication_factor.is_some() || !self.config.is_empty()
    }
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

    /// What it says of its topics that decides how an envelope is opened.
    pub fn facts(&self) -> SourceFacts {
        let facts = |key: &ConverterKind, full: bool| TopicFacts {
            full,
            flat_key: matches!(key, ConverterKind::Text | ConverterKind::Bytes),
        };
        let of = |topic: &TopicConfig| {
            let key = topic.key.as_ref().unwrap_or(&self.key);
            (topic.name.clone(), facts(key, topic.full))
        };
        SourceFacts {
            source: self.name.clone(),
            topics: self.topics.values().map(of).collect(),
            other: facts(&self.key, false),
        }
    }

    /// The registries that its converters need.
    pub fn registries(&self) -> impl Iterator<Item = &str> {
        let own = self.topics.values().flat_map(|topic| topic.key.iter().chain(&topic.value));
        [&self.key, &self.value].into_iter().chain(own).filter_map(ConverterKind::registry)
    }

    /// What decodes the keys and the values of one topic.
    pub fn converters(&self, topic: &str) -> (&ConverterKind, &ConverterKind) {
        let own = self.topic(topic);
        let key = own.and_then(|topic| topic.key.as_ref()).unwrap_or(&self.key);
        let value = own.and_then(|topic| topic.value.as_ref()).unwrap_or(&self.value);
        (key, value)
    }
}

pub(super) static KAFKA: TableKind = TableKind {
    of: "source",
    name: "kafka",
    doc: "A Kafka cluster.",
    keys: &[
        &kafka::SERVERS,
        &kafka::PROPERTIES,
        &KEY,
        &VALUE,
        &TOPICS,
        &GROUP_PROTOCOL,
        &GROUP_INSTANCE_ID,
    ],
};
pub(super) static FILE: TableKind = TableKind {
    of: "source",
    name: "file",
    doc: "NDJSON files.",
    keys: &[&PATH, &KEY, &VALUE, &TOPICS],
};

/// A topic's own come before those of its source or sink.
pub(super) const KEY: Key<Other> =
    Key::new("key", Other(converter_or_name), "From bytes to keys; where nothing is said, text");
pub(super) const VALUE: Key<Other> = Key::new(
    "value",
    Other(converter_or_name),
    "From bytes to values; where nothing is said, json",
);
pub(super) const TOPICS: Key<Entries> =
    Key::new("topics", Entries(|| of(TOPIC.name)), "What topics have of their own; ^… is a regex");
const GROUP_PROTOCOL: Key<Choice<GroupProtocol>> = Key::new(
    "group_protocol",
    Choice(&[("classic", GroupProtocol::Classic), ("consumer", GroupProtocol::Consumer)]),
    "Who computes the assignment",
);
const GROUP_INSTANCE_ID: Key<Text> = Key::new("group_instance_id", Text, "Static membership");
const PATH: Key<FilePath, Required> =
    Key::new("path", FilePath, "Directory of the log").required("\"log\"");

pub(super) fn read(name: &str, field: &Field<'_>, registries: &[&str]) -> Option<SourceConfig> {
    let is_file = read_type(field, &[(KAFKA.name, false), (FILE.name, true)])?;
    let mut reader = if is_file { &FILE } else { &KAFKA }.reader(field)?;
    let kind = if is_file {
        reader.read(&PATH).map(|path| SourceKind::File { path })
    } else {
        read_kafka(&mut reader)
    };
    let (key, value, topics) = read_converters(&mut reader, registries);
    reader.finish();
    Some(SourceConfig { name: name.to_owned(), key, value, topics, kind: kind? })
}

fn read_kafka(reader: &mut Reader<'_>) -> Option<SourceKind> {
    Some(SourceKind::Kafka {
        properties: kafka::read_properties(reader, kafka::Side::Source),
        group_protocol: reader.read(&GROUP_PROTOCOL),
        group_instance_id: reader.read(&GROUP_INSTANCE_ID),
        // Last, so that what is wrong with the others is told where they are missing.
        bootstrap_servers: reader.read(&kafka::SERVERS)?,
    })
}

/// What turns bytes into keys and values, and what topics have of their own.
pub(super) fn read_converters(
    reader: &mut Reader<'_>,
    registries: &[&str],
) -> (ConverterKind, ConverterKind, IndexMap<String, TopicConfig>) {
    let key = read_converter(reader.read(&KEY), registries).unwrap_or(ConverterKind::Text);
    let value = read_converter(reader.read(&VALUE), registries).unwrap_or(ConverterKind::Json);
    let read = |(name, field): (&str, Field<'_>)| {
        let topic = read_topic(name, &field, registries)?;
        Some((name.to_owned(), topic))
    };
    let topics = reader.read(&TOPICS).unwrap_or_default();
    (key, value, topics.into_iter().filter_map(read).collect())
}

pub(super) static CONVERTER: Section = Section {
    name: "converter",
    doc: "A converter and its schemas.",
    keys: &[
        &TYPE,
        &REGISTRY,
        &schema_file::SCHEMA,
        &schema_file::REFERENCES,
        &schema_file::MESSAGE,
        &schema_file::FRAMING,
    ],
};

const TYPE: Key<Choice<Needs>, Required> =
    Key::new("type", CONVERTERS, "From bytes to a value").required("\"avro\"");
const REGISTRY: Key<Text> = Key::new("registry", Text, "Where its schemas come from");

/// What a converter needs to be one.
#[derive(Clone, Copy)]
enum Needs {
    Nothing(fn() -> ConverterKind),
    Registry(fn(String) -> ConverterKind),
}

const CONVERTERS: Choice<Needs> = Choice(&[
    ("json", Needs::Nothing(|| ConverterKind::Json)),
    ("connect-json", Needs::Nothing(|| ConverterKind::ConnectJson)),
    ("avro", Needs::Registry(|registry| ConverterKind::Avro { registry, framing: Framing::Auto })),
    (
        "protobuf",
        Needs::Registry(|registry| ConverterKind::Protobuf { registry, framing: Framing::Auto }),
    ),
    ("text", Needs::Nothing(|| ConverterKind::Text)),
    ("bytes", Needs::Nothing(|| ConverterKind::Bytes)),
]);

fn converter_or_name(description: &str) -> Value {
    refer(description, "converter_or_name")
}

/// The definition `converter_or_name`.
pub(super) fn converter_schema() -> Value {
    let names: Vec<&str> = CONVERTERS.0.iter().map(|(name, _)| *name).collect();
    json!({
        "description": "From bytes to a value: by default text for keys and json for values.",
        "anyOf": [{ "type": "string", "enum": names }, of(CONVERTER.name)],
    })
}

fn read_converter(field: Option<Field<'_>>, registries: &[&str]) -> Option<ConverterKind> {
    let field = field?;
    let (name, registry, file) = if field.is_table() {
        let mut reader = field.table(&CONVERTER)?;
        let name = reader.field(&TYPE);
        let registry = reader.field(&REGISTRY);
        let file = schema_file::Keys::read(&mut reader);
        reader.finish();
        (name?, registry, file)
    } else {
        (field.clone(), None, schema_file::Keys::default())
    };
    if file.are_of_file() {
        return schema_file::read(&name, file, registry);
    }
    let framing = file.framing;
    let kind = match (CONVERTERS.read(&name)?, registry) {
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
                let file = if text == "avro" { "order.avsc" } else { "order.proto" };
                let help = format!(
                    "{{ type = \"{text}\", registry = \"main\" }}, or {{ type = \"{text}\", schema = \"{file}\" }}"
                );
                name.problem_with_help(format!("`{text}` needs a `registry` or a `schema`"), help);
                None
            }
        },
    };
    framed(kind?, framing)
}

/// With its framing.
fn framed(kind: ConverterKind, framing: Option<Field<'_>>) -> Option<ConverterKind> {
    let Some(field) = framing else { return Some(kind) };
    match kind {
        ConverterKind::Avro { registry, .. } => {
            let framing = schema_file::OF_REGISTRY.read(&field)?;
            Some(ConverterKind::Avro { registry, framing })
        }
        ConverterKind::Protobuf { registry, .. } => {
            let framing = schema_file::OF_REGISTRY.read(&field)?;
            Some(ConverterKind::Protobuf { registry, framing })
        }
        ConverterKind::Json => Some(match schema_file::UNASKED.read(&field)? {
            Framing::None => ConverterKind::Json,
            framing => ConverterKind::FramedJson(framing),
        }),
        _ => {
            field.problem("only `avro`, `protobuf` and `json` have a `framing`");
            None
        }
    }
}

pub(super) static TOPIC: Section = Section {
    name: "topic",
    doc: "What a topic has of its own.",
    keys: &[&KEY, &VALUE, &REPLICA_IDENTITY, &PARTITIONS, &REPLICATION_FACTOR, &CONFIG, &INGEST],
};

const REPLICA_IDENTITY: Key<Choice<bool>> = Key::new(
    "replica_identity",
    Choice(&[("full", true)]),
    "Of a topic that Debezium writes: `full` where its table has REPLICA IDENTITY FULL, so that `before` is true",
);

const PARTITIONS: Key<Number<i32>> = Key::new(
    "partitions",
    Number::between(1, 1_000_000),
    "Created with so many when missing, else checked",
);
const REPLICATION_FACTOR: Key<Number<i32>> = Key::new(
    "replication_factor",
    Number::between(1, 32_767),
    "Created with so many when missing, else checked",
);
const CONFIG: Key<Entries> = Key::new(
    "config",
    Entries(|| json!({ "type": ["string", "integer", "number", "boolean"] })),
    "Kafka's topic settings",
);
const INGEST: Key<Other> = Key::new(
    "ingest",
    Other(|description| {
        let forms = [json!({ "type": "boolean" }), of(INGEST_TABLE.name)];
        json!({ "description": description, "anyOf": forms })
    }),
    "Opens POST /topics/NAME",
);

fn read_topic(name: &str, field: &Field<'_>, registries: &[&str]) -> Option<TopicConfig> {
    if name.starts_with('^') {
        check_regex(field, name);
    } else {
        check_topic(field, name);
    }
    let mut reader = field.table(&TOPIC)?;
    let ingest = reader.read(&INGEST).and_then(|field| read_ingest(name, &field));
    // Kafka's own settings are texts; a number or boolean is taken for its text.
    let setting = |(name, field): (&str, Field<'_>)| Some((name.to_owned(), field.plain_text()?));
    let config = reader.read(&CONFIG).unwrap_or_default();
    let topic = TopicConfig {
        name: name.to_owned(),
        key: read_converter(reader.read(&KEY), registries),
        value: read_converter(reader.read(&VALUE), registries),
        partitions: reader.read(&PARTITIONS),
        replication_factor: reader.read(&REPLICATION_FACTOR),
        config: config.into_iter().filter_map(setting).collect(),
        ingest,
        full: reader.read(&REPLICA_IDENTITY).unwrap_or(false),
    };
    reader.finish();
    Some(topic)
}

pub(super) static INGEST_TABLE: Section = Section {
    name: "ingest",
    doc: "Ingest, and what it asks of a record.",
    keys: &[&SCHEMA, &EVENT_HEADER],
};

const SCHEMA: Key<FilePath> =
    Key::new("schema", FilePath, "JSON Schema file that posted values must fit");
const EVENT_HEADER: Key<Text, Or<&str>> =
    Key::new("event_header", Text, "The header that a posted `event` is written as")
        .or("event-type")
        .checked(|field, name| {
            if name.is_empty() {
                field.problem("is empty: a header has a name");
            }
        });

fn read_ingest(topic: &str, field: &Field<'_>) -> Option<IngestConfig> {
    if topic.starts_with('^') {
        field.problem("a regex names no topic to post to: give each topic its own `ingest`");
        return None;
    }
    if !field.is_table() {
        return field.flag()?.then(IngestConfig::default);
    }
    let mut reader = field.table(&INGEST_TABLE)?;
    let (schema, event_header) = (reader.read(&SCHEMA), reader.read(&EVENT_HEADER));
    reader.finish();
    Some(IngestConfig { schema, event_header })
}
