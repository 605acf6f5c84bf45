//! Protobuf that Google's own library writes, bare by a schema from a file and in Confluent's frame by a real registry, and JSON behind
//! the frame of Confluent's serializer of JSON Schema: the same rows as plain JSON.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Raw};
use crate::support::orders::PARTITIONS;
use crate::support::registry::Registry;
use crate::support::setup::{Setup, connector, kafka_source, postgres_sink};
use crate::support::stores::query;
use crate::support::use_servers;

const KEYS: u64 = 40;
const EVENTS: u64 = 600;

const MONEY: &str = r#"syntax = "proto3"; package shop;
message Money { sint64 cents = 1; Currency currency = 2; }
enum Currency { EUR = 0; USD = 1; }"#;

const ORDER: &str = r#"syntax = "proto3"; package shop;
import "google/protobuf/any.proto"; import "google/protobuf/duration.proto"; import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto"; import "money.proto";
message Note { string text = 1; }
message OrderPlaced {
  repeated string padding = 1; int64 id = 2; google.protobuf.StringValue customer = 3; Money total = 4;
  google.protobuf.Timestamp at = 5; map<string, int32> tags = 6; repeated uint64 lines = 7; oneof ship { string by_post = 8; bool by_hand = 9; }
  google.protobuf.Struct more = 10; google.protobuf.Any note = 11; google.protobuf.Duration lasts = 12; optional double weight = 13; fixed64 big = 14;
}
message OrderGone { int64 id = 2; }"#;

const SCHEMA: &str = r#"{"title":"Order","type":"object","properties":{"id":{"type":"integer"}}}"#;

fn id(nth: u64) -> u64 {
    nth * 7_919 % KEYS
}

fn is_gone(nth: u64) -> bool {
    nth % 11 == 3
}

/// The event as Protobuf's JSON has it.
fn message(nth: u64) -> Value {
    if is_gone(nth) {
        return json!({ "id": id(nth) });
    }
    let mut value = json!({
        "padding": ["passed", "over"], "id": id(nth), "total": { "cents": cents(nth), "currency": "USD" }, "at": at(nth),
        "tags": { "kind": nth % 100 }, "lines": [nth, 0, u64::MAX], "more": { "a": [1, 2.5, null, { "b": "größer" }] },
        "note": { "@type": "type.googleapis.com/shop.Note", "text": format!("of {nth}") }, "lasts": format!("{}.5s", nth),
        "big": "18446744073709551615",
    });
    let map = value.as_object_mut().unwrap();
    if !nth.is_multiple_of(5) {
        map.insert("customer".to_owned(), json!(format!("größer {nth}")));
        map.insert("weight".to_owned(), json!(0.0));
    }
    match nth % 3 {
        0 => map.insert("by_post".to_owned(), json!("")),
        1 => map.insert("by_hand".to_owned(), json!(false)),
        _ => None,
    };
    value
}

fn cents(nth: u64) -> i64 {
    i64::try_from(nth).unwrap() * 7_777 - 500_000
}

fn at(nth: u64) -> String {
    jiff::Timestamp::from_microsecond(
        1_700_000_000_000_000 + i64::try_from(nth).unwrap() * 1_000_001,
    )
    .unwrap()
    .to_string()
}

/// The event as it should be read: what was not set is absent, or its default.
fn plain(nth: u64) -> Value {
    let mut value = message(nth);
    let map = value.as_object_mut().unwrap();
    map.insert("type".to_owned(), json!(if is_gone(nth) { "OrderGone" } else { "OrderPlaced" }));
    if !is_gone(nth) {
        map.insert("lasts".to_owned(), json!(format!("{nth}.5s")));
        map.insert("big".to_owned(), json!(u64::MAX));
        match nth % 3 {
            0 => map.insert("ship".to_owned(), json!("by_post")),
            1 => map.insert("ship".to_owned(), json!("by_hand")),
            _ => None,
        };
    }
    value
}

fn raw(nth: u64, value: Vec<u8>) -> Raw {
    Raw::value(i32::try_from(id(nth)).unwrap() % PARTITIONS, &id(nth).to_string(), value)
}

fn projection(name: &str, topic: &str) -> String {
    format!(
        r#"[projections.{name}]
topics = [{topic:?}]
event_type = "event.type"
key = {{ id = "event.id" }}
[projections.{name}.fields]
id = "bigint"
customer = "text"
cents = "bigint"
sum = {{ type = "bigint", default = 0 }}
currency = "text"
at = "timestamptz"
kind = "bigint"
lines = "jsonb"
ship = "text"
by_hand = "boolean"
more = "jsonb"
note = "text"
lasts = "text"
weight = "double precision"
big = "numeric"
changes = {{ type = "bigint", default = 0 }}
[[projections.{name}.on]]
event = "OrderPlaced"
set = {{ customer = "event.customer", cents = "event.total.cents", currency = "event.total.currency", at = "event.at", kind = "event.tags.kind", lines = "event.lines", ship = "event.ship", by_hand = "event.by_hand", more = "event.more", note = "event.note.text", lasts = "event.lasts", weight = "event.weight", big = "event.big" }}
add = {{ changes = 1, sum = "event.total.cents" }}
[[projections.{name}.on]]
event = "OrderGone"
delete = true
"#
    )
}

async fn rows(table: &str) -> Vec<Vec<Option<String>>> {
    query(&format!("select * from {table} order by id")).await
}

fn assert_answers(daemon: &Daemon, arguments: &[&str]) {
    let printed = daemon.cli(arguments);
    assert_eq!(printed.code, Some(0), "{printed:?}");
}

/// By file one message, by the registry both: the frame says which.
const TOPICS: [&str; 4] = ["json", "file", "frame", "schema"];

fn produce(setup: &Setup, registry: &Registry) {
    let name = |nth| if is_gone(nth) { "shop.OrderGone" } else { "shop.OrderPlaced" };
    let value = |nth, framed: bool| json!({ "message": name(nth), "framed": framed, "value": message(nth) });
    let mut values: Vec<Value> = (0..EVENTS).map(|nth| value(nth, false)).collect();
    values.extend((0..EVENTS).map(|nth| value(nth, true)));
    values.extend((0..EVENTS).map(|nth| json!({ "value": plain(nth) })));
    let encoded = registry.encode_messages(
        &[("money.proto", MONEY), ("order.proto", ORDER)],
        SCHEMA,
        &values,
    );
    let of =
        |from: u64| (0..EVENTS).zip(encoded.iter().skip(usize::try_from(from).unwrap()).cloned());
    let (bare, framed, in_schema) = (of(0), of(EVENTS), of(2 * EVENTS));
    // By a file one message is read: what the other one says is here a tombstone.
    let bare: Vec<Raw> = bare
        .map(|(nth, value)| {
            let raw = raw(nth, value);
            if is_gone(nth) { Raw { value: None, ..raw } } else { raw }
        })
        .collect();
    kafka::produce_raw(&setup.name("file"), &bare);
    let framed: Vec<Raw> = framed.map(|(nth, value)| raw(nth, value)).collect();
    let is_framed = |record: &Raw| record.value.as_ref().is_some_and(|value| value[0] == 0);
    assert!(framed.iter().all(is_framed), "Confluent's frame");
    kafka::produce_raw(&setup.name("frame"), &framed);
    let in_schema: Vec<Raw> = in_schema.map(|(nth, value)| raw(nth, value)).collect();
    assert!(in_schema.iter().all(is_framed), "Confluent's frame");
    kafka::produce_raw(&setup.name("schema"), &in_schema);
    let plain = (0..EVENTS).map(|nth| raw(nth, plain(nth).to_string().into_bytes()));
    kafka::produce_raw(&setup.name("json"), &plain.collect::<Vec<_>>());
    // Cut off.
    let cut = raw(0, framed[0].value.as_ref().unwrap()[..19].to_vec());
    kafka::produce_raw(&setup.name("frame"), &[cut]);
}

fn config(setup: &Setup, registry: &Registry) {
    std::fs::write(setup.path("config/order.proto"), ORDER).unwrap();
    std::fs::write(setup.path("config/money.proto"), MONEY).unwrap();
    let (file, frame, schema) = (setup.name("file"), setup.name("frame"), setup.name("schema"));
    let converters = format!(
        r#"[registries.main]
type = "confluent"
url = "{}"
[sources.events.topics.{file}]
value = {{ type = "protobuf", schema = "order.proto", references = ["money.proto"], message = "shop.OrderPlaced" }}
[sources.events.topics.{frame}]
value = "protobuf"
[sources.events.topics.{schema}]
value = {{ type = "json", framing = "confluent" }}
"#,
        registry.url()
    );
    let mut parts = vec![kafka_source(), converters, postgres_sink()];
    for topic in TOPICS {
        let mut of = projection(topic, &setup.name(topic));
        if topic == "file" {
            of = of.replace("key = { id = \"event.id\" }", "key = { id = \"int(key)\" }");
            of = of.replace("event = \"OrderGone\"", "event = \"tombstone\"");
        }
        parts.push(of);
        parts.push(connector(topic, topic, "warehouse", &setup.name(topic), ""));
    }
    setup.config(&parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_googles_own_library_are_the_rows_that_they_are_in_json() {
    let _servers = use_servers().await;
    let (setup, registry) = (Setup::new(), Registry::start());
    for topic in TOPICS {
        kafka::create(&setup.name(topic), PARTITIONS).await;
    }
    produce(&setup, &registry);
    config(&setup, &registry);
    let daemon = setup.start().await;
    for topic in TOPICS {
        daemon.caught_up(topic, &setup.name(topic)).await;
        daemon.idle(topic, PARTITIONS as u64).await;
    }
    let wanted = rows(&setup.name("json")).await;
    assert!(wanted.len() > 30, "{} rows", wanted.len());
    for topic in ["file", "frame", "schema"] {
        assert_eq!(rows(&setup.name(topic)).await, wanted, "{topic}");
    }
    let letters = kafka::read_back(&format!("dlq-{}", setup.group("frame")));
    let [letter] = &letters[..] else { panic!("{} letters", letters.len()) };
    let said = letter.header("__connect.errors.exception.message").unwrap();
    assert!(said.contains("bytes are needed") && said.contains("read by schema"), "{said}");
    for topic in ["file", "frame"] {
        assert_answers(&daemon, &["verify", topic]);
        assert_answers(&daemon, &["rebuild", topic, "--wait"]);
        assert_answers(&daemon, &["verify", topic]);
    }
    assert_eq!(rows(&setup.name("frame")).await, wanted);
    daemon.stop().await;
    setup.clean().await;
}
