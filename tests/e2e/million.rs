//! Partial updates in number, with kills in the middle: the tables are the plain fold of the log.

use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{Case, Setup, connector, file_source, orders_projection, sqlite_sink};
use crate::support::stores::{ORDERS, elasticsearch_rows, postgres_rows, sqlite_rows};
use crate::support::{log, use_servers};

/// `worker.memory` bounds what connectors hold; the rest is the program and what allocators keep.
const MEMORY_MIB: u64 = 128 + 128;

fn events() -> u64 {
    let given = std::env::var("FOLDLINE_E2E_EVENTS").unwrap_or("1000000".to_owned());
    given.parse().expect("FOLDLINE_E2E_EVENTS is a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_updates_end_as_the_plain_fold_in_postgres_and_elasticsearch_through_two_kills() {
    let _servers = use_servers().await;
    let count = events();
    let case = Case::new(Orders::new(count / 10), count).await;
    case.config_of_both();
    let Case { setup, topic, table } = case;

    for percent in [20, 10] {
        let daemon = setup.start().await;
        let part = |done: u64| done >= count / 100 * percent;
        tokio::select! {
            _ = daemon.metric("orders", "records_consumed_total", part) => {}
            _ = daemon.metric("docs", "records_consumed_total", part) => {}
        }
        daemon.kill9();
    }

    let daemon = setup.start().await;
    daemon.caught_up("orders", &topic).await;
    daemon.caught_up("docs", &topic).await;
    let oracle = Oracle::of_topic(&topic);
    assert_eq!(oracle.events, count);
    let mut left = 0;
    for name in ["orders", "docs"] {
        let scrape = daemon.idle(name, PARTITIONS as u64).await;
        left += scrape.of(name, "records_consumed_total");
        scrape.assert_balanced(name);
        assert_eq!(scrape.of(name, "events_dead_lettered_total"), 0);
        assert_eq!(scrape.of(name, "events_filtered_total"), 0);
    }
    assert!(left > 0, "the last kill was in the middle");
    let peak = daemon.peak_memory() >> 20;
    println!("two connectors that caught up held {peak} MiB at most");
    assert!(peak < MEMORY_MIB, "{peak} MiB");
    let expected = oracle.orders();
    assert_same("PostgreSQL", &expected, &postgres_rows(&table, ORDERS).await);
    assert_same("Elasticsearch", &expected, &elasticsearch_rows(&table, ORDERS).await);
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_updates_of_a_file_log_end_as_the_plain_fold_in_sqlite_through_two_kills() {
    let setup = Setup::new();
    let count = events();
    let orders = Orders::new(count / 10);
    let (logs, database) = (setup.path("log"), setup.path("orders.db"));
    log::append(&logs, "orders", orders.events(0..count));
    setup.config(&[
        file_source(&logs),
        orders_projection("orders", "", ""),
        sqlite_sink(&database),
        connector("orders", "orders", "file", "orders", ""),
    ]);

    for percent in [20, 30] {
        let daemon = setup.start().await;
        let part = |done: u64| done >= count / 100 * percent;
        daemon.metric("orders", "records_consumed_total", part).await;
        daemon.kill9();
    }

    let daemon = setup.start().await;
    let scrape = daemon.idle("orders", PARTITIONS as u64).await;
    scrape.assert_balanced("orders");
    let left = scrape.of("orders", "records_consumed_total");
    assert!(left > 0 && left < count, "the last start went on where the kill was: {left}");
    daemon.stop().await;

    let mut oracle = Oracle::default();
    for event in orders.events(0..count) {
        oracle.fold(event.value.as_bytes(), event.timestamp);
    }
    assert_same("SQLite", &oracle.orders(), &sqlite_rows(&database, "orders", ORDERS));
}
