//! Avro by the schemas of a real registry, from the serializers of Confluent's own client: the same rows as in JSON, while the worker
//! is killed and the registry stands still; and what follows of an id that nobody knows, and of a registry that lost what it had.

use serde_json::{Value, json};

use crate::support::kafka::{self, Raw};
use crate::support::orders::PARTITIONS;
use crate::support::registry::{Registry, Schema};
use crate::support::setup::{Setup, connector, elasticsearch_sink, kafka_source, postgres_sink};
use crate::support::stores::{Columns, Kind};
use crate::support::twins::{assert_answers, assert_twins, caught_up, letters, waits_for_schemas};
use crate::support::use_servers;

const KEYS: u64 = 60;
const ROUNDS: u64 = 5;
/// Of each round.
const EVENTS: u64 = 400;

const COLUMNS: Columns = &[
    ("id", Kind::Plain),
    ("customer", Kind::Plain),
    ("total", Kind::Decimal),
    ("sum", Kind::Decimal),
    ("currency", Kind::Plain),
    ("note", Kind::Plain),
    ("changes", Kind::Plain),
];

const MONEY: &str = r#"{"type":"record","name":"Money","namespace":"shop","fields":[
    {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":30,"scale":4}},
    {"name":"currency","type":{"type":"enum","name":"Currency","symbols":["EUR","USD"]}}]}"#;

/// Of money, which another subject has. Each version after the first has one more field, before those that all have.
fn order(version: u64) -> Schema {
    let more: String = (0..version)
        .map(|nth| format!(r#"{{"name":"more{nth}","type":["null","string"]}},"#))
        .collect();
    let text = format!(
        r#"{{"type":"record","name":"Order","namespace":"shop","fields":[{more}
            {{"name":"id","type":"long"}},{{"name":"customer","type":["null","string"]}},
            {{"name":"total","type":"shop.Money"}},{{"name":"note","type":["null","string"]}}]}}"#
    );
    Schema { subject: "orders-value", text, references: vec![("shop.Money", "money")] }
}

fn money() -> Schema {
    Schema { subject: "money", text: MONEY.to_owned(), references: vec![] }
}

/// What has nothing to do with them.
fn other() -> Schema {
    let text = r#"{"type":"record","name":"Other","fields":[{"name":"n","type":"long"}]}"#;
    Schema { subject: "other", text: text.to_owned(), references: vec![] }
}

/// The event as both topics have it; its decimal as the encoder or as JSON wants it.
fn event(nth: u64, decimal: impl Fn(String) -> Value) -> Value {
    let amount = i64::try_from(nth).unwrap() * 7_777_777 - 500_000_000;
    let (sign, whole) = (if amount < 0 { "-" } else { "" }, amount.unsigned_abs());
    json!({
        "id": nth * 7_919 % KEYS,
        "customer": if nth.is_multiple_of(5) { Value::Null } else { json!("größer") },
        "total": { "amount": decimal(format!("{sign}{}.{:04}", whole / 10_000, whole % 10_000)), "currency": "USD" },
        "note": format!("of {nth}"),
    })
}

fn raw(nth: u64, value: Vec<u8>) -> Raw {
    let id = nth * 7_919 % KEYS;
    Raw::value(i32::try_from(id).unwrap() % PARTITIONS, &id.to_string(), value)
}

/// A round's events, by money and by the order of this version, each with one that the version before wrote.
fn encoded(registry: &Registry, version: u64, events: std::ops::Range<u64>) -> Vec<Raw> {
    let before = order(version.saturating_sub(1));
    let schemas = [money(), before, order(version)];
    let number = |text: String| json!({ "$decimal": text });
    let values: Vec<(usize, Value)> =
        events.clone().map(|nth| (if nth % 3 == 0 { 1 } else { 2 }, event(nth, number))).collect();
    let encoded = registry.encode(&schemas, &values);
    assert!(encoded.values.iter().all(|value| value[0] == 0), "Confluent's frame");
    events.zip(encoded.values).map(|(nth, value)| raw(nth, value)).collect()
}

fn in_json(events: std::ops::Range<u64>) -> Vec<Raw> {
    let text = |nth| event(nth, |text| serde_json::from_str(&text).unwrap()).to_string();
    events.map(|nth| raw(nth, text(nth).into_bytes())).collect()
}

fn projection(name: &str, topic: &str) -> String {
    format!(
        r#"[projections.{name}]
topics = [{topic:?}]
key = {{ id = "event.id" }}
[projections.{name}.fields]
id = "bigint"
customer = "text"
total = "numeric(30,4)"
sum = {{ type = "numeric", default = 0 }}
currency = "text"
note = "text"
changes = {{ type = "bigint", default = 0 }}
[[projections.{name}.on]]
set = {{ customer = "event.customer", total = "event.total.amount", currency = "event.total.currency", note = "event.note" }}
add = {{ changes = 1, sum = "event.total.amount" }}
"#
    )
}

/// A topic in Avro and its twin in JSON, folded into a table each; the one in Avro into an index too. The first address of the
/// registry is nobody's.
fn config(setup: &Setup, registry: &Registry) {
    let (avro, json) = (setup.name("avro"), setup.name("json"));
    let registries = format!(
        "[registries.main]\ntype = \"confluent\"\nurl = \"http://127.0.0.1:1,{}\"\n[sources.events.topics.{avro}]\nvalue = \"avro\"\n",
        registry.url()
    );
    setup.config(&[
        kafka_source(),
        registries,
        projection("avro", &avro),
        projection("json", &json),
        postgres_sink(),
        elasticsearch_sink(),
        connector("avro", "avro", "warehouse", &avro, ""),
        connector("docs", "avro", "search", &avro, ""),
        connector("json", "json", "warehouse", &json, ""),
    ]);
}

async fn produce(setup: &Setup, registry: &Registry, version: u64, events: std::ops::Range<u64>) {
    kafka::produce_raw(&setup.name("avro"), &encoded(registry, version, events.clone()));
    kafka::produce_raw(&setup.name("json"), &in_json(events));
}

async fn topics(setup: &Setup) {
    for topic in ["avro", "json"] {
        kafka::create(&setup.name(topic), PARTITIONS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn confluents_own_records_are_the_rows_that_they_are_in_json_while_worker_and_registry_fail()
{
    let _servers = use_servers().await;
    let (setup, registry) = (Setup::new(), Registry::start());
    topics(&setup).await;
    config(&setup, &registry);
    let mut kills = 0;
    for round in 0..ROUNDS {
        let events = round * EVENTS..(round + 1) * EVENTS;
        // Each round has a schema that the worker has not seen.
        let records = encoded(&registry, round, events.clone());
        let mut daemon = setup.start().await;
        if round % 2 == 1 {
            registry.pause();
        }
        kafka::produce_raw(&setup.name("avro"), &records);
        kafka::produce_raw(&setup.name("json"), &in_json(events));
        if round % 2 == 1 {
            daemon.kill9();
            kills += 1;
            daemon = setup.start().await;
            waits_for_schemas(&daemon, "avro", "cannot tell").await;
            registry.resume();
            daemon.metric("avro", "records_consumed_total", |consumed| consumed > 0).await;
        }
        daemon.kill9();
        kills += 1;
    }
    println!("{kills} kills");
    // What no producer writes by any more was deleted softly: a worker that reads it for the first time has it all the same.
    registry.delete_softly("orders-value").await;
    let daemon = setup.start().await;
    caught_up(&setup, &daemon).await;
    assert_twins(&setup, COLUMNS).await;
    assert_eq!(letters(&setup, "avro"), Vec::<String>::new());
    for name in ["avro", "docs"] {
        assert_answers(&daemon, &["verify", name]);
        assert_answers(&daemon, &["explain", name, "7"]);
        assert_answers(&daemon, &["rebuild", name, "--wait"]);
        assert_answers(&daemon, &["verify", name]);
    }
    caught_up(&setup, &daemon).await;
    assert_twins(&setup, COLUMNS).await;
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_nobody_knows_is_bad_and_a_registry_that_lost_its_schemas_is_waited_for() {
    let _servers = use_servers().await;
    let (setup, registry) = (Setup::new(), Registry::start());
    topics(&setup).await;
    config(&setup, &registry);
    let daemon = setup.start().await;
    produce(&setup, &registry, 1, 0..EVENTS).await;
    caught_up(&setup, &daemon).await;

    // The registry has not registered so many.
    let avro = setup.name("avro");
    let unknown = |id: u8| raw(0, vec![0, 0, 0, 0, id, 2]);
    kafka::produce_raw(&avro, &[unknown(200)]);
    produce(&setup, &registry, 1, EVENTS..2 * EVENTS).await;
    caught_up(&setup, &daemon).await;
    for name in ["avro", "docs"] {
        let [letter] = &letters(&setup, name)[..] else { panic!("one letter of {name}") };
        assert!(
            letter.contains("is of schema 200, which the registry \"main\" does not have"),
            "{letter}"
        );
    }
    assert_twins(&setup, COLUMNS).await;

    // The same where all is gone: nothing is bad, and what is known by now is folded until then.
    let known = 2 * EVENTS..3 * EVENTS;
    let records = encoded(&registry, 1, known.clone());
    registry.empty();
    kafka::produce_raw(&avro, &records);
    kafka::produce_raw(&setup.name("json"), &in_json(known));
    kafka::produce_raw(&avro, &[unknown(201)]);
    for name in ["avro", "docs"] {
        waits_for_schemas(&daemon, name, "it has lost schema").await;
        assert_eq!(letters(&setup, name).len(), 1, "{name}");
    }
    // Restored as it was.
    encoded(&registry, 1, 0..1);
    caught_up(&setup, &daemon).await;
    for name in ["avro", "docs"] {
        assert_eq!(letters(&setup, name).len(), 2, "{name}");
    }
    assert_twins(&setup, COLUMNS).await;

    // Filled anew, in another order, while the worker runs.
    registry.empty();
    let refilled = registry.encode(&[other(), money(), order(0), order(1)], &[]);
    assert_eq!(refilled.ids, [1, 2, 3, 4], "each id of before is another schema's");
    kafka::produce_raw(&avro, &[unknown(202)]);
    for name in ["avro", "docs"] {
        let why = daemon.failure(name).await;
        assert!(why.contains("has another schema under the id of schema"), "{why}");
        assert!(why.contains("it was {") && why.contains(" and is {"), "both texts: {why}");
        assert_eq!(letters(&setup, name).len(), 2, "{name}");
    }
    assert_twins(&setup, COLUMNS).await;
    drop(daemon);
    setup.clean().await;
}

/// What was read by a schema stays read by it, whatever the registry says later.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_was_filled_anew_while_no_worker_ran_makes_no_row_wrong() {
    let _servers = use_servers().await;
    let (setup, registry) = (Setup::new(), Registry::start());
    topics(&setup).await;
    config(&setup, &registry);
    let daemon = setup.start().await;
    produce(&setup, &registry, 1, 0..EVENTS).await;
    caught_up(&setup, &daemon).await;
    // Of ids that are known by now.
    let (known, more) = (EVENTS..2 * EVENTS, 2 * EVENTS..3 * EVENTS);
    let records = encoded(&registry, 1, known.clone());
    let records_of_more = encoded(&registry, 1, more.clone());
    daemon.stop().await;

    // Emptied, and nobody has filled it yet: what is known is read all the same, also by what reads the log again.
    registry.empty();
    let daemon = setup.start().await;
    kafka::produce_raw(&setup.name("avro"), &records);
    kafka::produce_raw(&setup.name("json"), &in_json(known));
    caught_up(&setup, &daemon).await;
    assert_twins(&setup, COLUMNS).await;
    for name in ["avro", "docs"] {
        assert_answers(&daemon, &["verify", name]);
        assert_answers(&daemon, &["rebuild", name, "--wait"]);
    }
    caught_up(&setup, &daemon).await;
    assert_twins(&setup, COLUMNS).await;
    daemon.stop().await;

    // Filled in another order.
    registry.empty();
    let refilled = registry.encode(&[money(), order(1), order(0)], &[]);
    assert_eq!(refilled.ids, [1, 2, 3], "the orders have each other's");
    kafka::produce_raw(&setup.name("avro"), &records_of_more);
    let daemon = setup.start().await;
    for name in ["avro", "docs"] {
        let why = daemon.failure(name).await;
        assert!(why.contains("has another schema under the id of schema"), "{why}");
        assert!(why.contains("it was {") && why.contains(" and is {"), "both texts: {why}");
        assert_eq!(letters(&setup, name), Vec::<String>::new());
    }
    assert_twins(&setup, COLUMNS).await;

    // Restored, and the connectors restarted: nothing is lost.
    registry.empty();
    registry.encode(&[money(), order(0), order(1)], &[]);
    kafka::produce_raw(&setup.name("json"), &in_json(more));
    for name in ["avro", "docs"] {
        assert_answers(&daemon, &["restart", name]);
    }
    for name in ["avro", "docs"] {
        daemon.state(name, "RUNNING").await;
    }
    caught_up(&setup, &daemon).await;
    assert_twins(&setup, COLUMNS).await;
    daemon.stop().await;
    setup.clean().await;
}
