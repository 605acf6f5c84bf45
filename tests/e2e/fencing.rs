//! A worker that was frozen past its session and wakes: it must not write what is not its any more.

use std::path::Path;
use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Background};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, file_source, kafka_source, orders_projection,
    postgres_sink, sqlite_sink, users_projection,
};
use crate::support::stores::{ORDERS, USERS, elasticsearch_rows, postgres_rows, sqlite_rows};
use crate::support::{log, use_servers};

const NAMES: [&str; 5] = ["orders", "docs", "embedded", "users", "user-docs"];

async fn assigned(daemon: &Daemon, partitions: u64) {
    for name in NAMES {
        daemon.metric(name, "assigned_partitions", |assigned| assigned == partitions).await;
    }
}

/// Freezes a worker while it does not hold SQLite's lock: nobody could take that from it, as all are of one host.
fn freeze_outside_of_a_transaction(worker: &Daemon, database: &Path) {
    for _ in 0..1_000 {
        worker.freeze();
        let file = rusqlite::Connection::open(database).unwrap();
        file.busy_timeout(Duration::from_millis(500)).unwrap();
        if file.execute_batch("begin immediate; rollback").is_ok() {
            return;
        }
        worker.thaw();
    }
    panic!("the worker held SQLite's lock each time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_frozen_past_its_session_is_fenced_and_gives_its_partitions_up() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table, users) = (setup.name("orders"), setup.name("orders"), setup.name("users"));
    let database = setup.path("orders.db");
    kafka::create(&topic, PARTITIONS).await;
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "", ""),
        users_projection(&topic),
        postgres_sink(),
        elasticsearch_sink(),
        sqlite_sink(&database),
        connector("orders", "orders", "warehouse", &table, ""),
        connector("docs", "orders", "search", &table, ""),
        connector("embedded", "orders", "file", "orders", ""),
        connector("users", "users", "warehouse", &users, ""),
        connector("user-docs", "users", "search", &users, ""),
    ]);
    let load = Background::start(&topic, Orders { seed: 5, orders: 2_000, users: 40 }, 0);
    let zombie = setup.start().await;
    assigned(&zombie, PARTITIONS as u64).await;
    let heir = setup.start().await;
    assigned(&zombie, 2).await;
    assigned(&heir, 2).await;
    freeze_outside_of_a_transaction(&zombie, &database);
    assigned(&heir, PARTITIONS as u64).await;
    // The heir writes where the zombie left off.
    let before = heir.metrics().await;
    for name in NAMES {
        let done = before.of(name, "records_consumed_total");
        heir.metric(name, "records_consumed_total", |consumed| consumed > done + 100).await;
    }
    zombie.thaw();
    // It hears of its loss and counts it, joins again, and both share the partitions as before.
    for name in NAMES {
        zombie.metric(name, "fenced_total", |fenced| fenced > 0).await;
    }
    assigned(&heir, 2).await;
    assigned(&zombie, 2).await;
    load.stop();
    for name in NAMES {
        heir.caught_up(name, &topic).await;
        for worker in [&zombie, &heir] {
            let scrape = worker.idle(name, 2).await;
            scrape.assert_balanced(name);
            assert_eq!(scrape.of(name, "events_dead_lettered_total"), 0, "{name}");
        }
    }
    let oracle = Oracle::of_topic(&topic);
    assert_same("PostgreSQL", &oracle.orders(), &postgres_rows(&table, ORDERS).await);
    assert_same("Elasticsearch", &oracle.orders(), &elasticsearch_rows(&table, ORDERS).await);
    assert_same("users", &oracle.users(), &postgres_rows(&users, USERS).await);
    assert_same("user documents", &oracle.users(), &elasticsearch_rows(&users, USERS).await);
    zombie.stop().await;
    heir.stop().await;
    assert_same("SQLite", &oracle.orders(), &sqlite_rows(&database, "orders", ORDERS));
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_log_belongs_to_one_worker_even_while_it_is_frozen() {
    const EVENTS: u64 = 2_000;
    let setup = Setup::new();
    let orders = Orders::new(200);
    let (logs, database) = (setup.path("log"), setup.path("orders.db"));
    log::append(&logs, "orders", orders.events(0..EVENTS));
    setup.config(&[
        file_source(&logs),
        orders_projection("orders", "", ""),
        sqlite_sink(&database),
        connector("orders", "orders", "file", "orders", ""),
    ]);
    let first = setup.start().await;
    first.idle("orders", PARTITIONS as u64).await;
    freeze_outside_of_a_transaction(&first, &database);
    let second = setup.start().await;
    let why = second.failure("orders").await;
    assert!(why.contains("belongs to another worker"), "{why}");
    assert_eq!(second.metrics().await.of("orders", "assigned_partitions"), 0);
    log::append(&logs, "orders", orders.events(EVENTS..EVENTS * 2));
    first.thaw();
    first.metric("orders", "records_consumed_total", |consumed| consumed == EVENTS * 2).await;
    first.stop().await;
    // Now it may be the second's.
    let printed = second.cli(&["restart", "orders"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    second.metric("orders", "assigned_partitions", |assigned| assigned == PARTITIONS as u64).await;
    log::append(&logs, "orders", orders.events(EVENTS * 2..EVENTS * 3));
    second.metric("orders", "records_consumed_total", |consumed| consumed == EVENTS).await;
    second.stop().await;
    let mut oracle = Oracle::default();
    for event in orders.events(0..EVENTS * 3) {
        oracle.fold(event.value.as_bytes(), event.timestamp);
    }
    assert_same("SQLite", &oracle.orders(), &sqlite_rows(&database, "orders", ORDERS));
}
