//! State topics in Avro: what Confluent's own deserializer reads by the registry is the plain fold, whatever happens to the worker and
//! the registry.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{ABORTED, Daemon};
use crate::support::kafka::{self, Background, Raw};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::registry::Registry;
use crate::support::setup::{
    Setup, connector, kafka_sink, kafka_source, orders_projection, users_projection,
};
use crate::support::stores::{ORDERS, USERS, avro_topic_rows};
use crate::support::use_servers;
use crate::support::wait::{self, LATER};
use foldline_api::failpoint;

/// Moments of a flush, and which time they are passed.
const DEATHS: [&str; 3] = ["after_fold:2", "before_positions:4", "after_write:2"];

fn registry_of(registry: &Registry) -> String {
    format!("[registries.main]\ntype = \"confluent\"\nurl = {:?}\n", registry.url())
}

/// States in Avro, with members of the sink's groups that are soon missed.
fn avro_sink() -> String {
    format!(
        "{}value = \"avro\"\n[sinks.states.properties]\n\"session.timeout.ms\" = 2000\n\"heartbeat.interval.ms\" = 300\n",
        kafka_sink()
    )
}

async fn wait_for_trace(daemon: &Daemon, connector: &str, says: &str) {
    wait::until(&format!("{connector} says {says:?}"), LATER, async || {
        let status = daemon.status(connector).await.to_string();
        if status.contains(says) { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deaths_and_a_registry_that_stands_still_leave_the_plain_fold_to_confluents_own_reader() {
    let _servers = use_servers().await;
    let (setup, registry) = (Setup::new(), Registry::start());
    let topic = setup.name("events");
    kafka::create(&topic, PARTITIONS).await;
    setup.config(&[
        registry_of(&registry),
        kafka_source(),
        orders_projection(&topic, "", ""),
        users_projection(&topic),
        avro_sink(),
        connector("orders", "orders", "states", &setup.name("orders"), "batch = { rows = 200 }"),
        connector("users", "users", "states", &setup.name("users"), "batch = { rows = 200 }"),
    ]);
    let orders = Orders { seed: 7, orders: 400, users: 20 };
    kafka::produce(&topic, orders.events(0..2_000));
    let load = Background::start(&topic, orders, 2_000);
    for armed in DEATHS {
        let mut worker = setup.spawn_with(&[(failpoint::VARIABLE, armed)]);
        let what = format!("the worker dies at {armed}");
        let ended = wait::until(&what, LATER, async || {
            worker.ended().map(|status| status.signal()).ok_or("it lives".to_owned())
        });
        assert_eq!(ended.await, Some(ABORTED), "at {armed}");
    }
    // While it cannot tell, nothing starts, and it is said why.
    registry.pause();
    let waiting = setup.spawn();
    waiting.answers().await;
    wait_for_trace(&waiting, "orders", "cannot tell").await;
    waiting.kill9();
    registry.resume();
    let worker = setup.start().await;
    worker.metric("orders", "records_consumed_total", |consumed| consumed > 0).await;
    // While a worker runs it is not needed.
    registry.pause();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let known = worker.metrics().await.of("orders", "records_consumed_total");
    worker.metric("orders", "records_consumed_total", |consumed| consumed > known + 1_000).await;
    worker.kill9();
    registry.resume();
    load.stop();
    let worker = setup.start().await;
    let oracle = Oracle::of_topic(&topic);
    for name in ["orders", "users"] {
        worker.caught_up(name, &topic).await;
        let printed = worker.cli(&["verify", name]);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        assert!(printed.out.contains("0 differ"), "{printed:?}");
        let ids = registry.ids(&format!("{}-value", setup.name(name))).await;
        assert_eq!(ids.len(), 1, "each start found the schema of the first: {ids:?}");
    }
    let found = avro_topic_rows(&registry, &setup.name("orders"), ORDERS);
    assert_same("orders", &oracle.orders(), &found);
    let found = avro_topic_rows(&registry, &setup.name("users"), USERS);
    assert_same("users", &oracle.users(), &found);
    worker.stop().await;
    setup.clean().await;
}

const TYPES: &str = r#"id = "uuid"
big = "bigint"
small = "smallint"
middle = "integer"
double = "double precision"
single = "real"
exact = "numeric(40,20)"
free = "numeric"
flag = "boolean"
name = "varchar(20)"
at = "timestamptz"
day = "date"
hour = "time"
bytes = "bytea"
doc = "jsonb"
tags = "text[]"
sums = "numeric(9,2)[]"
"#;

fn typed(topic: &str, more: &str) -> String {
    let fields: Vec<&str> = TYPES.lines().filter_map(|line| line.split(' ').next()).collect();
    let set: Vec<String> =
        fields.iter().skip(1).map(|name| format!("{name} = \"event.{name}\"")).collect();
    format!(
        "[projections.typed]\ntopics = [{topic:?}]\nkey = {{ id = \"key\" }}\n[projections.typed.fields]\n{TYPES}{more}\n\
         [projections.typed.fields.lines]\ntype = \"children\"\nby = \"n\"\nfields = {{ n = \"bigint\", since = \"timestamptz\" }}\n\
         [[projections.typed.on]]\nset = {{ {}, lines = \"event.lines\" }}\n",
        set.join(", ")
    )
}

const ONE: &str = "6f1c8a52-94a8-4c1d-9d3e-0c8f0c7b1a01";
const TWO: &str = "6f1c8a52-94a8-4c1d-9d3e-0c8f0c7b1a02";

fn full() -> Value {
    json!({
        "big": i64::MIN, "small": -32_768, "middle": 2_147_483_647, "double": 0.1, "single": 1.5,
        "exact": "-12345678901234567890.00000000000000000001", "free": "-0.000000000000000000000000000000012345",
        "flag": false, "name": "größer", "at": "0001-01-01T00:00:00.000001Z", "day": "9999-12-31",
        "hour": "23:59:59.999999", "bytes": "AP8=", "doc": { "a": [1, null, "x"], "b": 1.50 },
        "tags": ["a", null, ""], "sums": ["1.50", "-0.01", null],
        "lines": [{ "n": 2, "since": null }, { "n": 1, "since": "2026-03-01T10:15:00Z" }],
    })
}

/// By Confluent's deserializer: a number without a scale and JSON are texts.
fn read_full() -> String {
    let parts = [
        &format!(r#""id":"{ONE}""#),
        r#""big":-9223372036854775808,"small":-32768,"middle":2147483647,"double":0.1,"single":1.5"#,
        r#""exact":-12345678901234567890.00000000000000000001,"free":"-0.000000000000000000000000000000012345""#,
        r#""flag":false,"name":"größer","at":"0001-01-01T00:00:00.000001Z","day":"9999-12-31""#,
        r#""hour":"23:59:59.999999","bytes":"AP8=","doc":"{\"a\":[1,null,\"x\"],\"b\":1.5}""#,
        r#""tags":["a",null,""],"sums":[1.50,-0.01,null]"#,
        r#""lines":[{"n":1,"since":"2026-03-01T10:15:00Z"},{"n":2,"since":null}]"#,
    ];
    format!("{{{}}}", parts.join(","))
}

/// The last value of a key as Confluent's deserializer reads it.
fn read(registry: &Registry, topic: &str, key: &str) -> Option<String> {
    let all = kafka::read_back(topic);
    let last = all.into_iter().rfind(|record| record.key.as_deref() == Some(key.as_bytes()))?;
    registry.decode(last.value.iter()).pop()
}

fn config(setup: &Setup, registry: &Registry, projection: String, format: &str) {
    let states = setup.name("typed");
    let value = format!("[sinks.states.topics.{states}]\nvalue = {format}\npartitions = 2\n");
    setup.config(&[
        registry_of(registry),
        kafka_source(),
        projection,
        kafka_sink(),
        value,
        connector("typed", "typed", "states", &states, "on_change = \"rebuild\""),
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_read_by_others_and_what_the_registry_refuses_is_told() {
    let _servers = use_servers().await;
    let (setup, registry) = (Setup::new(), Registry::start());
    let (topic, states) = (setup.name("events"), setup.name("typed"));
    let subject = format!("{states}-value");
    kafka::create(&topic, 1).await;
    let event = |key: &str, value: Value| Raw::value(0, key, value.to_string().into_bytes());
    kafka::produce_raw(&topic, &[event(ONE, full()), event(TWO, json!({ "lines": [] }))]);
    let avro = "{ type = \"avro\", registry = \"main\" }";
    // From JSON to Avro: what is there is read, and written anew when it changes or by a rebuild.
    config(&setup, &registry, typed(&topic, ""), "\"json\"");
    let worker = setup.start().await;
    worker.caught_up("typed", &topic).await;
    worker.stop().await;
    config(&setup, &registry, typed(&topic, ""), avro);
    let worker = setup.start().await;
    worker.state("typed", "RUNNING").await;
    let printed = worker.cli(&["rebuild", "typed", "--wait"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    worker.idle("typed", 1).await;
    assert_eq!(read(&registry, &states, ONE), Some(read_full()));
    let nothing = read(&registry, &states, TWO).unwrap();
    let nothing: Value = serde_json::from_str(&nothing).unwrap();
    assert!(nothing["at"].is_null() && nothing["lines"] == json!([]), "{nothing}");
    let before = kafka::read_back(&states).len();
    let printed = worker.cli(&["rebuild", "typed", "--wait"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    worker.idle("typed", 1).await;
    assert_eq!(kafka::read_back(&states).len(), before, "nothing differs");
    worker.stop().await;
    // A column more is a schema more, and what was written by the one before is read.
    registry.compatible(&subject, "BACKWARD").await;
    config(&setup, &registry, typed(&topic, "more = \"text\""), avro);
    let worker = setup.start().await;
    worker.state("typed", "RUNNING").await;
    wait::until("a schema more", LATER, async || match registry.ids(&subject).await.len() {
        2 => Ok(()),
        other => Err(format!("{other} schemas")),
    })
    .await;
    worker.idle("typed", 1).await;
    let printed = worker.cli(&["verify", "typed"]);
    assert!(printed.code == Some(0) && printed.out.contains("0 differ"), "{printed:?}");
    worker.stop().await;
    // Another type is refused by the registry.
    let other = typed(&topic, "more = \"text\"").replace("big = \"bigint\"", "big = \"text\"");
    config(&setup, &registry, other, avro);
    let worker = setup.start().await;
    let said = worker.failure("typed").await;
    for part in ["main", "refuses it: 409", &*subject, "Leave the fields' types as they are"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    registry.compatible(&subject, "NONE").await;
    let printed = worker.cli(&["restart", "typed"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    worker.state("typed", "RUNNING").await;
    worker.idle("typed", 1).await;
    wait::until("the other type is written", LATER, async || {
        let state = read(&registry, &states, ONE).unwrap_or_default();
        if state.contains(r#""big":"-9223372036854775808""#) { Ok(()) } else { Err(state) }
    })
    .await;
    worker.stop().await;
    setup.clean().await;
}
