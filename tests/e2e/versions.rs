//! What each version of a server must do, told shortly: a fold through a kill, a parked key, a verification and a rebuild ends
//! as the plain fold; a server that is too old is turned away by name. `tests/matrix` runs them, each where nothing but the
//! server in question can be reached: stores are fed from a file log, and Kafka feeds SQLite.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use foldline_api::failpoint::{self, Failpoint};
use foldline_testkit::Rng;
use serde_json::{Value, json};

use crate::support::daemon::{ABORTED, Daemon};
use crate::support::oracle::{Rows, assert_same};
use crate::support::orders::{Event, PARTITIONS};
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, file_source, kafka_source, postgres_sink, sqlite_sink,
};
use crate::support::stores::{
    Columns, Kind, elasticsearch, elasticsearch_rows, postgres_rows, query, sqlite_rows,
};
use crate::support::{kafka, log, wait};

const TOPIC: &str = "carts";
const CARTS: Columns = &[
    ("id", Kind::Plain),
    ("ref", Kind::Plain),
    ("total", Kind::Decimal),
    ("changes", Kind::Plain),
    ("tags", Kind::Json),
    ("lines", Kind::Json),
    ("note", Kind::Json),
    ("seen_at", Kind::Time),
];
const PROJECTION: &str = r#"[projections.carts]
topics = ["TOPIC"]
event_type = "event.type"
key = { id = "event.id" }
[projections.carts.fields]
id = "bigint"
ref = "uuid"
total = { type = "numeric(14,2)", default = 0 }
changes = { type = "bigint", default = 0 }
tags = "text[]"
lines = { type = "children", by = "line", fields = { line = "integer", sku = "text", qty = { type = "integer", default = 0 } } }
note = "jsonb"
seen_at = "timestamptz"
[[projections.carts.on]]
event = "Gone"
delete = true
[[projections.carts.on]]
add = { changes = 1 }
set = { seen_at = "timestamp" }
continue = true
[[projections.carts.on]]
event = "Paid"
set = { ref = "event.ref" }
add = { total = "event.price" }
[[projections.carts.on]]
event = "Tagged"
append = { tags = "event.tag" }
[[projections.carts.on]]
event = "Untagged"
remove = { tags = "event.tag" }
[[projections.carts.on]]
event = "LinePut"
put = { lines = { line = "event.line", sku = "event.sku", qty = "child.qty + event.qty" } }
[[projections.carts.on]]
event = "LineTaken"
take = { lines = "event.line" }
[[projections.carts.on]]
event = "Noted"
set = { note = "event.note" }
"#;

/// How many carts there are; each of their events is good.
const CARTS_COUNT: u64 = 300;
/// A cart with one bad event, from which on it is parked.
const PARKED: u64 = 1_000;
const EVENTS: u64 = 4_000;

/// One event of a cart.
enum What {
    Paid { reference: String, cents: i64 },
    Tagged(String),
    Untagged(String),
    LinePut { line: u64, sku: String, qty: u64 },
    LineTaken(u64),
    Noted(Value),
    Gone,
    Bad,
}

struct Change {
    id: u64,
    timestamp: i64,
    what: What,
}

impl Change {
    /// The same for each index.
    fn at(index: u64) -> Self {
        let mut rng = Rng::new(index);
        let id = rng.below(CARTS_COUNT) + 1;
        let (tag, line) = (format!("t{}", rng.below(5)), rng.below(4));
        let what = match rng.below(20) {
            0..6 => What::Paid {
                reference: format!("{index:08x}-0000-4000-8000-{id:012x}"),
                cents: rng.below(2_000_000) as i64 - 500_000,
            },
            6..9 => What::Tagged(tag),
            9..11 => What::Untagged(tag),
            11..15 => What::LinePut { line, sku: format!("s{}", rng.below(9)), qty: rng.below(9) },
            15..17 => What::LineTaken(line),
            17..19 => What::Noted(json!({ "b": [null, tag, index], "a": { "ü\"": true } })),
            _ => What::Gone,
        };
        Change { id, timestamp: 1_700_000_000_000 + index as i64, what }
    }

    fn of_parked(index: u64, what: What) -> Self {
        Change { id: PARKED, timestamp: 1_700_000_000_000 + index as i64, what }
    }

    fn event(&self) -> Event {
        let (name, mut value) = match &self.what {
            What::Paid { reference, cents } => {
                let price = format!("{}{}", if *cents < 0 { "-" } else { "" }, euros(cents.abs()));
                ("Paid", json!({ "ref": reference, "price": price }))
            }
            What::Tagged(tag) => ("Tagged", json!({ "tag": tag })),
            What::Untagged(tag) => ("Untagged", json!({ "tag": tag })),
            What::LinePut { line, sku, qty } => {
                ("LinePut", json!({ "line": line, "sku": sku, "qty": qty }))
            }
            What::LineTaken(line) => ("LineTaken", json!({ "line": line })),
            What::Noted(note) => ("Noted", json!({ "note": note })),
            What::Gone => ("Gone", json!({})),
            What::Bad => ("Paid", json!({ "ref": "no uuid", "price": "1" })),
        };
        value["type"] = name.into();
        value["id"] = self.id.into();
        Event {
            partition: (self.id % PARTITIONS as u64) as i32,
            key: self.id.to_string(),
            timestamp: self.timestamp,
            // A number, as a producer writes it, where the price is.
            value: unquoted(&value.to_string()),
        }
    }
}

fn euros(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// The text of an event whose price is a number.
fn unquoted(text: &str) -> String {
    let Some((before, price)) = text.split_once("\"price\":\"") else { return text.to_owned() };
    let (price, after) = price.split_once('"').unwrap();
    format!("{before}\"price\":{price}{after}")
}

/// What becomes of the parked cart's bad event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bad {
    /// It waits, with all of its cart behind it.
    Waits,
    /// It was left out, and what waited behind it is folded.
    Dropped,
}

#[derive(Default)]
struct Cart {
    reference: Option<String>,
    cents: i64,
    changes: i64,
    tags: Option<Vec<String>>,
    lines: Option<BTreeMap<u64, (String, u64)>>,
    note: Option<Value>,
    seen_at: i64,
}

impl Cart {
    fn fold(&mut self, change: &Change) {
        self.changes += 1;
        self.seen_at = change.timestamp;
        match &change.what {
            What::Paid { reference, cents } => {
                self.reference = Some(reference.clone());
                self.cents += cents;
            }
            What::Tagged(tag) => self.tags.get_or_insert_default().push(tag.clone()),
            What::Untagged(tag) => {
                if let Some(tags) = &mut self.tags {
                    tags.retain(|other| other != tag);
                }
            }
            What::LinePut { line, sku, qty } => {
                let line = self.lines.get_or_insert_default().entry(*line).or_default();
                *line = (sku.clone(), line.1 + qty);
            }
            What::LineTaken(line) => {
                if let Some(lines) = &mut self.lines {
                    lines.remove(line);
                }
            }
            What::Noted(note) => self.note = Some(note.clone()),
            What::Gone | What::Bad => {}
        }
    }

    fn row(&self, id: u64) -> Vec<Option<String>> {
        let lines = self.lines.as_ref().map(|lines| {
            let line = |(line, (sku, qty)): (&u64, &(String, u64))| {
                json!({ "line": line, "qty": qty, "sku": sku })
            };
            Value::Array(lines.iter().map(line).collect())
        });
        let sign = if self.cents < 0 { "-" } else { "" };
        let texts = vec![
            Some(id.to_string()),
            self.reference.clone(),
            Some(format!("{sign}{}", euros(self.cents.abs()))),
            Some(self.changes.to_string()),
            self.tags.as_ref().map(|tags| json!(tags).to_string()),
            lines.map(|lines| lines.to_string()),
            self.note.as_ref().map(Value::to_string),
            Some(self.seen_at.to_string()),
        ];
        let canonical = texts.into_iter().zip(CARTS);
        canonical.map(|(text, (_, kind))| text.map(|text| kind.canonical(text))).collect()
    }
}

/// The plain fold, event by event, that shares no code with Foldline.
fn plain(changes: &[Change], bad: Bad) -> Rows {
    let mut carts: BTreeMap<u64, Cart> = BTreeMap::new();
    let mut waits = false;
    for change in changes {
        match change.what {
            What::Bad => waits = bad == Bad::Waits,
            _ if waits && change.id == PARKED => {}
            What::Gone => {
                carts.remove(&change.id);
            }
            _ => carts.entry(change.id).or_default().fold(change),
        }
    }
    carts.iter().map(|(id, cart)| (id.to_string(), cart.row(*id))).collect()
}

/// Where the carts are folded to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Postgres,
    Elasticsearch,
    Sqlite,
}

/// One fold: its log, and where it goes.
struct Fold {
    setup: Setup,
    topic: String,
    /// The table's name and the index's.
    table: String,
    store: Store,
    /// Whether Kafka has the log.
    kafka: bool,
    changes: Vec<Change>,
}

impl Fold {
    async fn new(store: Store, source: Option<String>) -> Self {
        let setup = Setup::new();
        let kafka = source.is_some();
        let topic = if kafka { setup.name(TOPIC) } else { TOPIC.to_owned() };
        if kafka {
            kafka::create(&topic, PARTITIONS).await;
        }
        let (sink, name) = match store {
            Store::Postgres => (postgres_sink(), "warehouse"),
            Store::Elasticsearch => (elasticsearch_sink(), "search"),
            Store::Sqlite => (sqlite_sink(&setup.path("carts.db")), "file"),
        };
        let table = setup.name("carts");
        let more = "batch = { rows = 50, age = \"20ms\" }\nerrors = { on_bad_record = \"park\" }";
        setup.config(&[
            source.unwrap_or_else(|| file_source(&setup.path("log"))),
            PROJECTION.replace("TOPIC", &topic),
            sink,
            connector("carts", "carts", name, &table, more),
        ]);
        Fold { setup, topic, table, store, kafka, changes: Vec::new() }
    }

    fn append(&mut self, changes: impl IntoIterator<Item = Change>) {
        let from = self.changes.len();
        self.changes.extend(changes);
        let events = self.changes[from..].iter().map(Change::event);
        if self.kafka {
            kafka::produce(&self.topic, events);
        } else {
            log::append(&self.setup.path("log"), &self.topic, events);
        }
    }

    async fn rows(&self) -> Rows {
        match self.store {
            Store::Postgres => postgres_rows(&self.table, CARTS).await,
            Store::Elasticsearch => elasticsearch_rows(&self.table, CARTS).await,
            Store::Sqlite => sqlite_rows(&self.setup.path("carts.db"), &self.table, CARTS),
        }
    }

    /// Waits until the rows are the plain fold, and has `verify` say the same.
    async fn assert_exact(&self, daemon: &Daemon, bad: Bad) {
        daemon.idle("carts", PARTITIONS as u64).await;
        let expected = plain(&self.changes, bad);
        let end = tokio::time::Instant::now() + wait::SOON;
        // Idle is what the worker was when it looked: what was appended since comes.
        while self.rows().await != expected && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_same("carts", &expected, &self.rows().await);
        daemon.idle("carts", PARTITIONS as u64).await.assert_balanced("carts");
        let printed = daemon.cli(&["verify", "carts", "--json"]);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        let summary: Value = serde_json::from_str(printed.out.lines().last().unwrap()).unwrap();
        assert_eq!(summary["summary"]["rows"], expected.len(), "{printed:?}");
    }

    /// Lets a worker die between the rows and the positions of its second flush: some of the log is durable, and some of
    /// what is written will be folded again.
    async fn killed(&mut self) {
        self.append((0..EVENTS / 2).map(Change::at));
        let armed = format!("{}:2", Failpoint::BeforePositions);
        let mut daemon = self.setup.spawn_with(&[(failpoint::VARIABLE, &armed)]);
        let ended = wait::until("the worker dies", wait::SOON, async || {
            daemon.ended().map(|status| status.signal()).ok_or("it lives".to_owned())
        });
        assert_eq!(ended.await, Some(ABORTED));
        self.append((EVENTS / 2..EVENTS).map(Change::at));
    }

    /// Tries the parked cart again, then leaves its bad event out.
    fn free(&self, daemon: &Daemon) {
        let listed = daemon.cli(&["parked", "list", "carts", "--json"]);
        let listed: Value = serde_json::from_str(&listed.out).unwrap();
        let parked = &listed["parked"];
        assert_eq!((parked.as_array().unwrap().len(), &parked[0]["events"]), (1, &json!(3)));
        let id = parked[0]["id"].as_str().unwrap();
        let retried = daemon.cli(&["parked", "retry", "carts", id]);
        assert!(retried.code == Some(1) && retried.err.contains("stays parked"), "{retried:?}");
        let dropped = daemon.cli(&["parked", "drop", "carts", id, "--bad"]);
        assert!(dropped.code == Some(0) && dropped.out.contains("freed"), "{dropped:?}");
    }

    async fn run(mut self) {
        self.killed().await;
        let daemon = self.setup.start().await;
        self.append(
            [
                What::Tagged("a".to_owned()),
                What::Bad,
                What::Tagged("b".to_owned()),
                What::LinePut { line: 1, sku: "s".to_owned(), qty: 2 },
            ]
            .map(|what| Change::of_parked(EVENTS, what)),
        );
        daemon.metric("carts", "events_parked_total", |events| events == 3).await;
        self.assert_exact(&daemon, Bad::Waits).await;
        let again = daemon.metrics().await.of("carts", "records_consumed_total");
        assert!(again > EVENTS / 2 + 4, "the worker died at the log's end");
        self.free(&daemon);
        self.assert_exact(&daemon, Bad::Dropped).await;
        let rebuilt = daemon.cli(&["rebuild", "carts", "--wait"]);
        assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
        daemon.metric("carts", "generation", |generation| generation == 2).await;
        self.append((EVENTS + 1..EVENTS + 500).map(Change::at));
        self.assert_exact(&daemon, Bad::Dropped).await;
        daemon.stop().await;
    }

    /// Why a store that is too old is turned away.
    async fn turned_away(&self) -> String {
        let daemon = self.setup.start().await;
        let why = daemon.failure("carts").await;
        daemon.stop().await;
        why
    }
}

/// Sessions end soon after their member.
fn classic() -> String {
    kafka_source()
        .replace("\"session.timeout.ms\" = 6000", "\"session.timeout.ms\" = 2000")
        .replace("\"heartbeat.interval.ms\" = 1000", "\"heartbeat.interval.ms\" = 300")
}

/// The broker decides on timeouts there.
fn consumer() -> String {
    let lines = kafka_source();
    let kept =
        lines.lines().filter(|line| !line.contains("session") && !line.contains("heartbeat"));
    kept.collect::<Vec<_>>().join("\n").replace(
        "\n[sources.events.properties]",
        "\ngroup_protocol = \"consumer\"\n[sources.events.properties]",
    ) + "\n"
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/matrix runs it on each version"]
async fn a_short_fold_into_postgres() {
    Fold::new(Store::Postgres, None).await.run().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/matrix runs it on each version"]
async fn a_short_fold_into_elasticsearch() {
    Fold::new(Store::Elasticsearch, None).await.run().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/matrix runs it on each version"]
async fn a_short_fold_by_the_classic_protocol() {
    Fold::new(Store::Sqlite, Some(classic())).await.run().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/matrix runs it on each version"]
async fn a_short_fold_by_the_consumer_protocol() {
    Fold::new(Store::Sqlite, Some(consumer())).await.run().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/matrix runs it where the version is too old"]
async fn a_postgres_that_is_too_old_is_named_and_nothing_is_made_there() {
    let mut fold = Fold::new(Store::Postgres, None).await;
    fold.append([Change::at(0)]);
    let version = query("show server_version").await[0][0].clone().unwrap();
    let why = fold.turned_away().await;
    let says = format!("PostgreSQL {version} is too old: Foldline needs PostgreSQL 13");
    assert!(why.contains(&says), "{why}");
    let made = query(&format!(
        "select nspname::text from pg_namespace where nspname = 'foldline' union all select relname from pg_class where \
         relname like '{}%'",
        fold.table
    ))
    .await;
    assert_eq!(made, [] as [Vec<Option<String>>; 0]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/matrix runs it where the version is too old"]
async fn an_elasticsearch_that_is_too_old_is_named_and_nothing_is_made_there() {
    let mut fold = Fold::new(Store::Elasticsearch, None).await;
    fold.append([Change::at(0)]);
    let (_, main) = elasticsearch("GET", "", None).await;
    let version = main["version"]["number"].as_str().unwrap();
    let why = fold.turned_away().await;
    assert!(why.contains(&format!("{version} is too old: Foldline needs")), "{why}");
    let all = "_cat/indices?format=json&h=index&expand_wildcards=all";
    let (status, made) = elasticsearch("GET", all, None).await;
    assert_eq!((status, made), (200, json!([])));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/matrix runs it where the version is too old"]
async fn a_kafka_that_is_too_old_for_the_consumer_protocol_is_named() {
    let mut fold = Fold::new(Store::Sqlite, Some(consumer())).await;
    fold.append([Change::at(0)]);
    let why = fold.turned_away().await;
    for part in ["ConsumerGroupHeartbeat", "Kafka 4.0", "group_protocol = \"classic\""] {
        assert!(why.contains(part), "no {part} in {why}");
    }
}
