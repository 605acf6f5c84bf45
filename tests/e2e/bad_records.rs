//! Bad records: counted, set aside with the reason, and in nobody's way.

use crate::support::kafka::{self, Owned, Raw};
use crate::support::orders::PARTITIONS;
use crate::support::scrape::Scrape;
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, kafka_source, orders_projection, postgres_sink,
};
use crate::support::stores::{Columns, Kind, elasticsearch_rows, postgres_rows, query};
use crate::support::use_servers;

const COLUMNS: Columns = &[("id", Kind::Plain), ("amount", Kind::Plain), ("note", Kind::Plain)];
const FIVE_MB: usize = 5_000_000;

/// Bad records with what the dead letter's message must say, and the stage.
fn bad() -> Vec<(Raw, &'static str, &'static [&'static str])> {
    let raw = |key: &str, value: &str| Raw::value(1, key, value);
    let large = format!("{{\"id\":108,\"amount\":\"many\",\"blob\":\"{}\"}}", "x".repeat(FIVE_MB));
    let converter = "VALUE_CONVERTER";
    let numbers = vec!["1e16383"; 125_000].join(",");
    let expanding = format!("{{\"id\":112,\"amount\":[{numbers}]}}");
    vec![
        (raw("101", "{\"id\":101,"), converter, &["JSON"]),
        (raw("102", "no json at all"), converter, &["JSON"]),
        (raw("103", "{\"id\":103,\"amount\":\"many\"}"), "", &["amount", "bigint"]),
        (raw("104", "{\"id\":104,\"amount\":9223372036854775808}"), "", &["amount", "bigint"]),
        (raw("105", "{\"id\":105,\"price\":12345678901.5}"), "", &["price", "numeric"]),
        (raw("106", "{\"id\":106,\"note\":\"a\\u0000b\"}"), "", &["note"]),
        (raw("107", "{\"amount\":1}"), "", &["id"]),
        (raw("108", &large), "", &["amount", "bigint"]),
        (raw("109", "{\"id\":109,\"amount\":{\"a\":1}}"), "", &["amount", "bigint"]),
        (raw("110", "{\"id\":\"seven\",\"amount\":1}"), "", &["id", "bigint"]),
        (raw("111", "[{\"id\":111,\"amount\":1}]"), "", &["list", "object"]),
        (raw("112", &expanding), converter, &["1,000,000 steps"]),
    ]
}

fn good(partition: i32, id: u32, amount: u32) -> Raw {
    let mut raw = Raw::value(
        partition,
        &id.to_string(),
        format!("{{\"id\":{id},\"amount\":{amount},\"note\":\"n\"}}"),
    );
    raw.headers = vec![("trace".to_owned(), format!("t{id}"))];
    raw
}

/// Good records before, between and after the bad ones, all in their partition and beside it.
fn log() -> Vec<Raw> {
    let mut log = vec![good(1, 1, 10), good(0, 2, 20)];
    for (number, (raw, ..)) in bad().into_iter().enumerate() {
        log.push(raw);
        // The same key again and again: a counter would show a record folded twice or not at all.
        log.push(good(1, 1, 100 + number as u32));
    }
    log.extend([good(1, 3, 30), good(2, 4, 40), good(1, 101, 50)]);
    log
}

fn config(setup: &Setup, topic: &str, errors: &str) {
    let table = setup.name("orders");
    setup.config(&[
        kafka_source(),
        orders_projection(topic, "note = \"text\"", ", note = \"event.note\""),
        postgres_sink(),
        elasticsearch_sink(),
        connector("orders", "orders", "warehouse", &table, errors),
        connector("docs", "orders", "search", &table, errors),
    ]);
}

fn assert_counts(scrape: &Scrape, connector: &str, name: &str) {
    let bad = bad().len() as u64;
    scrape.assert_balanced(connector);
    assert_eq!(scrape.of(connector, name), bad, "{name} of {connector}");
    assert_eq!(scrape.of(connector, "events_applied_total"), log().len() as u64 - bad);
}

async fn assert_rows(setup: &Setup) {
    let table = setup.name("orders");
    let row = |id: &str, amount: &str| {
        vec![Some(id.to_owned()), Some(amount.to_owned()), Some("n".to_owned())]
    };
    let last = (100 + bad().len() - 1).to_string();
    let expected =
        [row("1", &last), row("101", "50"), row("2", "20"), row("3", "30"), row("4", "40")];
    for rows in [postgres_rows(&table, COLUMNS).await, elasticsearch_rows(&table, COLUMNS).await] {
        assert_eq!(rows.into_values().collect::<Vec<_>>(), expected);
    }
}

fn assert_letter(letter: &Owned, raw: &Raw, topic: &str, stage: &str, words: &[&str]) {
    let header = |name: &str| {
        let found = letter.header(&format!("__connect.errors.{name}"));
        found.unwrap_or_else(|| panic!("no header {name}: {:?}", letter.headers))
    };
    assert_eq!(header("topic"), topic);
    assert_eq!(header("partition"), "1");
    assert!(header("offset").parse::<u64>().is_ok());
    assert!(stage.is_empty() || header("stage") == stage, "{:?}", letter.headers);
    let message = header("exception.message");
    assert!(words.iter().all(|word| message.contains(word)), "{message:?} does not name {words:?}");
    let text = String::from_utf8_lossy(raw.value.as_deref().unwrap_or_default());
    assert!(!message.contains("many") && !message.contains(&*text), "no payload in {message:?}");
    assert_eq!(letter.key, raw.key);
    assert!(letter.value == raw.value, "the value is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_bad_record_is_set_aside_with_its_reason_and_no_other_key_waits() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let topic = setup.name("orders");
    kafka::create(&topic, PARTITIONS).await;
    kafka::produce_raw(&topic, &log());
    config(&setup, &topic, "");
    let daemon = setup.start().await;
    for name in ["orders", "docs"] {
        daemon.caught_up(name, &topic).await;
        let scrape = daemon.idle(name, PARTITIONS as u64).await;
        assert_counts(&scrape, name, "events_dead_lettered_total");
        let letters = kafka::read_back(&format!("dlq-{}", setup.group(name)));
        assert_eq!(letters.len(), bad().len());
        for (raw, stage, words) in bad() {
            let letter = letters.iter().find(|letter| letter.key == raw.key);
            let letter = letter.unwrap_or_else(|| panic!("no letter for {:?}", raw.key));
            assert_letter(letter, &raw, &topic, stage, words);
        }
    }
    assert_rows(&setup).await;
    daemon.stop().await;
    assert!(!setup.log().contains("many"), "no payload in the log");
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_are_skipped_and_counted_where_the_config_says_so() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let topic = setup.name("orders");
    kafka::create(&topic, PARTITIONS).await;
    kafka::produce_raw(&topic, &log());
    config(&setup, &topic, "errors = { on_bad_record = \"skip\" }");
    let daemon = setup.start().await;
    for name in ["orders", "docs"] {
        daemon.caught_up(name, &topic).await;
        let scrape = daemon.idle(name, PARTITIONS as u64).await;
        assert_counts(&scrape, name, "events_skipped_total");
        let dead_letters = format!("dlq-{}", setup.group(name));
        assert!(kafka::read_back(&dead_letters).is_empty());
    }
    assert_rows(&setup).await;
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_stops_the_connector_before_it_where_the_config_says_so() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    kafka::produce_raw(&topic, &[good(1, 1, 10), Raw::value(1, "2", "{\"id\":2,"), good(1, 3, 30)]);
    let errors = "errors = { on_bad_record = \"stop\" }";
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "note = \"text\"", ", note = \"event.note\""),
        postgres_sink(),
        connector("orders", "orders", "warehouse", &table, errors),
    ]);
    // A second start stops at the same record.
    for _ in 0..2 {
        let daemon = setup.start().await;
        let why = daemon.failure("orders").await;
        assert!(why.contains(&topic) && why.contains("JSON"), "{why}");
        assert!(!daemon.metrics().await.of("orders", "records_fetched_total") > 0);
        daemon.stop().await;
        let rows = postgres_rows(&table, COLUMNS).await;
        assert_eq!(
            rows.keys().collect::<Vec<_>>(),
            ["1"],
            "what came before is durable, what follows waits"
        );
        assert_eq!(kafka::committed(&setup.group("orders"), &topic, 4).unwrap()[1], 1);
    }
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_event_is_folded() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let topic = setup.name("orders");
    kafka::create(&topic, PARTITIONS).await;
    let blob = "x".repeat(FIVE_MB);
    let large = format!("{{\"id\":1,\"blob\":\"{blob}\",\"amount\":7,\"note\":\"n\"}}");
    kafka::produce_raw(&topic, &[Raw::value(1, "1", large), good(1, 2, 20)]);
    config(&setup, &topic, "");
    let daemon = setup.start().await;
    let table = setup.name("orders");
    for name in ["orders", "docs"] {
        daemon.caught_up(name, &topic).await;
        assert_eq!(daemon.idle(name, PARTITIONS as u64).await.of(name, "events_applied_total"), 2);
    }
    assert_eq!(postgres_rows(&table, COLUMNS).await.len(), 2);
    assert_eq!(elasticsearch_rows(&table, COLUMNS).await.len(), 2);
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_that_the_store_refuses_only_the_records_to_blame_are_set_aside() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    kafka::produce_raw(&topic, &[good(1, 1, 1)]);
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "note = \"text\"", ", note = \"event.note\""),
        postgres_sink(),
        connector("orders", "orders", "warehouse", &table, "batch = { age = \"500ms\" }"),
    ]);
    let daemon = setup.start().await;
    daemon.caught_up("orders", &topic).await;
    query(&format!("alter table {table} add constraint small check (amount < 1000)")).await;
    // One batch, with two records that only the store can know to be bad.
    let log: Vec<Raw> = (2..1_002)
        .map(|id| good(1, id, if id == 300 || id == 301 { 5_000 } else { id % 100 }))
        .collect();
    kafka::produce_raw(&topic, &log);
    daemon.caught_up("orders", &topic).await;
    let scrape = daemon.idle("orders", PARTITIONS as u64).await;
    scrape.assert_balanced("orders");
    assert_eq!(scrape.of("orders", "events_applied_total"), 1_001 - 2);
    let letters = kafka::read_back(&format!("dlq-{}", setup.group("orders")));
    let mut blamed: Vec<&[u8]> = letters.iter().filter_map(|l| l.key.as_deref()).collect();
    blamed.sort_unstable();
    assert_eq!(blamed, [b"300", b"301"]);
    for letter in &letters {
        let why = letter.header("__connect.errors.exception.message").unwrap_or_default();
        assert!(why.contains("small"), "the store's reason: {why}");
    }
    assert_eq!(postgres_rows(&table, COLUMNS).await.len(), 999);
    daemon.stop().await;
    setup.clean().await;
}
