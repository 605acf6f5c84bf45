//! `verify` finds what someone changed by hand, and nothing else, while events keep coming; `explain` and
//! `rows/{key}?at=` give what a plain fold cut at that point gives.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Background, Raw};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, kafka_source, orders_projection, postgres_sink,
    sqlite_sink,
};
use crate::support::stores::{
    ORDERS, canonical_row, elasticsearch, elasticsearch_rows, postgres_rows, query, sqlite_rows,
};
use crate::support::use_servers;

const ALL: [&str; 3] = ["orders", "docs", "lite"];
/// An order that no event names.
const NOBODY: u64 = 9_000_001;

/// The three stores fed by one topic.
fn config(setup: &Setup, topic: &str, table: &str) {
    setup.config(&[
        kafka_source(),
        orders_projection(topic, "", ""),
        postgres_sink(),
        elasticsearch_sink(),
        sqlite_sink(&setup.path("lite.db")),
        connector("orders", "orders", "warehouse", table, ""),
        connector("docs", "orders", "search", table, ""),
        connector("lite", "orders", "file", table, ""),
    ]);
}

/// Runs `verify --json`; its exit code, the keys that differ with the kind, and the summary.
fn verify(daemon: &Daemon, name: &str, more: &[&str]) -> (Option<i32>, BTreeSet<String>, Value) {
    let mut arguments = vec!["verify", name, "--json"];
    arguments.extend(more);
    let printed = daemon.cli(&arguments);
    let lines: Vec<Value> =
        printed.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let drift = |line: &Value| line["drift"]["key"].as_str().map(str::to_owned);
    let keys = lines.iter().filter_map(drift).collect();
    let summary = lines.last().map(|line| line["summary"].clone()).unwrap_or_default();
    assert!(summary.is_object(), "{printed:?}");
    (printed.code, keys, summary)
}

/// Counts one order wrong, takes one away and adds one, in each store.
async fn plant(table: &str, lite: &Path) -> BTreeSet<String> {
    query(&format!("update {table} set changes = changes + 100000 where id = 7")).await;
    query(&format!("delete from {table} where id = 8")).await;
    query(&format!("insert into {table} (id, changes) values ({NOBODY}, 1)")).await;
    let index = format!("{table}-g1");
    let wrong = json!({ "doc": { "changes": 100_000 } });
    let path = format!("{index}/_update/7?retry_on_conflict=9");
    assert_eq!(elasticsearch("POST", &path, Some(wrong)).await.0, 200);
    assert_eq!(elasticsearch("DELETE", &format!("{index}/_doc/8"), None).await.0, 200);
    let nobody = json!({ "id": NOBODY, "changes": 1 });
    let (status, body) =
        elasticsearch("PUT", &format!("{index}/_doc/{NOBODY}"), Some(nobody)).await;
    assert_eq!(status, 201, "{body}");
    let database = rusqlite::Connection::open(lite).unwrap();
    database.busy_timeout(Duration::from_secs(20)).unwrap();
    database
        .execute_batch(&format!(
            "update {table} set changes = changes + 100000 where id = 7;
             delete from {table} where id = 8;
             insert into {table} (id, changes) values ({NOBODY}, 1);"
        ))
        .unwrap();
    [7, 8, NOBODY].map(|id| id.to_string()).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_and_repairs_what_was_changed_by_hand_under_live_events() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    let orders = Orders::new(2_000);
    kafka::produce(&topic, orders.events(0..20_000));
    config(&setup, &topic, &table);
    let daemon = setup.start().await;
    // Every order is known before it is counted: a partition may lag behind while others are live.
    for name in ALL {
        daemon.caught_up(name, &topic).await;
    }
    // A row that changes between any two looks is never judged: each of these rests for some seconds.
    let pace = (10, Duration::from_millis(50));
    let live = Background::paced(&topic, orders, 20_000, pace);
    for name in ALL {
        let (code, drift, summary) = verify(&daemon, name, &[]);
        assert_eq!((code, drift.len()), (Some(0), 0), "{name}: {drift:?} {summary}");
        assert_eq!(summary["rows"], 2_000, "{name}");
    }
    let planted = plant(&table, &setup.path("lite.db")).await;
    for name in ALL {
        let (code, drift, summary) = verify(&daemon, name, &[]);
        assert_eq!((code, &drift), (Some(1), &planted), "{name}: {summary}");
        let (code, drift, summary) = verify(&daemon, name, &["--repair"]);
        assert_eq!((code, &drift), (Some(0), &planted), "{name}: {summary}");
        assert_eq!(summary["repaired"], planted.len(), "{name}");
        let (code, drift, _) = verify(&daemon, name, &[]);
        assert_eq!((code, drift.len()), (Some(0), 0), "{name}: {drift:?}");
    }
    assert!(live.stop() > 20_000);
    for name in ALL {
        daemon.caught_up(name, &topic).await;
    }
    let expected = Oracle::of_topic(&topic).orders();
    assert_same("PostgreSQL", &expected, &postgres_rows(&table, ORDERS).await);
    assert_same("Elasticsearch", &expected, &elasticsearch_rows(&table, ORDERS).await);
    assert_same("SQLite", &expected, &sqlite_rows(&setup.path("lite.db"), &table, ORDERS));
    let (_, _, summary) = verify(&daemon, "orders", &["--sample", "10"]);
    let rows = summary["rows"].as_u64().unwrap();
    assert!((50..500).contains(&rows), "a tenth of 2000 rows: {summary}");
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_and_a_row_at_a_moment_match_the_plain_fold_cut_there() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    let (orders, count) = (Orders::new(300), 6_000);
    kafka::produce(&topic, orders.events(0..count));
    config(&setup, &topic, &table);
    let daemon = setup.start().await;
    for name in ALL {
        daemon.caught_up(name, &topic).await;
    }
    // Where each event of order 7 lies: events of a partition are in the order of their index.
    let mut oracle = Oracle::default();
    let (mut next, mut cuts) = ([0_i64; PARTITIONS as usize], Vec::new());
    for event in orders.events(0..count) {
        oracle.fold(event.value.as_bytes(), event.timestamp);
        let offset = next[event.partition as usize];
        next[event.partition as usize] += 1;
        if event.key == "7" {
            let row = oracle.orders()["7"].clone();
            cuts.push((event.partition, offset, event.timestamp, row));
        }
    }
    assert!(cuts.len() > 5, "order 7 has some events");
    for name in ALL {
        for (partition, offset, timestamp, row) in cuts.iter().step_by(3).chain(cuts.last()) {
            let time = jiff::Timestamp::from_millisecond(*timestamp).unwrap();
            for at in [format!("{topic}:{partition}={offset}"), time.to_string()] {
                let (status, body) =
                    daemon.get(&format!("/connectors/{name}/rows/7?at={at}")).await;
                assert_eq!(status, 200, "{name} at {at}: {body}");
                assert_eq!(&canonical_row(ORDERS, &body["row"]), row, "{name} at {at}");
            }
        }
        let (status, body) = daemon.get(&format!("/connectors/{name}/rows/7")).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(Some(&canonical_row(ORDERS, &body["row"])), cuts.last().map(|cut| &cut.3));
        assert_eq!(daemon.get(&format!("/connectors/{name}/rows/{NOBODY}")).await.0, 404);
        let printed = daemon.cli(&["explain", name, "7", "--json"]);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        let lines: Vec<Value> =
            printed.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let events: Vec<&Value> = lines.iter().filter(|line| line["event"].is_object()).collect();
        assert_eq!(events.len(), cuts.len(), "{name}");
        for (line, (partition, offset, _, row)) in events.iter().zip(&cuts) {
            let event = &line["event"];
            assert_eq!(
                (&event["partition"], &event["offset"]),
                (&json!(partition), &json!(offset))
            );
            assert_eq!(event["outcome"], "applied");
            assert_eq!(&canonical_row(ORDERS, &event["row"]), row, "{name} after {offset}");
        }
    }
    // The key of the row is not the record's: no partition can be left out.
    let printed = daemon.cli(&["explain", "orders", "7"]);
    assert!(printed.out.contains("reading 4 of 4 partitions"), "{printed:?}");
    assert!(printed.out.contains("the stored row is the same"), "{printed:?}");
    query(&format!("update {table} set amount = -1 where id = 7")).await;
    let printed = daemon.cli(&["explain", "orders", "7"]);
    assert_eq!(printed.code, Some(1), "{printed:?}");
    assert!(printed.out.contains("amount: stored -1"), "{printed:?}");
    // A script tells rows that differ from a key that nobody knows and from a worker that does not answer.
    let unknown = daemon.cli(&["explain", "orders", "77777"]);
    assert_eq!(unknown.code, Some(66), "{unknown:?}");
    for what in [&["verify", "nobody"][..], &["explain", "nobody", "7"]] {
        let printed = daemon.cli(what);
        assert_eq!(printed.code, Some(69), "{printed:?}");
    }
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_reads_only_the_partition_that_can_hold_the_key() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("keyed"), setup.name("keyed"));
    kafka::create(&topic, PARTITIONS).await;
    // The producer's own partitioner chooses.
    let raw = |at: usize| Raw::value(-1, &format!("k{}", at % 40), format!("{{\"n\":{at}}}"));
    kafka::produce_raw(&topic, &(0..400).map(raw).collect::<Vec<_>>());
    setup.config(&[
        kafka_source(),
        format!(
            "[projections.keyed]\ntopics = [{topic:?}]\nkey = {{ id = \"key\" }}\n\
             [projections.keyed.fields]\nid = \"text\"\nn = \"bigint\"\n\
             [[projections.keyed.on]]\nset = {{ n = \"event.n\" }}\n"
        ),
        postgres_sink(),
        connector("keyed", "keyed", "warehouse", &table, ""),
    ]);
    let daemon = setup.start().await;
    daemon.caught_up("keyed", &topic).await;
    let printed = daemon.cli(&["explain", "keyed", "k7"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.out.contains("reading 1 of 4 partitions"), "{printed:?}");
    assert!(printed.out.contains("10 events;"), "{printed:?}");
    daemon.stop().await;
    setup.clean().await;
}
