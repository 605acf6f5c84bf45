//! What Kafka sources and sinks share: servers, and librdkafka's properties.

use foldline_api::secret::Secret;
use foldline_language::config::diagnostic::closest;
use foldline_language::config::form::{Entries, Text};
use foldline_language::config::key::{Key, Required};
use foldline_language::config::reader::{Field, Reader};
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
        .required("\"localhost:9092\"")
        .checked(|field, servers| check_servers(field, servers));
pub(super) const PROPERTIES: Key<Entries> =
    Key::new("properties", Entries(property), "Other librdkafka properties");

/// What librdkafka takes before an address.
const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];

fn check_servers(field: &Field<'_>, servers: &str) {
    for server in servers.split(',').map(str::trim) {
        if let Some(fault) = server_fault(server) {
            let message = format!("{server:?} {fault}");
            field.problem_with_help(message, "bootstrap_servers = \"kafka-1:9092,kafka-2:9092\"");
        }
    }
}

/// What is wrong with a broker's address; a variable is not known yet.
fn server_fault(server: &str) -> Option<&'static str> {
    if server.contains("${") {
        return None;
    }
    let address = match server.split_once("://") {
        Some((protocol, address)) => {
            if !PROTOCOLS.contains(&protocol.to_lowercase().as_str()) {
                return Some("is a URL, and Kafka speaks no HTTP: write host:port");
            }
            address
        }
        None => server,
    };
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => (host, Some(port)),
        _ => (address, None),
    };
    if host.is_empty() || host.contains(['/', ' ']) {
        return Some("names no host: write host:port");
    }
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    port.is_some_and(|port| !is_port(port)).then_some("has no port between 1 and 65535")
}

/// librdkafka's properties, one a line.
const PROPERTY_NAMES: &str = include_str!("librdkafka.txt");

/// The names of librdkafka's properties, without those that take no text.
pub(crate) fn property_names() -> impl Iterator<Item = &'static str> + Clone {
    PROPERTY_NAMES.lines().filter(|line| !line.starts_with('#'))
}

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
        if !property_names().any(|known| known == name) {
            let message = "librdkafka has no such property";
            match closest(name, property_names()) {
                Some(near) => field.problem_with_help(message, format!("did you mean `{near}`?")),
                None => field.problem_with_help(
                    message,
                    "those that there are: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md",
                ),
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_broker_is_a_host_and_a_port() {
        for fine in [
            "localhost:9092",
            "kafka",
            "10.0.0.1:1",
            "[::1]:9092",
            "[::1]",
            "SASL_SSL://kafka.example:9093",
            "${KAFKA}",
        ] {
            assert_eq!(server_fault(fine), None, "{fine}");
        }
        for (wrong, fault) in [
            ("http://localhost:9092", "is a URL"),
            ("https://kafka", "is a URL"),
            ("localhost:99999", "no port"),
            ("localhost:0", "no port"),
            ("localhost:", "no port"),
            ("localhost:9092/kafka", "no port"),
            ("kafka/one:9092", "names no host"),
            (":9092", "names no host"),
            ("", "names no host"),
        ] {
            let found = server_fault(wrong);
            assert!(found.is_some_and(|found| found.contains(fault)), "{wrong}: {found:?}");
        }
    }
}
