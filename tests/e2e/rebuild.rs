//! `foldline rebuild --in-place` while events keep coming.

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Background};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, kafka_source, orders_projection, postgres_sink,
};
use crate::support::stores::{ORDERS, elasticsearch_rows, postgres_rows, query};
use crate::support::use_servers;

fn rebuild(daemon: &Daemon, connector: &str) {
    let printed = daemon.cli(&["rebuild", connector, "--in-place"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_in_place_under_live_events_ends_as_the_plain_fold() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    let orders = Orders::new(2_000);
    kafka::produce(&topic, orders.events(0..30_000));
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "", ""),
        postgres_sink(),
        elasticsearch_sink(),
        connector("orders", "orders", "warehouse", &table, ""),
        connector("docs", "orders", "search", &table, ""),
    ]);
    let daemon = setup.start().await;
    let live = Background::start(&topic, orders, 30_000);
    for name in ["orders", "docs"] {
        daemon.metric(name, "events_applied_total", |applied| applied > 10_000).await;
    }
    // Edited by hand: only a rebuild brings it back.
    query(&format!("update {table} set changes = changes + 1000 where id % 7 = 0")).await;
    for name in ["orders", "docs"] {
        rebuild(&daemon, name);
        daemon.metric(name, "generation", |generation| generation == 2).await;
    }
    let end = live.stop();
    assert!(end > 30_000);
    for name in ["orders", "docs"] {
        daemon.caught_up(name, &topic).await;
        daemon.idle(name, PARTITIONS as u64).await.assert_balanced(name);
    }
    let expected = Oracle::of_topic(&topic).orders();
    assert_same("PostgreSQL", &expected, &postgres_rows(&table, ORDERS).await);
    assert_same("Elasticsearch", &expected, &elasticsearch_rows(&table, ORDERS).await);
    daemon.stop().await;
    setup.clean().await;
}
