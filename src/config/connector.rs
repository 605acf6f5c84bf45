//! `[connectors.NAME]`: one projection running into one sink.

pub(super) mod keys;

use std::collections::BTreeMap;
use std::time::Duration;

use foldline_language::config::reader::{Field, Reader};
use foldline_language::config::scalar::{format_duration, format_size};
use foldline_language::config::sink::TargetKey;
use foldline_language::config::tree::Item;
use serde_json::Value;

use self::keys::{
    ACTIONS, AGE, AUTO_CREATE, BATCH, BYTES, CHANGES, CONNECTOR, DEAD_LETTER_TOPIC, ERRORS, GROUP,
    IDLE_POLL_INTERVAL, INDEX, KEEP_GENERATIONS, LIMIT, MAPPING, NEVER, ON_BAD_RECORD, ON_CHANGE,
    PROJECTION, ROWS, SETTINGS, SINK, SNAPSHOT_WAIT, SOURCE, START, START_TABLE, STATE_OF, TABLE,
    TASKS_MAX, TOPIC,
};
use super::names::{check_table, check_topic, index_fault};
use super::sink::{SinkConfig, Store};

/// One connector.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectorConfig {
    /// Its name in the config.
    pub name: String,
    /// The source's name.
    pub source: String,
    /// The projection's name.
    pub projection: String,
    /// The sink's name.
    pub sink: String,
    /// The table, index or topic; which of them, the sink's `target_key` says.
    pub target: String,
    /// The consumer group.
    pub group: String,
    /// How many tasks share the partitions.
    pub tasks_max: usize,
    /// Where the first start begins.
    pub start: Start,
    /// When a batch is flushed.
    pub batch: BatchConfig,
    /// What happens to records that cannot be folded.
    pub errors: ErrorsConfig,
    /// What happens when the projection is not the one that built the target.
    pub on_change: OnChange,
    /// Whether Foldline creates the target.
    pub auto_create: bool,
    /// How many generations that were live are kept for a rollback.
    pub keep_generations: usize,
    /// How long the swap of a rebuild waits for transactions that would read the new target as empty.
    pub snapshot_wait: Duration,
    /// How often it asks its store for commands given elsewhere while it is idle; none where it never does.
    pub idle_poll_interval: Option<Duration>,
    /// Elasticsearch's mapping properties, laid over Foldline's.
    pub mapping: Option<Value>,
    /// Elasticsearch's index settings, laid over Foldline's.
    pub settings: Option<Value>,
}

/// Where the first start begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the beginning of the log.
    Earliest,
    /// At its end.
    Latest,
    /// At the first record of this time or later, in milliseconds since the epoch.
    Timestamp(i64),
    /// From the state topic that this connector writes.
    StateOf(String),
}

/// When a batch is flushed: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// So many changed rows.
    pub rows: usize,
    /// So many bytes of records.
    pub bytes: u64,
    /// So long after its first record.
    pub age: Duration,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { rows: ROWS.default(), bytes: BYTES.default(), age: AGE.default() }
    }
}

/// What happens to records that cannot be folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorsConfig {
    /// Where a bad record goes.
    pub on_bad_record: OnBadRecord,
    /// The topic for dead letters.
    pub dead_letter_topic: String,
    /// More bad records than this in an hour pause the connector. Where they are parked, those that wait
    /// behind them count, and without it the limit is [`PARKED_MAX`].
    pub limit: Option<u64>,
}

/// So many events may be parked in an hour, where the config does not say.
pub const PARKED_MAX: u64 = 1_000;

/// Where a bad record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBadRecord {
    /// To the dead-letter topic.
    DeadLetter,
    /// Aside, with all later events of its key.
    Park,
    /// Nowhere: the connector stops.
    Stop,
    /// Nowhere: it is counted and left out.
    Skip,
}

/// What happens when the projection is not the one that built the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnChange {
    /// The connector does not start.
    Refuse,
    /// It builds the next generation.
    Rebuild,
    /// It goes on, with new columns added.
    Continue,
}

impl ConnectorConfig {
    /// Kafka Connect's flat map of text to text.
    pub fn flat(&self) -> BTreeMap<String, String> {
        let start = match &self.start {
            Start::Earliest => "earliest".to_owned(),
            Start::Latest => "latest".to_owned(),
            Start::Timestamp(millis) => jiff::Timestamp::from_millisecond(*millis)
                .map_or_else(|_| millis.to_string(), |time| time.to_string()),
            Start::StateOf(name) => format!("state_of {name}"),
        };
        let mut flat = BTreeMap::from(
            [
                ("name", self.name.clone()),
                ("source", self.source.clone()),
                ("projection", self.projection.clone()),
                ("sink", self.sink.clone()),
                ("target", self.target.clone()),
                ("group", self.group.clone()),
                ("tasks.max", self.tasks_max.to_string()),
                ("start", start),
                ("batch.rows", self.batch.rows.to_string()),
                ("batch.bytes", format_size(self.batch.bytes)),
                ("batch.age", format_duration(self.batch.age)),
                ("errors.on_bad_record", ACTIONS.name(self.errors.on_bad_record).to_owned()),
                ("on_change", CHANGES.name(self.on_change).to_owned()),
                ("auto_create", self.auto_create.to_string()),
                ("keep_generations", self.keep_generations.to_string()),
                ("snapshot_wait", format_duration(self.snapshot_wait)),
                (
                    "idle_poll_interval",
                    self.idle_poll_interval.map_or_else(|| NEVER.to_owned(), format_duration),
                ),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        let letters =
            matches!(self.errors.on_bad_record, OnBadRecord::DeadLetter | OnBadRecord::Park);
        let topic = letters.then(|| self.errors.dead_letter_topic.clone());
        let optional = [
            ("errors.dead_letter_topic", topic),
            ("errors.limit", self.errors.limit.map(|limit| limit.to_string())),
            ("mapping", self.mapping.as_ref().map(ToString::to_string)),
            ("settings", self.settings.as_ref().map(ToString::to_string)),
        ];
        let given = optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        flat.extend(given);
        flat
    }
}

/// What a connector may refer to.
pub(super) struct Names<'a> {
    pub(super) worker: &'a str,
    pub(super) sources: Vec<&'a str>,
    pub(super) projections: Vec<&'a str>,
    pub(super) sinks: Vec<&'a str>,
    pub(super) connectors: Vec<&'a str>,
    /// Those sinks that could be read.
    pub(super) checked: &'a indexmap::IndexMap<String, SinkConfig>,
}

pub(super) fn read(name: &str, field: &Field<'_>, names: &Names<'_>) -> Option<ConnectorConfig> {
    let mut reader = field.table(&CONNECTOR)?;
    let source = match reader.field(&SOURCE) {
        Some(field) => field.reference("source", names.sources.iter().copied()),
        None => only_source(&reader, names),
    };
    let projection = reader
        .field(&PROJECTION)
        .and_then(|f| f.reference("projection", names.projections.iter().copied()));
    let sink = reader.field(&SINK).and_then(|f| f.reference("sink", names.sinks.iter().copied()));
    let store = sink.as_ref().and_then(|name| Some(&names.checked.get(name)?.store));
    let target = read_target(&mut reader, store, projection.as_deref());
    let group = reader.read(&GROUP).unwrap_or_else(|| format!("{}-{name}", names.worker));
    let start = reader.read(&START).and_then(|field| read_start(&field, name, names));
    let errors = read_errors(reader.read(&ERRORS), &group);
    let batch = reader.read(&BATCH).map(read_batch).unwrap_or_default();
    let tasks_max = reader.read(&TASKS_MAX);
    let on_change = reader.read(&ON_CHANGE);
    let auto_create = reader.read(&AUTO_CREATE);
    let keep_generations = reader.read(&KEEP_GENERATIONS);
    let snapshot_wait = reader.read(&SNAPSHOT_WAIT);
    let idle_poll_interval = reader.read(&IDLE_POLL_INTERVAL);
    let mapping = read_json(reader.read(&MAPPING), store);
    let settings = read_json(reader.read(&SETTINGS), store);
    reader.finish();
    Some(ConnectorConfig {
        name: name.to_owned(),
        source: source?,
        projection: projection?,
        sink: sink?,
        target: target?,
        group,
        tasks_max,
        start: start.unwrap_or(Start::Earliest),
        batch,
        errors,
        on_change,
        auto_create,
        keep_generations,
        snapshot_wait,
        idle_poll_interval,
        mapping,
        settings,
    })
}

fn only_source(reader: &Reader<'_>, names: &Names<'_>) -> Option<String> {
    match names.sources.as_slice() {
        [only] => Some((*only).to_owned()),
        [] => {
            reader.problem_with_help("there is no source", "[sources.events]\ntype = \"kafka\"");
            None
        }
        several => {
            let listed = foldline_language::config::diagnostic::listed(several.iter().copied());
            reader.problem(format!("`source` is missing, and there are several: {listed}"));
            None
        }
    }
}

/// `table`, `index` or `topic`, whichever the sink takes; else the projection's name.
fn read_target(
    reader: &mut Reader<'_>,
    store: Option<&Store>,
    projection: Option<&str>,
) -> Option<String> {
    let given = [
        (TargetKey::Table, reader.field(&TABLE)),
        (TargetKey::Index, reader.field(&INDEX)),
        (TargetKey::Topic, reader.field(&TOPIC)),
    ];
    let store = store?;
    let Some(wanted) = store.target_key() else {
        // Nothing runs into a store that the build lacks: any key will do.
        let field = given.into_iter().find_map(|(_, field)| field);
        return field.and_then(|field| field.text()).or_else(|| projection.map(str::to_owned));
    };
    let mut target = None;
    for (key, field) in given {
        let Some(field) = field else { continue };
        if key == wanted {
            target = Some(field);
        } else {
            let (text, wanted) = (field.node.as_str().unwrap_or("…"), wanted.name());
            let message = format!("a sink of type `{}` takes `{wanted}`", store.name());
            field.problem_with_help(message, format!("{wanted} = {text:?}"));
        }
    }
    let Some(field) = target else {
        let name = projection?;
        let fault = if wanted == TargetKey::Index { index_fault(name) } else { None };
        if let Some(fault) = fault {
            let message = format!("the projection's name {name:?} cannot be the index: {fault}");
            reader.problem_with_help(message, format!("index = {:?}", name.to_lowercase()));
        }
        return Some(name.to_owned());
    };
    let name = field.text()?;
    match wanted {
        TargetKey::Table => check_table(&field, &name),
        TargetKey::Topic => check_topic(&field, &name),
        TargetKey::Index => {
            if let Some(fault) = index_fault(&name) {
                field.problem(format!("found {name:?}: {fault}"));
            }
        }
    }
    Some(name)
}

fn read_start(field: &Field<'_>, connector: &str, names: &Names<'_>) -> Option<Start> {
    if field.is_table() {
        let mut reader = field.table(&START_TABLE)?;
        let state_of = reader.field(&STATE_OF);
        reader.finish();
        let others = names.connectors.iter().copied().filter(|name| *name != connector);
        return state_of?.reference("connector", others).map(Start::StateOf);
    }
    let text = match &field.node.item {
        Item::Scalar(toml::Value::String(text)) => text.clone(),
        Item::Scalar(toml::Value::Datetime(time)) => time.to_string(),
        Item::Scalar(_) | Item::List(_) | Item::Table(_) => String::new(),
    };
    match text.as_str() {
        "earliest" => return Some(Start::Earliest),
        "latest" => return Some(Start::Latest),
        _ => {}
    }
    let parsed = text.parse::<jiff::Timestamp>().ok();
    if parsed.is_none() {
        let wanted = "`earliest`, `latest`, a time with an offset such as 2026-01-01T00:00:00Z, \
                      or `{ state_of = \"NAME\" }`";
        field.not_among(wanted, &text, ["earliest", "latest"]);
    }
    parsed.map(|time| Start::Timestamp(time.as_millisecond()))
}

fn read_batch(mut reader: Reader<'_>) -> BatchConfig {
    let batch = BatchConfig {
        rows: reader.read(&ROWS),
        bytes: reader.read(&BYTES),
        age: reader.read(&AGE),
    };
    reader.finish();
    batch
}

fn read_errors(reader: Option<Reader<'_>>, group: &str) -> ErrorsConfig {
    let own = || format!("dlq-{group}");
    let Some(mut reader) = reader else {
        let on_bad_record = ON_BAD_RECORD.default();
        return ErrorsConfig { on_bad_record, dead_letter_topic: own(), limit: None };
    };
    let errors = ErrorsConfig {
        on_bad_record: reader.read(&ON_BAD_RECORD),
        dead_letter_topic: reader.read(&DEAD_LETTER_TOPIC).unwrap_or_else(own),
        limit: reader.read(&LIMIT),
    };
    if let Some(field) = reader.given(&DEAD_LETTER_TOPIC)
        && matches!(errors.on_bad_record, OnBadRecord::Stop | OnBadRecord::Skip)
    {
        field.problem("is only used with `on_bad_record` set to `dead_letter` or `park`");
    }
    reader.finish();
    errors
}

fn read_json(field: Option<Field<'_>>, store: Option<&Store>) -> Option<Value> {
    let field = field?;
    let other = |store: &&Store| store.target_key().is_some_and(|key| key != TargetKey::Index);
    if let Some(store) = store.filter(other) {
        field.problem(format!("is Elasticsearch's; the sink is of type `{}`", store.name()));
    }
    if !field.is_table() {
        field.problem(format!("found {}, expected a table", field.node.describe()));
        return None;
    }
    Some(to_json(&field.node.to_value()))
}

/// TOML as JSON; a date becomes its text.
pub(super) fn to_json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.clone().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(value) => (*value).into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => items.iter().map(to_json).collect(),
        toml::Value::Table(table) => {
            table.iter().map(|(key, value)| (key.clone(), to_json(value))).collect()
        }
    }
}
