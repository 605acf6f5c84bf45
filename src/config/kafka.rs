//! What Kafka sources and sinks share: servers, and librdkafka's properties.

use foldline_api::secret::Secret;
use foldline_language::config::form::{Entries, Text};
use foldline_language::config::key::{Key, Required};
use foldline_language::config::reader::Reader;
use foldline_language::config::schema::of;
use foldline_language::config::tree::Item;
use indexmap::IndexMap;
use serde_json::{Value, json};

/// Which client the properties are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Sink,
}

/// Properties that are Foldline's to set, and why.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is the key `bootstrap_servers`"),
    ("metadata.broker.list", "it is the key `bootstrap_servers`"),
    ("group.id", "each connector has its own `group`"),
    ("group.protocol", "it is the source's key `group_protocol`"),
    ("group.instance.id", "it is the source's key `group_instance_id`"),
    ("enable.auto.commit", "an offset is committed only after the sink has the rows"),
    ("auto.commit.enable", "an offset is committed only after the sink has the rows"),
    ("auto.commit.interval.ms", "an offset is committed only after the sink has the rows"),
    ("enable.auto.offset.store", "an offset is stored only after the sink has the rows"),
    ("offset.store.method", "an offset is stored only after the sink has the rows"),
    ("auto.offset.reset", "the sink's positions say where to go on; a first start is `start`"),
    ("enable.partition.eof", "the end of a partition is how a rebuild knows that it caught up"),
    ("partition.assignment.strategy", "tasks hand partitions over one by one, cooperatively"),
];

const OWNED_BY_SINK: &[(&str, &str)] = &[
    ("transactional.id", "it names the task, so that an older one is fenced"),
    ("enable.idempotence", "states and positions are written in one transaction"),
    ("acks", "states and positions are written in one transaction"),
    ("request.required.acks", "states and positions are written in one transaction"),
];

pub(super) const SERVERS: Key<Text, Required> =
    Key::new("bootstrap_servers", Text, "host:port, several joined by commas")
        .required("\"localhost:9092\"");
pub(super) const PROPERTIES: Key<Entries> =
    Key::new("properties", Entries(property), "Other librdkafka properties");

fn property() -> Value {
    json!({ "anyOf": [{ "type": ["string", "integer", "number", "boolean"] }, of("secret")] })
}

pub(super) fn read_properties(reader: &mut Reader<'_>, side: Side) -> IndexMap<String, Secret> {
    let mut properties = IndexMap::new();
    for (name, field) in reader.read(&PROPERTIES).unwrap_or_default() {
        if let Some(reason) = owner(name, side) {
            field.problem(format!("is Foldline's own: {reason}"));
            continue;
        }
        let value = match field.node.item {
            Item::Table(_) => field.secret(),
            Item::Scalar(_) | Item::List(_) => field.plain_text().map(Secret::new),
        };
        let Some(value) = value else { continue };
        if name == "isolation.level" && value.expose() != "read_committed" {
            field.problem("must be `read_committed`: what a producer took back must not be folded");
            continue;
        }
        properties.insert(name.to_owned(), value);
    }
    properties
}

fn owner(name: &str, side: Side) -> Option<&'static str> {
    let own = if side == Side::Sink { OWNED_BY_SINK } else { &[] };
    OWNED.iter().chain(own).find(|(owned, _)| *owned == name).map(|(_, reason)| *reason)
}
