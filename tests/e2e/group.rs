//! The life of a group: workers that come, go and die, partitions that are added, and a log that has lost
//! what a stopped worker has not read.

use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Background};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Event, Orders, PARTITIONS};
use crate::support::setup::{
    Case, Setup, connector, elasticsearch_sink, kafka_source, orders_projection, postgres_sink,
};
use crate::support::stores::{ORDERS, elasticsearch_rows, postgres_rows};
use crate::support::use_servers;
use crate::support::wait::{self, LATER};

const NAMES: [&str; 2] = ["orders", "docs"];

/// Waits until the workers hold all partitions of each connector, each at least one.
async fn shared(workers: &[Daemon], names: &[&str], (partitions, limit): (u64, Duration)) {
    for name in names {
        wait::until(&format!("the workers share {name}"), limit, async || {
            let mut parts = Vec::new();
            for worker in workers {
                parts.push(worker.metrics().await.of(name, "assigned_partitions"));
            }
            let all = parts.iter().sum::<u64>() == partitions && parts.iter().all(|part| *part > 0);
            if all { Ok(()) } else { Err(format!("{parts:?}")) }
        })
        .await;
    }
}

/// Events of orders of their own, for a partition that was added.
fn added(partition: i32, count: u64) -> impl Iterator<Item = Event> {
    (0..count).map(move |index| Event {
        partition,
        key: (1_000_000 + index % 50).to_string(),
        timestamp: 1_700_000_000_000,
        value: format!("{{\"id\":{},\"amount\":{index}}}", 1_000_000 + index % 50),
    })
}

async fn workers_come_and_go(source: String) {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    setup.config(&[
        source,
        orders_projection(&topic, "", ""),
        postgres_sink(),
        elasticsearch_sink(),
        connector("orders", "orders", "warehouse", &table, ""),
        connector("docs", "orders", "search", &table, ""),
    ]);
    let load = Background::start(&topic, Orders::new(2_000), 0);
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(setup.start().await);
    }
    shared(&workers, &NAMES, (PARTITIONS as u64, LATER)).await;
    // One dies and another comes.
    workers.remove(0).kill9();
    workers.push(setup.start().await);
    shared(&workers, &NAMES, (PARTITIONS as u64, LATER)).await;
    // A rolling restart.
    for _ in 0..3 {
        workers.remove(0).stop().await;
        workers.push(setup.start().await);
        shared(&workers, &NAMES, (PARTITIONS as u64, LATER)).await;
    }
    // The topic grows.
    kafka::grow(&topic, PARTITIONS + 2).await;
    shared(&workers, &NAMES, (PARTITIONS as u64 + 2, LATER)).await;
    kafka::produce(&topic, added(PARTITIONS, 500).chain(added(PARTITIONS + 1, 0)));
    load.stop();
    for name in NAMES {
        workers[0].caught_up(name, &topic).await;
        for worker in &workers {
            worker.metrics().await.assert_balanced(name);
        }
    }
    let oracle = Oracle::of_topic(&topic);
    assert_same("PostgreSQL", &oracle.orders(), &postgres_rows(&table, ORDERS).await);
    assert_same("Elasticsearch", &oracle.orders(), &elasticsearch_rows(&table, ORDERS).await);
    for worker in workers {
        worker.stop().await;
    }
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_one_killed_all_restarted_and_partitions_added() {
    workers_come_and_go(kafka_source()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_under_the_consumer_group_protocol() {
    workers_come_and_go(consumer_protocol()).await;
}

/// The source under the consumer group protocol.
fn consumer_protocol() -> String {
    // The broker decides on timeouts there.
    kafka_source()
        .replace(
            "\n[sources.events.properties]",
            "\ngroup_protocol = \"consumer\"\n[sources.events.properties]",
        )
        .replace("\"session.timeout.ms\" = 6000\n", "")
        .replace("\"heartbeat.interval.ms\" = 1000\n", "")
}

/// Waits, for half a minute, until the worker holds so many partitions.
async fn holds(worker: &Daemon, partitions: u64) {
    wait::until(&format!("{partitions} partitions"), Duration::from_secs(30), async || {
        let held = worker.metrics().await.of("orders", "assigned_partitions");
        if held == partitions { Ok(()) } else { Err(held.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_its_group_forgot_joins_anew_though_it_still_holds_partitions() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    let config = |source: String| {
        setup.config(&[
            source,
            orders_projection(&topic, "", ""),
            postgres_sink(),
            connector("orders", "orders", "warehouse", &table, ""),
        ]);
    };
    let load = Background::start(&topic, Orders::new(200), 0);
    config(kafka_source());
    let first = setup.start().await;
    first.metric("orders", "assigned_partitions", |held| held == PARTITIONS as u64).await;
    config(consumer_protocol());
    let workers = [first, setup.start().await];
    shared(&workers, &["orders"], (PARTITIONS as u64, LATER)).await;
    // The broker misses it after 45 s; of the consumer protocol nobody is left, so the group is a classic one again, which
    // does not know the member that wakes.
    workers[1].freeze();
    workers[0].metric("orders", "assigned_partitions", |held| held == PARTITIONS as u64).await;
    workers[1].thaw();
    // Else both would fence each other for as long as they live. Into a group of the classic protocol it comes once nobody of
    // that is left.
    let [first, second] = workers;
    holds(&second, 0).await;
    first.stop().await;
    holds(&second, PARTITIONS as u64).await;
    load.stop();
    second.caught_up("orders", &topic).await;
    let oracle = Oracle::of_topic(&topic);
    assert_same("PostgreSQL", &oracle.orders(), &postgres_rows(&table, ORDERS).await);
    second.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_what_a_stopped_worker_has_not_read_stops_it_with_the_choices() {
    let _servers = use_servers().await;
    let Case { setup, topic, table } = Case::folded(Orders::new(200), 2_000).await;
    let rows = postgres_rows(&table, ORDERS).await;
    kafka::produce(&topic, Orders::new(200).events(2_000..4_000));
    kafka::forget(&topic, &kafka::ends(&topic)).await;
    let daemon = setup.start().await;
    let status = daemon.failure("orders").await;
    for choice in ["retention", "foldline rebuild", "--skip-to"] {
        assert!(status.contains(choice), "no {choice} in {status}");
    }
    assert_eq!(postgres_rows(&table, ORDERS).await, rows, "nothing was skipped");
    daemon.stop().await;
    setup.clean().await;
}
