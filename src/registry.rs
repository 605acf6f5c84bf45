//! The one place where a checked config becomes concrete sources, sinks and projections.
//!
//! Each connector is a feature of the build; a config that names one that was left out is told so.

#[cfg(feature = "kafka")]
mod kafka;
#[cfg(not(feature = "kafka"))]
#[path = "registry/without_kafka.rs"]
mod kafka;
mod kept;
#[cfg(feature = "protobuf")]
mod protobuf;
#[cfg(not(feature = "protobuf"))]
#[path = "registry/without_protobuf.rs"]
mod protobuf;
mod schemas;
mod topic;

use std::fmt;
use std::sync::Arc;

use foldline_api::binding::changes;
use foldline_api::error::{Error, Result};
use foldline_api::model::Model;
use foldline_api::sink::{OnChange as SinkOnChange, TargetSpec};
use foldline_api::source::{DeadLetters, Log, Start as LogStart};
use foldline_language::config::diagnostic::{join, listed};
use foldline_language::config::projection::{Names, ProjectionConfig};
use foldline_language::converter::avro::Avro;
use foldline_language::converter::schema::Schemas;
use foldline_language::converter::{Decoder, Format, Framing, Part, RegistryAvro};
use foldline_language::event::Mask;
use foldline_language::projection::{Projection, joins};
use foldline_source_file::{FileConfig, FileDeadLetters, FileLog};

use crate::clock::now_millis;
use crate::config::{
    Config, ConnectorConfig, ConverterKind, OnBadRecord, OnChange, PARKED_MAX, RegistryKind,
    SinkConfig, SourceConfig, SourceKind, Start,
};
use crate::connector_spec::ConnectorSpec;
use crate::decoding::Decoders;
use crate::expiry::Expiry;
use crate::maps::HashMap;
use crate::metrics::Metrics;
use crate::policy;
use crate::prepared::prepared;
use crate::task::Limits;

#[cfg(feature = "kafka")]
pub use kafka::{Topics, kafka_config};
pub(crate) use kafka::{command_producer, limits, producer};
use kafka::{kafka_dead_letters, kafka_log};
use kept::SchemaBooks;
pub(crate) use schemas::Registries;

/// What one connector refers to.
struct Parts<'a> {
    connector: &'a ConnectorConfig,
    source: &'a SourceConfig,
    projection: &'a ProjectionConfig,
    sink: &'a SinkConfig,
}

fn parts<'a>(config: &'a Config, connector: &'a ConnectorConfig) -> Result<Parts<'a>> {
    let missing = |what: &str, name: &str| Error::config(format!("there is no {what} {name:?}"));
    Ok(Parts {
        connector,
        source: config
            .sources
            .get(&connector.source)
            .ok_or_else(|| missing("source", &connector.source))?,
        projection: config
            .projections
            .get(&connector.projection)
            .ok_or_else(|| missing("projection", &connector.projection))?,
        sink: config.sinks.get(&connector.sink).ok_or_else(|| missing("sink", &connector.sink))?,
    })
}

/// Builds one connector of a compiled config.
///
/// # Errors
/// A config error where something cannot be built, such as a sink that is not available yet.
pub(crate) fn connector(
    config: &Config,
    connector: &ConnectorConfig,
    projection: &Arc<Projection>,
    metrics: &Metrics,
    registries: &Registries,
) -> Result<ConnectorSpec> {
    let parts = parts(config, connector)?;
    let books = Arc::new(SchemaBooks::default());
    let schemas = |name: &str, framing| {
        let of = registries.of(config, name)?;
        Ok((books.keeping(name, of), framing_of(config, name, framing)))
    };
    let decoders: Arc<dyn Decoders> = Arc::new(TopicDecoders::new(&parts, projection, &schemas)?);
    let log = prepared(log_of(config, &parts, &connector.group)?, &decoders);
    let rebuild_log =
        prepared(log_of(config, &parts, &rebuild_group(&connector.group))?, &decoders);
    let spec = target_spec(config, &parts, projection);
    let sink = Arc::clone(parts.sink.store.sink()?);
    // Refused now rather than at the first event.
    let target = sink.target(TargetSpec { log: String::new(), ..spec.clone() })?;
    if spec.expire.is_some() && target.horizons().is_none() {
        return Err(Error::config(format!(
            "projection {:?} has `expire`, and sink {:?} cannot delete rows by the clock: leave `expire` out, or fold it into \
             another sink",
            projection.name(),
            parts.sink.name
        )));
    }
    let share = config.worker.memory / config.connectors.len().max(1) as u64;
    Ok(ConnectorSpec {
        name: connector.name.clone(),
        place: place(config, &connector.name),
        group: connector.group.clone(),
        topics: match &parts.projection.topics {
            Names::List(list) => listed(list.iter().map(String::as_str)),
            Names::Regex(regex) => format!("`{regex}`"),
        },
        tasks_max: connector.tasks_max,
        start: match &connector.start {
            Start::Earliest => LogStart::Earliest,
            Start::Latest => LogStart::Latest,
            Start::Timestamp(millis) => LogStart::Timestamp(*millis),
            Start::StateOf(_) => return Err(not_yet("start = { state_of }")),
        },
        limits: Limits {
            rows: connector.batch.rows,
            bytes: usize::try_from(connector.batch.bytes).unwrap_or(usize::MAX),
            age: connector.batch.age,
        },
        on_bad_record: match connector.errors.on_bad_record {
            OnBadRecord::DeadLetter => policy::OnBadRecord::DeadLetter,
            OnBadRecord::Stop => policy::OnBadRecord::Stop,
            OnBadRecord::Skip => policy::OnBadRecord::Skip,
            OnBadRecord::Park => policy::OnBadRecord::Park,
        },
        errors_max: connector.errors.limit,
        parked_max: connector.errors.limit.unwrap_or(PARKED_MAX),
        projection: Arc::clone(projection),
        decoders,
        log,
        rebuild_log,
        keep_generations: connector.keep_generations,
        snapshot_wait: connector.snapshot_wait,
        idle_poll_interval: connector.idle_poll_interval,
        target: Box::new(move |log| {
            let target = sink.target(TargetSpec { log, ..spec.clone() })?;
            books.are_of(Arc::clone(&target));
            Ok(target)
        }),
        dead_letters: dead_letters(&parts)?,
        letters: letters_log(&parts),
        metrics: metrics.connector(&connector.name),
        expiry: expiry(connector, projection, metrics),
        memory: usize::try_from(share).unwrap_or(usize::MAX),
    })
}

/// Where the config has a connector: file, line and key path.
fn place(config: &Config, connector: &str) -> String {
    let place = config.places.problem(&join("connectors", connector), "").to_string();
    place.trim_end_matches(": ").to_owned()
}

/// A connector that could not be made: its name, and why, with the place of its config.
pub(crate) fn refusal(config: &Config, connector: &str, error: &Error) -> (String, String) {
    (connector.to_owned(), format!("{error} [{}]", place(config, connector)))
}

fn not_yet(what: &str) -> Error {
    Error::config(format!("{what} is not available yet"))
}

/// Which rows of a connector the clock deletes.
fn expiry(
    connector: &ConnectorConfig,
    projection: &Projection,
    metrics: &Metrics,
) -> Option<Arc<Expiry>> {
    let (name, rule) = (&connector.name, projection.rule()?.clone());
    Some(Arc::new(Expiry::new(name, rule, now_millis, metrics.connector(name).expiry())))
}

/// What the sink needs to know of a connector; the log's identity is added when it is reached.
fn target_spec(config: &Config, parts: &Parts<'_>, projection: &Arc<Projection>) -> TargetSpec {
    TargetSpec {
        worker: config.worker.name.clone(),
        connector: parts.connector.name.clone(),
        group: parts.connector.group.clone(),
        log: String::new(),
        target: parts.connector.target.clone(),
        model: Arc::clone(projection.model()),
        joins: joins(projection, |name| looked_up(config, parts, name)),
        fingerprint: projection.fingerprint().to_owned(),
        projection: projection.projection_json().clone(),
        on_change: match parts.connector.on_change {
            OnChange::Refuse => SinkOnChange::Refuse,
            OnChange::Rebuild => SinkOnChange::Rebuild,
            OnChange::Continue => SinkOnChange::Continue,
        },
        auto_create: parts.connector.auto_create,
        mapping: parts.connector.mapping.clone(),
        settings: parts.connector.settings.clone(),
        expire: projection.rule().cloned(),
    }
}

/// Where another projection runs in the same sink, and its model.
fn looked_up(config: &Config, parts: &Parts<'_>, name: &str) -> Option<(String, Arc<Model>)> {
    let connector = config
        .connectors
        .values()
        .find(|other| other.sink == parts.connector.sink && other.projection == name)?;
    let projection = Projection::compile(config.projections.get(name)?).ok()?;
    Some((connector.target.clone(), Arc::clone(projection.model())))
}

/// What a connector makes and what it asks of its store, without a connection: `foldline plan`. Of SQL stores it is a
/// script that runs as it stands; what takes parameters is in its comments.
///
/// # Errors
/// When the connector cannot be built.
pub fn plan(
    config: &Config,
    connector: &ConnectorConfig,
    projection: &Arc<Projection>,
) -> Result<Vec<String>> {
    let parts = parts(config, connector)?;
    let sink = parts.sink.store.sink()?;
    let statements = sink.plan(&target_spec(config, &parts, projection));
    Ok(if sink.speaks_sql() { script(&statements) } else { statements })
}

/// Whether a connector's plan is a script of SQL.
#[must_use]
pub fn plans_sql(config: &Config, connector: &ConnectorConfig) -> bool {
    let sink = config.sinks.get(&connector.sink).and_then(|sink| sink.store.sink().ok());
    sink.is_some_and(|sink| sink.speaks_sql())
}

/// Statements as a script that runs as it stands: what takes parameters is in its comments.
fn script(statements: &[String]) -> Vec<String> {
    let runnable = |sql: &String| {
        if sql.starts_with("CREATE ") { format!("{sql};") } else { commented(sql) }
    };
    statements.iter().map(runnable).collect()
}

/// Text as comments of SQL.
#[must_use]
pub fn commented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("-- {line}")).collect();
    lines.join("\n")
}

/// What a plan finds in the store; each difference is one sentence.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Between the projection and the one that built what stands there.
    pub projection: Vec<String>,
    /// Between the columns or the mapping that stand there, and the plan's.
    pub store: Vec<String>,
}

/// Compares a connector with what stands in its store.
///
/// # Errors
/// When the store does not answer, or knows no such target.
pub async fn compare(
    config: &Config,
    connector: &ConnectorConfig,
    projection: &Arc<Projection>,
) -> Result<Compared> {
    let parts = parts(config, connector)?;
    let target = parts.sink.store.sink()?.target(target_spec(config, &parts, projection))?;
    let stored = target.rebuilds().generations().await?.projection;
    let projection = changes(&stored, projection.projection_json());
    Ok(Compared { projection, store: target.differences().await? })
}

/// A regex takes no dead letters of this config: folding them would set them aside again.
fn dead_letter_topics(config: &Config) -> Vec<String> {
    config.connectors.values().map(|one| one.errors.dead_letter_topic.clone()).collect()
}

fn log_of(config: &Config, parts: &Parts<'_>, group: &str) -> Result<Arc<dyn Log>> {
    let SourceKind::File { .. } = &parts.source.kind else {
        return kafka_log(config, parts, group);
    };
    let (topics, except) = match &parts.projection.topics {
        Names::List(list) => (list.clone(), Vec::new()),
        Names::Regex(regex) => (vec![regex.clone()], dead_letter_topics(config)),
    };
    file_log(parts.source, (topics, except), group, parts.connector.tasks_max)
}

/// One topic of a source for `name`, beside all connectors that fold it.
///
/// # Errors
/// When the source cannot be made.
pub(crate) fn topic_log(source: &SourceConfig, topic: &str, name: &str) -> Result<Arc<dyn Log>> {
    let topics = vec![topic.to_owned()];
    match &source.kind {
        SourceKind::Kafka { .. } => kafka::topic_log(source, topics, name),
        SourceKind::File { .. } => file_log(source, (topics, Vec::new()), name, 1),
    }
}

/// The group of that name at a source, of no topics: who is in it, and where its log is.
///
/// # Errors
/// When the source cannot be made.
pub(crate) fn group_log(source: &SourceConfig, group: &str) -> Result<Arc<dyn Log>> {
    match &source.kind {
        SourceKind::Kafka { .. } => kafka::group_log(source, group),
        SourceKind::File { .. } => file_log(source, (Vec::new(), Vec::new()), group, 1),
    }
}

/// The group in which a connector's rebuilds read.
pub(crate) fn rebuild_group(group: &str) -> String {
    format!("{group}.rebuild")
}

fn file_log(
    source: &SourceConfig,
    (topics, except): (Vec<String>, Vec<String>),
    group: &str,
    tasks_max: usize,
) -> Result<Arc<dyn Log>> {
    let SourceKind::File { path } = &source.kind else {
        return Err(Error::config(format!("source {:?} is not of type \"file\"", source.name)));
    };
    Ok(Arc::new(FileLog::new(FileConfig {
        path: path.clone(),
        topics,
        except,
        group: group.to_owned(),
        tasks_max: u32::try_from(tasks_max).unwrap_or(u32::MAX),
    })?))
}

fn letters_log(parts: &Parts<'_>) -> Box<dyn Fn() -> Result<Arc<dyn Log>> + Send + Sync> {
    let (source, group) = (parts.source.clone(), parts.connector.group.clone());
    let topic = parts.connector.errors.dead_letter_topic.clone();
    Box::new(move || topic_log(&source, &topic, &group))
}

fn dead_letters(parts: &Parts<'_>) -> Result<Arc<dyn DeadLetters>> {
    let topic = &parts.connector.errors.dead_letter_topic;
    let SourceKind::File { path } = &parts.source.kind else {
        return kafka_dead_letters(parts, topic);
    };
    Ok(Arc::new(FileDeadLetters::new(path, topic)?))
}

/// The schemas of a registry of that name, and where what is framed like that says which schema it is of.
type SchemasOf<'a> = &'a dyn Fn(&str, Framing) -> Result<(Arc<dyn Schemas>, Framing)>;

/// Of a registry that is a topic there is one frame.
fn framing_of(config: &Config, registry: &str, framing: Framing) -> Framing {
    match config.registries.get(registry).map(|registry| &registry.kind) {
        Some(RegistryKind::Topic { .. }) => Framing::SingleObject,
        Some(RegistryKind::Confluent { .. }) | None => framing,
    }
}

/// A decoder per topic that the config names, per regex, and one for all others.
struct TopicDecoders {
    named: HashMap<Arc<str>, Decoder>,
    patterns: Vec<(regex::Regex, Decoder)>,
    other: Decoder,
}

impl TopicDecoders {
    fn new(parts: &Parts<'_>, projection: &Projection, schemas: SchemasOf<'_>) -> Result<Self> {
        let decoder = |topic: &str| -> Result<Decoder> {
            let (key, value) = parts.source.converters(topic);
            decode_with(projection, topic, (key, value), schemas)
        };
        let mut named = HashMap::default();
        if let Names::List(topics) = &parts.projection.topics {
            for topic in topics {
                named.insert(Arc::from(topic.as_str()), decoder(topic)?);
            }
        }
        let mut patterns = Vec::new();
        for topic in parts.source.topics.values() {
            if let Some(regex) = topic.name.strip_prefix('^') {
                let key = topic.key.as_ref().unwrap_or(&parts.source.key);
                let value = topic.value.as_ref().unwrap_or(&parts.source.value);
                let regex = regex::Regex::new(&format!("^{regex}"))
                    .map_err(|error| Error::config(format!("topic {:?}: {error}", topic.name)))?;
                let of = (key, value);
                patterns.push((regex, decode_with(projection, &topic.name, of, schemas)?));
            } else if projection.topics_match(&topic.name) {
                named.insert(Arc::from(topic.name.as_str()), decoder(&topic.name)?);
            }
        }
        Ok(TopicDecoders { named, patterns, other: decoder("")? })
    }
}

/// What decodes the records of a topic, or of those that a regex means.
fn decode_with(
    projection: &Projection,
    topic: &str,
    (key, value): (&ConverterKind, &ConverterKind),
    schemas: SchemasOf<'_>,
) -> Result<Decoder> {
    let opener = projection.opener(topic).map(Arc::clone);
    let (mask, slots) = match &opener {
        Some(opener) => (opener.mask(), opener.width()),
        None => (projection.mask(), projection.slots()),
    };
    let format = |kind, part| format(kind, part, mask, schemas);
    let value = format(value, Part::Value)?;
    let key = if projection.reads_key() { Some(format(key, Part::Key)?) } else { None };
    Ok(Decoder { key, value, mask: mask.clone(), slots, opener })
}

/// What decodes the records of a topic whole, for no projection yet.
///
/// # Errors
/// When a registry or a schema cannot be had.
pub(crate) fn whole_decoder(
    config: &Config,
    source: &SourceConfig,
    topic: &str,
    registries: &Registries,
) -> Result<Decoder> {
    let schemas =
        |name: &str, framing| Ok((registries.of(config, name)?, framing_of(config, name, framing)));
    let mask = Mask::Whole(0);
    let (key, value) = source.converters(topic);
    let value = format(value, Part::Value, &mask, &schemas)?;
    let key = Some(format(key, Part::Key, &mask, &schemas)?);
    Ok(Decoder { key, value, mask, slots: 1, opener: None })
}

fn format(kind: &ConverterKind, part: Part, mask: &Mask, schemas: SchemasOf<'_>) -> Result<Format> {
    Ok(match kind {
        ConverterKind::Json => Format::Json,
        ConverterKind::FramedJson(framing) => Format::FramedJson(*framing),
        ConverterKind::ConnectJson => Format::ConnectJson,
        ConverterKind::Text => Format::Text,
        ConverterKind::Bytes => Format::Bytes,
        ConverterKind::AvroFile(file) => {
            Format::Avro(Arc::new(Avro::new(Arc::clone(&file.schema), file.framing, mask)))
        }
        ConverterKind::Avro { registry, framing } => {
            let (schemas, framing) = schemas(registry, *framing)?;
            Format::Schema(Arc::new(RegistryAvro::new(schemas, framing, part, mask)))
        }
        ConverterKind::ProtobufFile(file) => protobuf::by_file(file, mask)?,
        ConverterKind::Protobuf { registry, framing } => {
            let (schemas, framing) = schemas(registry, *framing)?;
            protobuf::by_registry(schemas, framing, part, mask)?
        }
    })
}

impl Decoders for TopicDecoders {
    fn of(&self, topic: &Arc<str>) -> &Decoder {
        let by_pattern =
            || self.patterns.iter().find(|(regex, _)| regex.is_match(topic)).map(|(_, d)| d);
        self.named.get(topic).or_else(by_pattern).unwrap_or(&self.other)
    }

    fn need_schemas(&self) -> bool {
        let patterns = self.patterns.iter().map(|(_, decoder)| decoder);
        self.named.values().chain(patterns).chain([&self.other]).any(Decoder::needs_schemas)
    }
}

impl fmt::Debug for TopicDecoders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicDecoders").field("named", &self.named.len()).finish_non_exhaustive()
    }
}
