//! `on_bad_record = "park"`: a key is set aside with its later events, in order, and nobody else waits; it
//! is tried again or left out by command; all of it survives the worker.

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Printed};
use crate::support::kafka::{self, Raw};
use crate::support::orders::PARTITIONS;
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, kafka_source, orders_projection, postgres_sink,
    sqlite_sink,
};
use crate::support::stores::{
    Columns, Kind, elasticsearch_rows, postgres_rows, query, sqlite_rows,
};
use crate::support::{use_servers, wait};

const COLUMNS: Columns = &[("id", Kind::Plain), ("amount", Kind::Plain), ("changes", Kind::Plain)];
const ALL: [&str; 3] = ["orders", "docs", "lite"];
const PARK: &str = "errors = { on_bad_record = \"park\" }";

fn event(id: u32, amount: &str) -> Raw {
    Raw::value(1, &id.to_string(), format!("{{\"id\":{id},\"amount\":{amount}}}"))
}

/// Three connectors, one for each store.
fn config(setup: &Setup, topic: &str, errors: &str) {
    let table = setup.name("orders");
    setup.config(&[
        kafka_source(),
        orders_projection(topic, "", ""),
        postgres_sink(),
        elasticsearch_sink(),
        sqlite_sink(&setup.path("lite.db")),
        connector("orders", "orders", "warehouse", &table, errors),
        connector("docs", "orders", "search", &table, errors),
        connector("lite", "orders", "file", &table, errors),
    ]);
}

async fn rows(setup: &Setup, name: &str) -> Vec<String> {
    let table = setup.name("orders");
    let rows = match name {
        "orders" => postgres_rows(&table, COLUMNS).await,
        "docs" => elasticsearch_rows(&table, COLUMNS).await,
        _ => sqlite_rows(&setup.path("lite.db"), &table, COLUMNS),
    };
    let text = |value: &Option<String>| value.clone().unwrap_or("-".to_owned());
    rows.values().map(|row| row.iter().map(text).collect::<Vec<_>>().join(" ")).collect()
}

fn parked(daemon: &Daemon, name: &str) -> Vec<Value> {
    let printed = daemon.cli(&["parked", "list", name, "--json"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let answer: Value = serde_json::from_str(&printed.out).unwrap();
    answer["parked"].as_array().unwrap().clone()
}

fn ask(daemon: &Daemon, name: &str, verb: &str, id: &str, more: &[&str]) -> Printed {
    daemon.cli(&[&["parked", verb, name, id][..], more].concat())
}

#[track_caller]
fn assert_freed(printed: &Printed) {
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.out.contains("freed"), "{printed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_key_waits_with_its_events_and_nobody_else_does() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let topic = setup.name("orders");
    kafka::create(&topic, PARTITIONS).await;
    let log = [
        event(1, "1"),
        event(7, "1"),
        event(7, "\"many\""),
        event(1, "2"),
        event(7, "3"),
        event(7, "4"),
        // Nobody can tell whose it is.
        Raw::value(1, "7", "{\"id\":7,"),
    ];
    kafka::produce_raw(&topic, &log);
    config(&setup, &topic, PARK);
    let daemon = setup.start().await;
    let id = format!("{topic}:1:2");
    for name in ALL {
        daemon.caught_up(name, &topic).await;
        let scrape = daemon.idle(name, PARTITIONS as u64).await;
        scrape.assert_balanced(name);
        let of = |metric: &str| scrape.of(name, metric);
        assert_eq!((of("events_parked_total"), of("parked_keys")), (3, 1), "{name}");
        assert_eq!(of("events_dead_lettered_total"), 1, "{name}");
        assert_eq!(daemon.status(name).await["parked_keys"], 1, "{name}");
        assert_eq!(rows(&setup, name).await, ["1 2 2", "7 1 1"], "{name}");
        let entries = parked(&daemon, name);
        assert_eq!((entries.len(), &entries[0]["events"]), (1, &json!(3)), "{entries:?}");
        assert_eq!((&entries[0]["id"], &entries[0]["keys"]), (&json!(id), &json!(["7"])));
        let reason = entries[0]["reason"].as_str().unwrap();
        assert!(reason.contains("amount") && !reason.contains("many"), "{reason}");
        let shown = ask(&daemon, name, "show", &id, &[]);
        let shown: Value = serde_json::from_str(&shown.out).unwrap();
        let amounts: Vec<_> =
            (0..3).map(|at| shown["parked"][at]["value"]["amount"].clone()).collect();
        assert_eq!(amounts, [json!("many"), json!(3), json!(4)], "in order");
        assert!(daemon.cli(&["parked", "list", name]).out.contains(&id));
    }
    daemon.kill9();
    let daemon = setup.start().await;
    kafka::produce_raw(&topic, &[event(7, "5"), event(1, "6")]);
    for name in ALL {
        daemon.caught_up(name, &topic).await;
        daemon.metric(name, "parked_keys", |keys| keys == 1).await;
        assert_eq!(rows(&setup, name).await, ["1 6 3", "7 1 1"], "{name}");
        assert_eq!(parked(&daemon, name)[0]["events"], 4, "{name}");
        assert_freed_and_exact(&setup, &daemon, name, &id).await;
    }
    kafka::produce_raw(&topic, &[event(7, "9")]);
    for name in ALL {
        daemon.caught_up(name, &topic).await;
        let expected = if name == "lite" { "7 9 2" } else { "7 9 5" };
        assert_eq!(rows(&setup, name).await, ["1 6 3", expected], "{name}");
        // A rebuild leaves out what was dropped, and nothing else.
        let how = if name == "lite" { "--in-place" } else { "--wait" };
        let rebuilt = daemon.cli(&["rebuild", name, how]);
        assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
        daemon.metric(name, "generation", |generation| generation == 2).await;
        wait::until("the rebuild gives the same", wait::SOON, async || {
            let found = rows(&setup, name).await;
            if found == ["1 6 3", expected] { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        assert_eq!(parked(&daemon, name), [] as [Value; 0], "{name}");
    }
    daemon.stop().await;
    assert!(!setup.log().contains("many"), "no payload in the log");
    setup.clean().await;
}

/// A retry says that the event is as bad as it was. Then it is left out: from SQLite with all that wait
/// behind it, elsewhere alone, so that the row is the plain fold of the rest.
async fn assert_freed_and_exact(setup: &Setup, daemon: &Daemon, name: &str, id: &str) {
    let retried = ask(daemon, name, "retry", id, &[]);
    assert_eq!(retried.code, Some(1), "{retried:?}");
    assert!(retried.err.contains("stays parked") && retried.err.contains("amount"), "{retried:?}");
    assert_eq!(parked(daemon, name)[0]["events"], 4, "{name}");
    if name == "lite" {
        assert_freed(&ask(daemon, name, "drop", id, &[]));
        assert_eq!(rows(setup, name).await, ["1 6 3", "7 1 1"], "{name}");
    } else {
        assert_freed(&ask(daemon, name, "drop", id, &["--bad"]));
        assert_eq!(rows(setup, name).await, ["1 6 3", "7 5 4"], "{name}");
    }
    daemon.metric(name, "parked_keys", |keys| keys == 0).await;
    let gone = ask(daemon, name, "drop", id, &[]);
    assert!(gone.code == Some(1) && gone.err.contains(id), "{gone:?}");
}

/// Parked keys of a connector over both workers.
async fn keys_of_both(daemons: [&Daemon; 2], expected: u64) {
    wait::until("the owner knows what is parked", wait::SOON, async || {
        let mut keys = 0;
        for daemon in daemons {
            keys += daemon.metrics().await.of("orders", "parked_keys");
        }
        if keys == expected { Ok(()) } else { Err(keys.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_the_cause_is_gone_replays_in_order() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    kafka::produce_raw(&topic, &[event(1, "1")]);
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "", ""),
        postgres_sink(),
        connector("orders", "orders", "warehouse", &table, PARK),
    ]);
    let daemon = setup.start().await;
    daemon.caught_up("orders", &topic).await;
    query(&format!("alter table {table} add constraint small check (amount < 100)")).await;
    kafka::produce_raw(&topic, &[event(2, "500")]);
    daemon.metric("orders", "events_parked_total", |events| events == 1).await;
    kafka::produce_raw(&topic, &[event(1, "3"), event(2, "7"), event(3, "1"), event(2, "700")]);
    daemon.caught_up("orders", &topic).await;
    assert_eq!(rows(&setup, "orders").await, ["1 3 2", "3 1 1"]);
    // The partitions move, and what is parked with them.
    let other = setup.start().await;
    for worker in [&daemon, &other] {
        worker.metric("orders", "assigned_partitions", |assigned| assigned == 2).await;
    }
    keys_of_both([&daemon, &other], 1).await;
    let id = format!("{topic}:1:1");
    let refused = ask(&other, "orders", "retry", &id, &[]);
    assert!(refused.code == Some(1) && refused.err.contains("small"), "{refused:?}");
    query(&format!("alter table {table} drop constraint small")).await;
    // Whoever asks, and whoever dies: the books know what is wanted.
    let path = format!("/connectors/orders/parked/{id}/retry");
    let (status, body) = daemon.request("POST", &path).await.unwrap();
    assert_eq!((status, &body["events"]), (202, &json!(3)), "{body}");
    daemon.kill9();
    wait::until("the events are freed", wait::LATER, async || {
        let left = parked(&other, "orders");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert_eq!(rows(&setup, "orders").await, ["1 3 2", "2 700 3", "3 1 1"]);
    kafka::produce_raw(&topic, &[event(2, "8")]);
    other.caught_up("orders", &topic).await;
    assert_eq!(rows(&setup, "orders").await, ["1 3 2", "2 8 4", "3 1 1"], "the plain fold");
    other.metric("orders", "parked_keys", |keys| keys == 0).await;
    other.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connector_pauses_before_more_are_parked_than_the_limit_says() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let topic = setup.name("orders");
    kafka::create(&topic, PARTITIONS).await;
    let mut log = vec![event(100, "1")];
    log.extend((0..10).map(|id| event(id, "\"many\"")));
    kafka::produce_raw(&topic, &log);
    config(&setup, &topic, "errors = { on_bad_record = \"park\", limit = 3 }");
    let daemon = setup.start().await;
    for resumed in 1..3 {
        for name in ALL {
            let status = daemon.state(name, "PAUSED").await;
            let why = status["connector"]["trace"].as_str().unwrap_or_default();
            assert!(
                why.contains("3 events were parked") && why.contains("errors.limit"),
                "{status}"
            );
            assert!(why.contains(&format!("foldline parked list {name}")), "{status}");
            assert_eq!(parked(&daemon, name).len(), resumed * 3, "{name}");
            let scrape = daemon.metrics().await;
            assert_eq!(scrape.of(name, "events_parked_total"), resumed as u64 * 3, "{name}");
            scrape.assert_balanced(name);
            assert_eq!(rows(&setup, name).await, ["100 1 1"], "{name}");
            if resumed == 1 {
                assert_eq!(daemon.cli(&["resume", name]).code, Some(0));
                daemon.metric(name, "events_parked_total", |events| events == 6).await;
            }
        }
    }
    // What is parked can be freed while the rest waits in the log.
    let id = format!("{topic}:1:1");
    assert_freed(&ask(&daemon, "orders", "drop", &id, &[]));
    assert_eq!(parked(&daemon, "orders").len(), 5);
    daemon.stop().await;
    setup.clean().await;
}
