//! The keys of `[connectors.NAME]`.

use std::time::Duration;

use foldline_language::config::form::{
    ByteSize, Choice, Flag, KeyForm, Number, Other, Period, SubTable, Text, Valued,
};
use foldline_language::config::key::{Key, Or, Required, Section};
use foldline_language::config::reader::Field;
use foldline_language::config::scalar::format_duration;
use foldline_language::config::schema::of;
use foldline_language::config::sink::TargetKey;
use serde_json::{Value, json};

use super::{OnBadRecord, OnChange};
use crate::config::names::check_topic;

pub(in crate::config) static CONNECTOR: Section = Section {
    name: "connector",
    doc: "A projection running into a sink.",
    keys: &[
        &SOURCE,
        &PROJECTION,
        &SINK,
        &TABLE,
        &INDEX,
        &TOPIC,
        &GROUP,
        &TASKS_MAX,
        &START,
        &BATCH,
        &ERRORS,
        &ON_CHANGE,
        &AUTO_CREATE,
        &KEEP_GENERATIONS,
        &SNAPSHOT_WAIT,
        &IDLE_POLL_INTERVAL,
        &MAPPING,
        &SETTINGS,
    ],
};

pub(super) const SOURCE: Key<Text> =
    Key::new("source", Text, "May be left out where there is only one");
pub(super) const PROJECTION: Key<Text, Required> =
    Key::new("projection", Text, "What is folded").required("\"orders\"");
pub(super) const SINK: Key<Text, Required> =
    Key::new("sink", Text, "Where it goes").required("\"warehouse\"");
pub(super) const TABLE: Key<Text> = Key::new(
    TargetKey::Table.name(),
    Text,
    "PostgreSQL's or SQLite's target; by default the projection's name",
);
pub(super) const INDEX: Key<Text> = Key::new(
    TargetKey::Index.name(),
    Text,
    "Elasticsearch's target; by default the projection's name",
);
pub(super) const TOPIC: Key<Text> =
    Key::new(TargetKey::Topic.name(), Text, "Kafka's target; by default the projection's name");
pub(super) const GROUP: Key<Text> =
    Key::new("group", Text, "Consumer group; by default WORKER-CONNECTOR");
pub(super) const TASKS_MAX: Key<Number<usize>, Or<usize>> =
    Key::new("tasks_max", Number::between(1, 1_000), "How many tasks share the partitions").or(1);
pub(super) const START: Key<Other> = Key::new(
    "start",
    Other(start),
    "Where the first start begins: earliest, latest, a time, or a state topic; by default earliest",
);
pub(super) const BATCH: Key<SubTable> =
    Key::new("batch", SubTable(&BATCH_TABLE), "When a batch is flushed");
pub(super) const ERRORS: Key<SubTable> =
    Key::new("errors", SubTable(&ERRORS_TABLE), "What becomes of bad records");
pub(super) const ON_CHANGE: Key<Choice<OnChange>, Or<OnChange>> =
    Key::new("on_change", CHANGES, "When the projection is not the one that built it")
        .or(OnChange::Refuse);
pub(super) const CHANGES: Choice<OnChange> = Choice(&[
    ("refuse", OnChange::Refuse),
    ("rebuild", OnChange::Rebuild),
    ("continue", OnChange::Continue),
]);
pub(super) const AUTO_CREATE: Key<Flag, Or<bool>> =
    Key::new("auto_create", Flag, "Whether Foldline creates the target").or(true);
pub(super) const KEEP_GENERATIONS: Key<Number<usize>, Or<usize>> =
    Key::new("keep_generations", Number::between(0, 100), "Generations kept for a rollback").or(1);
/// Long enough for a report, short enough for whoever waits for the rebuild.
pub(super) const SNAPSHOT_WAIT: Key<Period, Or<Duration>> =
    Key::new("snapshot_wait", Period, "How long a swap waits for older snapshots")
        .or(Duration::from_secs(60));
pub(super) const IDLE_POLL_INTERVAL: Key<PeriodOrNever, Or<Duration>> =
    Key::new("idle_poll_interval", PeriodOrNever, "How often an idle connector asks its store")
        .or(Duration::from_secs(30));
pub(super) const MAPPING: Key<Other> = Key::new(
    "mapping",
    Other(own_words),
    "Elasticsearch's mapping properties, laid over Foldline's",
);
pub(super) const SETTINGS: Key<Other> =
    Key::new("settings", Other(own_words), "Elasticsearch's index settings, laid over Foldline's");

fn start(description: &str) -> Value {
    let forms = [json!({ "type": "string" }), of(START_TABLE.name)];
    json!({ "description": description, "anyOf": forms })
}

fn own_words(description: &str) -> Value {
    json!({ "type": "object", "description": description })
}

pub(in crate::config) static BATCH_TABLE: Section = Section {
    name: "batch",
    doc: "When a batch is flushed: whichever comes first.",
    keys: &[&ROWS, &BYTES, &AGE],
};

pub(super) const ROWS: Key<Number<usize>, Or<usize>> =
    Key::new("rows", Number::between(1, 10_000_000), "So many changed rows").or(50_000);
pub(super) const BYTES: Key<ByteSize, Or<u64>> =
    Key::new("bytes", ByteSize, "So many bytes of records").or(8 << 20);
pub(super) const AGE: Key<Period, Or<Duration>> =
    Key::new("age", Period, "So long after its first record").or(Duration::from_millis(10));

pub(in crate::config) static ERRORS_TABLE: Section = Section {
    name: "errors",
    doc: "Records that cannot be folded.",
    keys: &[&ON_BAD_RECORD, &DEAD_LETTER_TOPIC, &LIMIT],
};

pub(super) const ON_BAD_RECORD: Key<Choice<OnBadRecord>, Or<OnBadRecord>> =
    Key::new("on_bad_record", ACTIONS, "Where a bad record goes").or(OnBadRecord::DeadLetter);
pub(super) const ACTIONS: Choice<OnBadRecord> = Choice(&[
    ("dead_letter", OnBadRecord::DeadLetter),
    ("park", OnBadRecord::Park),
    ("stop", OnBadRecord::Stop),
    ("skip", OnBadRecord::Skip),
]);
pub(super) const DEAD_LETTER_TOPIC: Key<Text> =
    Key::new("dead_letter_topic", Text, "Topic for dead letters; by default dlq-GROUP")
        .checked(|field, topic| check_topic(field, topic));
pub(super) const LIMIT: Key<Number<u64>> = Key::new(
    "limit",
    Number::from(0),
    "More bad or parked records than this in an hour pause the connector",
);

pub(in crate::config) static START_TABLE: Section =
    Section { name: "start", doc: "The first start from a state topic.", keys: &[&STATE_OF] };

pub(super) const STATE_OF: Key<Text, Required> =
    Key::new("state_of", Text, "The connector that writes the state topic")
        .required("\"orders-state\"");

/// A duration, or `never`.
#[derive(Clone, Copy)]
pub(super) struct PeriodOrNever;

/// Instead of a duration.
pub(super) const NEVER: &str = "never";

impl KeyForm for PeriodOrNever {
    type Value<'a> = Option<Duration>;

    fn read<'a>(&self, field: &Field<'a>) -> Option<Option<Duration>> {
        if field.node.as_str() == Some(NEVER) {
            return Some(None);
        }
        let interval = field.duration()?;
        if interval < Duration::from_secs(1) {
            field.problem("is at least a second, or `never`");
        }
        Some(Some(interval))
    }

    fn schema(&self, description: &str) -> Value {
        json!({
            "type": "string",
            "pattern": "^([0-9]+(ms|s|m|h|d)|never)$|\\$\\{",
            "description": format!("{description} A duration, or never."),
        })
    }
}

impl Valued for PeriodOrNever {
    type Constant = Duration;

    fn value<'a>(&self, constant: Duration) -> Self::Value<'a> {
        Some(constant)
    }

    fn shown(&self, constant: Duration) -> String {
        format_duration(constant)
    }
}
