//! Rows that the clock deletes, in each store: with late events, kills and rebuilds, what is left at the stored horizon is a count that
//! knows no clock, `verify` agrees, and a clock that jumps deletes nothing unasked.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Raw};
use crate::support::oracle::{Rows, assert_same};
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, file_source, kafka_sink, kafka_source, postgres_sink,
    sqlite_sink,
};
use crate::support::stores::{Columns, Kind, elasticsearch, postgres_rows, sqlite_rows};
use crate::support::use_servers;
use crate::support::wait::{self, LATER, SOON};

const SEEN: Columns = &[("id", Kind::Plain), ("second", Kind::Time), ("n", Kind::Plain)];
const ALL: [&str; 3] = ["table", "docs", "lite"];
/// Rows go so many seconds after their own; events are up to twice as old, or of the next hour: however slow the machine, some are left.
const AFTER: i64 = 30;
const AHEAD: i64 = 3_600;
const KILLS: u32 = 6;

fn projection(topic: &str) -> String {
    format!(
        r#"[projections.seen]
topics = [{topic:?}]
key = {{ id = "event.id", second = "window(timestamp(event.at), duration('1s'))" }}
expire = {{ field = "second", after = "{AFTER}s" }}
[projections.seen.fields]
id = "text"
second = "timestamptz"
n = {{ type = "bigint", default = 0 }}
[[projections.seen.on]]
add = {{ n = 1 }}
"#
    )
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// How often each second of somebody was told of.
#[derive(Default)]
struct Counts(BTreeMap<(i64, u8), u64>);

impl Counts {
    /// An event of the last minute, or once in eight of the next hour: its value.
    fn event(&mut self) -> String {
        let is_ahead = rand::random_range(0..8) == 0;
        let age = if is_ahead { -AHEAD..0 } else { 0..2 * AFTER };
        let at = now() - rand::random_range(age.start * 1_000..age.end * 1_000);
        let who: u8 = rand::random_range(0..4);
        let second = at.div_euclid(1_000) * 1_000;
        *self.0.entry((second, who)).or_default() += 1;
        let at = jiff::Timestamp::from_millisecond(at).unwrap();
        format!(r#"{{"id":"{who}@{second}","at":"{at}"}}"#)
    }

    fn produce(&mut self, topic: &str, count: usize) {
        let each = |at| Raw::value(i32::try_from(at % 3).unwrap(), "k", self.event());
        let records: Vec<Raw> = (0..count).map(each).collect();
        kafka::produce_raw(topic, &records);
    }

    /// The rows that a horizon has not passed.
    fn at(&self, horizon: i64) -> Rows {
        let row = |(&(second, who), n): (&(i64, u8), &u64)| {
            let id = format!("{who}@{second}");
            (id.clone(), vec![Some(id), Some(second.to_string()), Some(n.to_string())])
        };
        self.0.iter().filter(|((second, _), _)| *second >= horizon).map(row).collect()
    }
}

fn second(row: &[Option<String>]) -> i64 {
    row[1].as_deref().unwrap().parse().unwrap()
}

/// The horizon that a worker shows, in milliseconds since the epoch.
async fn horizon(daemon: &Daemon, name: &str) -> i64 {
    wait::until(&format!("{name} has a horizon"), SOON, async || {
        let status = daemon.status(name).await;
        let horizon = status["expiry"]["horizon"].as_str().ok_or(status.to_string())?;
        Ok(horizon.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    })
    .await
}

/// All documents of an alias, fewer than a search may find.
async fn documents(alias: &str) -> Rows {
    assert_eq!(elasticsearch("POST", &format!("{alias}/_refresh"), None).await.0, 200);
    let all = json!({ "size": 10_000, "query": { "match_all": {} } });
    let (status, answer) = elasticsearch("POST", &format!("{alias}/_search"), Some(all)).await;
    assert_eq!(status, 200, "{answer}");
    let hits = answer["hits"]["hits"].as_array().unwrap();
    assert!(hits.len() < 10_000);
    let row = |hit: &Value| {
        let source = &hit["_source"];
        let id = source["id"].as_str().unwrap().to_owned();
        let at: jiff::Timestamp = source["second"].as_str().unwrap().parse().unwrap();
        let (second, n) = (at.as_millisecond().to_string(), source["n"].to_string());
        (id.clone(), vec![Some(id), Some(second), Some(n)])
    };
    hits.iter().map(row).collect()
}

async fn rows(name: &str, table: &str, lite: &Path) -> Rows {
    match name {
        "table" => postgres_rows(table, SEEN).await,
        "docs" => documents(table).await,
        _ => sqlite_rows(lite, table, SEEN),
    }
}

/// What is behind the horizon is the count, as soon as the rest is gone.
async fn assert_exact(daemon: &Daemon, name: &str, counts: &Counts, (table, lite): (&str, &Path)) {
    let (found, horizon) = wait::until(&format!("{name} has swept"), LATER, async || {
        let found = rows(name, table, lite).await;
        let horizon = horizon(daemon, name).await;
        let past = found.values().filter(|row| second(row) < horizon).count();
        if past == 0 { Ok((found, horizon)) } else { Err(format!("{past} rows have expired")) }
    })
    .await;
    assert_same(name, &counts.at(horizon), &found);
}

fn assert_verified(daemon: &Daemon, name: &str) {
    let printed = daemon.cli(&["verify", name, "--json"]);
    assert_eq!(printed.code, Some(0), "{name}: {printed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_in_each_store_is_the_count_at_its_horizon_through_kills_and_rebuilds() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("seen"), setup.name("seen"));
    let lite = setup.path("lite.db");
    kafka::create(&topic, 3).await;
    setup.config(&[
        kafka_source(),
        projection(&topic),
        postgres_sink(),
        elasticsearch_sink(),
        sqlite_sink(&lite),
        connector("table", "seen", "warehouse", &table, ""),
        connector("docs", "seen", "search", &table, ""),
        connector("lite", "seen", "file", &table, ""),
    ]);
    let mut counts = Counts::default();
    counts.produce(&topic, 3_000);
    let daemon = setup.start().await;
    for name in ALL {
        daemon.caught_up(name, &topic).await;
        assert_verified(&daemon, name);
    }
    daemon.kill9();
    for turn in 0..KILLS {
        let daemon = setup.start().await;
        counts.produce(&topic, 300);
        if turn % 3 == 1 {
            for name in ALL {
                daemon.state(name, "RUNNING").await;
                drop(daemon.cli(&["rebuild", name]));
            }
        }
        // The moment of the kill is what is tried, not a wait for anything.
        tokio::time::sleep(Duration::from_millis(rand::random_range(500..8_000))).await;
        daemon.kill9();
    }
    let daemon = setup.start().await;
    for name in ALL {
        daemon.caught_up(name, &topic).await;
        let printed = daemon.cli(&["rebuild", name, "--wait"]);
        assert_eq!(printed.code, Some(0), "{name}: {printed:?}");
        assert_verified(&daemon, name);
    }
    counts.produce(&topic, 300);
    for name in ALL {
        daemon.caught_up(name, &topic).await;
    }
    daemon.stop().await;
    // Who starts looks at once.
    let daemon = setup.start().await;
    for name in ALL {
        daemon.caught_up(name, &topic).await;
        assert_exact(&daemon, name, &counts, (&table, &lite)).await;
        assert_verified(&daemon, name);
    }
    let (&(first, who), _) = counts.0.first_key_value().unwrap();
    let key = format!("{who}@{first}:{}", jiff::Timestamp::from_millisecond(first).unwrap());
    let printed = daemon.cli(&["explain", "table", &escaped(&key)]);
    assert!(printed.out.contains("the row has expired"), "{printed:?}");
    let scrape = daemon.metrics().await;
    let of_table = [("connector", "table")];
    assert!(scrape.find("expiry_horizon_timestamp_seconds", &of_table).is_some());
    daemon.stop().await;
    setup.clean().await;
}

/// The states of a topic, and how many keys have a tombstone.
fn states(topic: &str) -> (Rows, usize) {
    let (mut rows, mut gone) = (Rows::new(), 0);
    let mut last = BTreeMap::new();
    for record in kafka::read_back(topic) {
        last.insert(record.key, record.value);
    }
    for value in last.into_values() {
        let Some(value) = value else {
            gone += 1;
            continue;
        };
        let state: Value = serde_json::from_slice(&value).unwrap();
        let id = state["id"].as_str().unwrap().to_owned();
        let at: jiff::Timestamp = state["second"].as_str().unwrap().parse().unwrap();
        let (second, n) = (at.as_millisecond().to_string(), state["n"].to_string());
        rows.insert(id.clone(), vec![Some(id), Some(second), Some(n)]);
    }
    (rows, gone)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_in_a_state_topic_is_a_tombstone_through_kills_and_a_rebuild() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, target) = (setup.name("seen"), setup.name("states"));
    kafka::create(&topic, 3).await;
    let soon = "[sinks.states.properties]\n\"session.timeout.ms\" = 2000\n\"heartbeat.interval.ms\" = 300\n";
    setup.config(&[
        kafka_source(),
        projection(&topic),
        format!("{}{soon}", kafka_sink()),
        connector("states", "seen", "states", &target, ""),
    ]);
    let mut counts = Counts::default();
    counts.produce(&topic, 2_000);
    for _ in 0..3 {
        let daemon = setup.start().await;
        daemon.metric("states", "assigned_partitions", |held| held == 3).await;
        counts.produce(&topic, 200);
        // The moment of the kill is what is tried, not a wait for anything.
        tokio::time::sleep(Duration::from_millis(rand::random_range(200..4_000))).await;
        daemon.kill9();
    }
    let daemon = setup.start().await;
    daemon.caught_up("states", &topic).await;
    let printed = daemon.cli(&["rebuild", "states", "--wait"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    daemon.caught_up("states", &topic).await;
    let (found, horizon) = wait::until("what has expired is gone", LATER, async || {
        let (found, gone) = states(&target);
        let horizon = horizon(&daemon, "states").await;
        let past = found.values().filter(|row| second(row) < horizon).count();
        let is_swept = past == 0 && gone > 0;
        if is_swept { Ok((found, horizon)) } else { Err(format!("{past} stay, {gone} are gone")) }
    })
    .await;
    assert_same("states", &counts.at(horizon), &found);
    assert_verified(&daemon, "states");
    daemon.stop().await;
    setup.clean().await;
}

/// The moment's colons as a part of a key has them.
fn escaped(key: &str) -> String {
    let (id, moment) = key.split_once(':').unwrap();
    format!("{id}:{}", moment.replace(':', "%3A"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_horizon_that_would_jump_stands_until_somebody_says_so() {
    let setup = Setup::new();
    let (log, lite) = (setup.path("log"), setup.path("lite.db"));
    let mut counts = Counts::default();
    std::fs::create_dir_all(log.join("seen")).unwrap();
    let append = |value: String| {
        let path = log.join("seen/0.ndjson");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, r#"{{"key":"k","value":{value}}}"#).unwrap();
    };
    (0..500).for_each(|_| append(counts.event()));
    setup.config(&[
        file_source(&log),
        projection("seen"),
        sqlite_sink(&lite),
        connector("lite", "seen", "file", "seen", ""),
    ]);
    let daemon = setup.start().await;
    daemon.idle("lite", 1).await;
    daemon.stop().await;
    // As if it had been stopped for three days.
    let shell = rusqlite::Connection::open(&lite).unwrap();
    let back = "update _foldline_horizons set horizon = horizon - 3 * 86400000";
    assert_eq!(shell.execute(back, []).unwrap(), 1);
    let old = now() - 2 * 86_400_000;
    let row = "insert into seen (id, second, n) values ('old', strftime('%Y-%m-%dT%H:%M:%f', ?1 / 1000.0, 'unixepoch') || '000Z', 7)";
    assert_eq!(shell.execute(row, [old.div_euclid(1_000) * 1_000]).unwrap(), 1);
    drop(shell);
    let daemon = setup.start().await;
    daemon.idle("lite", 1).await;
    let error = wait::until("the status says why", LATER, async || {
        let status = daemon.status("lite").await;
        let error = status["last_error"].as_str().map(str::to_owned);
        error.ok_or(status.to_string())
    })
    .await;
    assert!(error.contains("no row expires") && error.contains("--expiry"), "{error}");
    let status: Value = daemon.status("lite").await;
    assert_eq!(status["expiry"]["paused"], error, "{status}");
    assert_eq!(status["connector"]["state"], "RUNNING", "events are folded all the same");
    assert!(rows("lite", "seen", &lite).await.contains_key("old"), "nothing goes");
    let printed = daemon.cli(&["resume", "lite", "--expiry"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    wait::until("rows expire again", SOON, async || {
        let rows = rows("lite", "seen", &lite).await;
        if rows.contains_key("old") { Err("it is still there".to_owned()) } else { Ok(()) }
    })
    .await;
    assert_exact(&daemon, "lite", &counts, ("seen", &lite)).await;
    assert_eq!(daemon.status("lite").await["last_error"], Value::Null);
    let printed = daemon.cli(&["resume", "nobody", "--expiry"]);
    assert_eq!(printed.code, Some(1), "{printed:?}");
    daemon.stop().await;
}
