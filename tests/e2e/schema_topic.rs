//! Avro by schemas that stand in a topic, from Java's own encoder: the same rows as in JSON, while the worker is killed and schemas come
//! late; and what follows of a fingerprint that nobody knows, of one that two schemas have, and of a topic that was lost.

use std::ops::Range;

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Raw};
use crate::support::orders::PARTITIONS;
use crate::support::registry::{SingleObjects, single_objects};
use crate::support::setup::{Setup, connector, elasticsearch_sink, kafka_source, postgres_sink};
use crate::support::stores::{Columns, Kind};
use crate::support::twins::{assert_answers, assert_twins, caught_up, letters, waits_for_schemas};
use crate::support::{use_servers, wait};

const KEYS: u64 = 60;
const ROUNDS: u64 = 4;
/// Of each round.
const EVENTS: u64 = 400;

const COLUMNS: Columns = &[
    ("id", Kind::Plain),
    ("customer", Kind::Plain),
    ("total", Kind::Decimal),
    ("sum", Kind::Decimal),
    ("changes", Kind::Plain),
];

/// Each version after the first has one more field, before those that all have.
fn order(version: u64, scale: u32, doc: &str) -> String {
    let more: String = (0..version)
        .map(|nth| format!(r#"{{"name":"more{nth}","type":["null","string"]}},"#))
        .collect();
    format!(
        r#"{{"type":"record","name":"Order","namespace":"shop","doc":"{doc}","fields":[{more}
            {{"name":"id","type":"long"}},{{"name":"customer","type":["null","string"]}},
            {{"name":"total","type":{{"type":"bytes","logicalType":"decimal","precision":30,"scale":{scale}}}}}]}}"#
    )
}

fn amount(nth: u64) -> i64 {
    i64::try_from(nth).unwrap() * 7_777_777 - 500_000_000
}

fn id(nth: u64) -> u64 {
    nth * 7_919 % KEYS
}

fn raw(nth: u64, value: Vec<u8>) -> Raw {
    Raw::value(i32::try_from(id(nth)).unwrap() % PARTITIONS, &id(nth).to_string(), value)
}

/// In Avro's own JSON, by this version of the schema.
fn event(nth: u64, version: u64) -> Value {
    let bytes: String = amount(nth).to_be_bytes().into_iter().map(char::from).collect();
    let customer = json!({ "string": "größer" });
    let mut event = json!({
        "id": id(nth),
        "customer": if nth.is_multiple_of(5) { Value::Null } else { customer },
        "total": bytes,
    });
    for nth in 0..version {
        event[format!("more{nth}")] = json!({ "string": "passed over" });
    }
    event
}

/// A round's events, a third of them by the version before.
fn encoded(version: u64, events: Range<u64>) -> (SingleObjects, Vec<Raw>) {
    let versions = [version.saturating_sub(1), version];
    let by = |nth: u64| if nth.is_multiple_of(3) { 0 } else { 1 };
    let values: Vec<(usize, Value)> =
        events.clone().map(|nth| (by(nth), event(nth, versions[by(nth)]))).collect();
    let encoded = single_objects(&versions.map(|version| order(version, 4, "")), &values);
    let key: Vec<u8> = encoded.keys[by(events.start)].iter().rev().copied().collect();
    assert_eq!(encoded.values[0][..10], [&[0xc3, 1][..], &key].concat(), "Java's frame");
    let raws = events.zip(encoded.values.clone()).map(|(nth, value)| raw(nth, value)).collect();
    (encoded, raws)
}

fn in_json(events: Range<u64>) -> Vec<Raw> {
    let text = |nth| {
        let (sign, whole) = (if amount(nth) < 0 { "-" } else { "" }, amount(nth).unsigned_abs());
        let customer = if nth.is_multiple_of(5) { "null" } else { "\"größer\"" };
        let (whole, part) = (whole / 10_000, whole % 10_000);
        format!(r#"{{"id":{},"customer":{customer},"total":{sign}{whole}.{part:04}}}"#, id(nth))
    };
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
changes = {{ type = "bigint", default = 0 }}
[[projections.{name}.on]]
set = {{ customer = "event.customer", total = "event.total" }}
add = {{ changes = 1, sum = "event.total" }}
"#
    )
}

/// A topic in Avro and its twin in JSON; the worker makes the topic of schemas.
async fn start(setup: &Setup) -> Daemon {
    let (avro, json, schemas) = (setup.name("avro"), setup.name("json"), setup.name("schemas"));
    for topic in [&avro, &json] {
        kafka::create(topic, PARTITIONS).await;
    }
    let registry = format!(
        "[registries.catalog]\ntype = \"topic\"\ntopic = {schemas:?}\n\
         [sources.events.topics.{schemas}]\npartitions = 1\nreplication_factor = 1\nconfig = {{ \"cleanup.policy\" = \"compact\" }}\n\
         [sources.events.topics.{avro}]\nvalue = {{ type = \"avro\", registry = \"catalog\" }}\n"
    );
    setup.config(&[
        kafka_source(),
        registry,
        projection("avro", &avro),
        projection("json", &json),
        postgres_sink(),
        elasticsearch_sink(),
        connector("avro", "avro", "warehouse", &avro, ""),
        connector("docs", "avro", "search", &avro, ""),
        connector("json", "json", "warehouse", &json, ""),
    ]);
    let daemon = setup.start().await;
    made(&schemas).await;
    daemon
}

async fn made(topic: &str) {
    wait::until(&format!("{topic} is made"), wait::SOON, async || {
        let all = kafka::topics();
        if all.iter().any(|one| one == topic) { Ok(()) } else { Err(all.join(", ")) }
    })
    .await;
}

fn publish(setup: &Setup, key: &[u8], schema: Option<&str>) {
    let value = schema.map(|text| text.as_bytes().to_vec());
    let record = Raw { key: Some(key.to_vec()), value, ..Raw::default() };
    kafka::produce_raw(&setup.name("schemas"), &[record]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_java_wrote_by_schemas_of_a_topic_is_what_it_is_in_json_while_the_worker_is_killed() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let mut daemon = start(&setup).await;
    let mut kills = 0;
    for round in 0..ROUNDS {
        let events = round * EVENTS..(round + 1) * EVENTS;
        let (encoded, records) = encoded(round, events.clone());
        let publish = || publish(&setup, &encoded.keys[1], Some(&order(round, 4, "")));
        if round % 2 == 0 {
            publish();
        }
        kafka::produce_raw(&setup.name("avro"), &records);
        kafka::produce_raw(&setup.name("json"), &in_json(events));
        if round % 2 == 1 {
            // Its records are there before it is.
            waits_for_schemas(&daemon, "avro", "does not have").await;
            daemon.kill9();
            kills += 1;
            daemon = setup.start().await;
            waits_for_schemas(&daemon, "avro", "does not have").await;
            publish();
        }
        daemon.metric("avro", "records_consumed_total", |consumed| consumed > 0).await;
        daemon.kill9();
        kills += 1;
        daemon = setup.start().await;
    }
    println!("{kills} kills");
    caught_up(&setup, &daemon).await;
    assert_twins(&setup, COLUMNS).await;
    assert_eq!(letters(&setup, "avro"), Vec::<String>::new());
    for name in ["avro", "docs"] {
        assert_answers(&daemon, &["verify", name]);
        assert_answers(&daemon, &["explain", name, "7"]);
        assert_answers(&daemon, &["rebuild", name, "--wait"]);
    }
    caught_up(&setup, &daemon).await;
    assert_twins(&setup, COLUMNS).await;
    daemon.stop().await;

    // The topic is gone, and the worker makes it anew: what was read before is read by what was kept.
    let (_, more) = encoded(ROUNDS - 1, ROUNDS * EVENTS..(ROUNDS + 1) * EVENTS);
    kafka::delete(&[setup.name("schemas")]).await;
    let daemon = setup.start().await;
    made(&setup.name("schemas")).await;
    kafka::produce_raw(&setup.name("avro"), &more);
    kafka::produce_raw(&setup.name("json"), &in_json(ROUNDS * EVENTS..(ROUNDS + 1) * EVENTS));
    caught_up(&setup, &daemon).await;
    assert_answers(&daemon, &["rebuild", "avro", "--wait"]);
    caught_up(&setup, &daemon).await;
    assert_twins(&setup, COLUMNS).await;
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fingerprint_that_nobody_knows_is_bad_and_one_of_two_schemas_stops_the_connector() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let daemon = start(&setup).await;
    let (avro, json) = (setup.name("avro"), setup.name("json"));
    let (first, records) = encoded(0, 0..EVENTS);
    let [key, other] = [order(0, 4, ""), order(0, 2, "")]
        .map(|schema| single_objects(&[schema], &[]).keys.remove(0));
    assert_eq!((&key, &other), (&first.keys[1], &key), "a decimal's scale is no part of it");
    publish(&setup, &key, Some(&order(0, 4, "")));
    // Of a schema whose key was written in the wrong order.
    let unknown = single_objects(&["\"long\"".to_owned()], &[(0, json!(7))]);
    publish(&setup, &unknown.values[0][2..10], Some("\"long\""));
    kafka::produce_raw(&avro, &[raw(0, unknown.values[0].clone())]);
    kafka::produce_raw(&avro, &records);
    kafka::produce_raw(&json, &in_json(0..EVENTS));
    caught_up(&setup, &daemon).await;
    for name in ["avro", "docs"] {
        let [letter] = &letters(&setup, name)[..] else { panic!("one letter of {name}") };
        assert!(
            letter.contains("does not have; it has one whose key has these bytes in reverse"),
            "{letter}"
        );
    }
    assert_twins(&setup, COLUMNS).await;

    // What reads alike is the same.
    publish(&setup, &key, Some(&order(0, 4, "with other words")));
    kafka::produce_raw(&avro, &encoded(0, EVENTS..2 * EVENTS).1);
    kafka::produce_raw(&json, &in_json(EVENTS..2 * EVENTS));
    caught_up(&setup, &daemon).await;
    assert_twins(&setup, COLUMNS).await;

    // Whoever wrote the next record may have written it by this one.
    publish(&setup, &key, Some(&order(0, 2, "")));
    kafka::produce_raw(&avro, &encoded(0, 2 * EVENTS..3 * EVENTS).1);
    for name in ["avro", "docs"] {
        let why = daemon.failure(name).await;
        assert!(why.contains("has two schemas for the schema of fingerprint"), "{why}");
        assert!(why.contains("\"scale\":4") && why.contains("\"scale\":2"), "both texts: {why}");
    }
    assert_twins(&setup, COLUMNS).await;
    publish(&setup, &key, None);
    publish(&setup, &key, Some(&order(0, 4, "")));
    kafka::produce_raw(&json, &in_json(2 * EVENTS..3 * EVENTS));
    for name in ["avro", "docs"] {
        assert_answers(&daemon, &["restart", name]);
        daemon.state(name, "RUNNING").await;
    }
    caught_up(&setup, &daemon).await;
    assert_twins(&setup, COLUMNS).await;
    assert_eq!(letters(&setup, "avro").len(), 1);
    daemon.stop().await;
    setup.clean().await;
}
