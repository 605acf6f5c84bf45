//! A batch that cannot be read stops its connectors behind all that stands before it; it is left out when
//! someone says so, everyone sees that, and rebuilds leave it out too until someone wants it back.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Raw};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, kafka_source, orders_projection, postgres_sink,
    sqlite_sink,
};
use crate::support::use_servers;

const ALL: [&str; 3] = ["orders", "docs", "lite"];

/// The three stores fed by one topic, through a client that takes so many bytes at once.
fn config(setup: &Setup, topic: &str, table: &str, received: u64) {
    setup.config(&[
        format!("{}\"receive.message.max.bytes\" = {received}\n", kafka_source()),
        orders_projection(topic, "", ""),
        postgres_sink(),
        elasticsearch_sink(),
        sqlite_sink(&setup.path("lite.db")),
        connector("orders", "orders", "warehouse", table, ""),
        connector("docs", "orders", "search", table, ""),
        connector("lite", "orders", "file", table, ""),
    ]);
}

/// Three records that are few bytes as they lie there.
fn packed() -> Vec<Raw> {
    let pad = "x".repeat(3_000_000);
    let value = |id: u64| format!("{{\"id\":{id},\"amount\":7,\"pad\":\"{pad}\"}}");
    (9_001..9_004).map(|id| Raw::value(1, &id.to_string(), value(id))).collect()
}

/// The position in partition 1.
async fn position(daemon: &Daemon, name: &str) -> i64 {
    let (_, found) = daemon.get(&format!("/connectors/{name}/offsets")).await;
    let mut all = found["offsets"].as_array().unwrap().iter();
    let one = all.find(|entry| entry["partition"]["kafka_partition"] == 1).unwrap();
    one["offset"]["kafka_offset"].as_i64().unwrap()
}

/// Nothing differs; what was left out of the store and of the fold.
fn verified(daemon: &Daemon, name: &str) -> Value {
    let printed = daemon.cli(&["verify", name, "--json"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let last: Value = serde_json::from_str(printed.out.lines().last().unwrap()).unwrap();
    assert_eq!(last["summary"]["drift"], 0, "{last}");
    last["summary"]["left_out"].clone()
}

fn assert_left_out(daemon: &Daemon, name: &str, told: &str) {
    let left_out = verified(daemon, name);
    assert!(left_out[0].as_str().is_some_and(|line| line.starts_with(told)), "{left_out}");
}

/// Nothing is known of a key that only what was left out has.
fn assert_unknown(daemon: &Daemon, name: &str, key: &str, told: &str) {
    let explained = daemon.cli(&["explain", name, key]);
    assert!(explained.code == Some(66) && explained.out.contains(told), "{explained:?}");
    assert!(explained.out.contains("0 events"), "{explained:?}");
}

fn hole(topic: &str, (from, to): (i64, i64), repeated: bool) -> Value {
    json!([{ "topic": topic, "partition": 1, "from": from, "to": to, "repeated": repeated }])
}

/// What cannot be read cannot be read by a rebuild either, beside and in place: both leave it out.
async fn left_out_by_rebuilds(daemon: &Daemon, name: &str, topic: &str, (from, to): (i64, i64)) {
    let told = format!("offsets {from} to {} of `{topic}-1`", to - 1);
    for how in ["--wait", "--in-place"] {
        let rebuilt = daemon.cli(&["rebuild", name, how]);
        assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
        daemon.caught_up(name, topic).await;
        daemon.idle(name, PARTITIONS as u64).await;
        assert_eq!(daemon.status(name).await["holes"], hole(topic, (from, to), true));
        assert_left_out(daemon, name, &format!("{told}; every rebuild leaves them out too"));
    }
    let forgotten = daemon.cli(&["offsets", name, "--forget-holes"]);
    assert!(forgotten.code == Some(0) && forgotten.out.contains("1 stretches"), "{forgotten:?}");
    assert_eq!(daemon.status(name).await["holes"], hole(topic, (from, to), false));
    assert_eq!(verified(daemon, name), json!([format!("{told}; the next rebuild folds them")]));
}

/// It can be read now, and is wanted back.
async fn folded_by_a_rebuild(daemon: &Daemon, name: &str) {
    let rebuilt = daemon.cli(&["rebuild", name, "--wait"]);
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
    daemon.idle(name, PARTITIONS as u64).await;
    assert_eq!(daemon.status(name).await["holes"], json!([]));
    assert_eq!(verified(daemon, name), Value::Null);
    let (code, row) = daemon.get(&format!("/connectors/{name}/rows/9001")).await;
    assert_eq!((code, &row["row"]["amount"]), (200, &json!(7)), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_cannot_be_unpacked_is_left_out_of_every_generation_until_it_is_wanted_back() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    kafka::produce(&topic, Orders::new(50).events(0..300));
    let from = kafka::ends(&topic)[1];
    let to = from + 3;
    kafka::produce_packed(&topic, &packed());
    assert_eq!(kafka::ends(&topic)[1], to);
    kafka::produce(&topic, Orders::new(50).events(300..600));
    config(&setup, &topic, &table, 2_000_000);
    let daemon = setup.start().await;
    let place = format!("{topic}:1={to}");
    let hole = hole(&topic, (from, to), true);
    for name in ALL {
        let why = daemon.failure(name).await;
        for part in ["`receive.message.max.bytes` (2000000)", &format!("--skip-to {place}`")] {
            assert!(why.contains(part), "no {part} in {why}");
        }
        assert_eq!(position(&daemon, name).await, from, "what stands before it is durable");
        let skip = |to: &str| daemon.cli(&["offsets", name, "--skip-to", to]);
        let refused = skip(&place);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains("not STOPPED"), "{refused:?}");
        assert_eq!(daemon.cli(&["stop", name]).code, Some(0));
        daemon.state(name, "STOPPED").await;
        for (wrong, words) in [
            (format!("{topic}:1=0"), "lies behind it"),
            (format!("{topic}:1=999999"), "ends at"),
            ("yesterday".to_owned(), "allowed are latest"),
        ] {
            let refused = skip(&wrong);
            assert!(refused.code == Some(1) && refused.err.contains(words), "{refused:?}");
        }
        assert_eq!(position(&daemon, name).await, from);
        let done = skip(&place);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(daemon.status(name).await["holes"], hole);
        assert_eq!(daemon.cli(&["resume", name]).code, Some(0));
        daemon.caught_up(name, &topic).await;
        daemon.idle(name, PARTITIONS as u64).await;
    }
    daemon.stop().await;
    // Every worker shows it, at every start.
    let daemon = setup.start().await;
    for name in ALL {
        daemon.caught_up(name, &topic).await;
        daemon.idle(name, PARTITIONS as u64).await;
        assert_eq!(daemon.status(name).await["holes"], hole);
        let told = format!(
            "offsets {from} to {} of `{topic}-1`; every rebuild leaves them out too",
            to - 1
        );
        assert_left_out(&daemon, name, &told);
        assert_unknown(&daemon, name, "9001", &told);
    }
    let shown = daemon.cli(&["status"]);
    assert_eq!(shown.out.matches("are left out, as an operator asked").count(), 3, "{shown:?}");
    for name in ALL {
        left_out_by_rebuilds(&daemon, name, &topic, (from, to)).await;
    }
    daemon.stop().await;
    config(&setup, &topic, &table, 100_000_000);
    let daemon = setup.start().await;
    for name in ALL {
        daemon.caught_up(name, &topic).await;
        folded_by_a_rebuild(&daemon, name).await;
    }
    daemon.stop().await;
    setup.clean().await;
}
