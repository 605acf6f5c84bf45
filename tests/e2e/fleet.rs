//! Two workers of one name share the partitions, and a key that all partitions feed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Background};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::servers;
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, kafka_source, orders_projection, postgres_sink,
    users_projection,
};
use crate::support::stores::{ORDERS, USERS, elasticsearch_rows, postgres_rows, query};
use crate::support::wait::{self, LATER};
use crate::support::{own_servers, use_servers};

/// The longest that a deploy may keep events from being folded.
const PAUSE_MAX: Duration = Duration::from_secs(3);

const NAMES: [&str; 4] = ["orders", "docs", "users", "user-docs"];

#[tokio::test(flavor = "multi_thread")]
async fn tasks_move_between_two_workers_and_one_is_killed_without_a_wrong_row() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table, users) = (setup.name("orders"), setup.name("orders"), setup.name("users"));
    kafka::create(&topic, PARTITIONS).await;
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "", ""),
        users_projection(&topic),
        postgres_sink(),
        elasticsearch_sink(),
        connector("orders", "orders", "warehouse", &table, "tasks_max = 2"),
        connector("docs", "orders", "search", &table, "tasks_max = 2"),
        connector("users", "users", "warehouse", &users, "tasks_max = 2"),
        connector("user-docs", "users", "search", &users, "tasks_max = 2"),
    ]);
    // Few users, so that tasks meet at one row all the time.
    let orders = Orders { seed: 11, orders: 2_000, users: 20 };
    kafka::produce(&topic, orders.events(0..20_000));
    let load = Background::start(&topic, orders, 20_000);
    let first = setup.start().await;
    for name in NAMES {
        first.metric(name, "records_consumed_total", |consumed| consumed > 0).await;
    }
    let second = setup.start().await;
    for name in NAMES {
        wait::until(&format!("both have a part of {name}"), LATER, async || {
            let here = first.metrics().await.of(name, "assigned_partitions");
            let there = second.metrics().await.of(name, "assigned_partitions");
            let shared = here > 0 && there > 0 && here + there == PARTITIONS as u64;
            if shared { Ok(()) } else { Err(format!("{here} and {there}")) }
        })
        .await;
        second.metric(name, "records_consumed_total", |consumed| consumed > 0).await;
    }
    first.kill9();
    for name in NAMES {
        second.metric(name, "assigned_partitions", |assigned| assigned == PARTITIONS as u64).await;
    }
    load.stop();
    for name in NAMES {
        second.caught_up(name, &topic).await;
        let scrape = second.idle(name, PARTITIONS as u64).await;
        scrape.assert_balanced(name);
        assert_eq!(scrape.of(name, "events_dead_lettered_total"), 0);
    }
    let oracle = Oracle::of_topic(&topic);
    assert_same("PostgreSQL", &oracle.orders(), &postgres_rows(&table, ORDERS).await);
    assert_same("Elasticsearch", &oracle.orders(), &elasticsearch_rows(&table, ORDERS).await);
    assert_same("users", &oracle.users(), &postgres_rows(&users, USERS).await);
    assert_same("user documents", &oracle.users(), &elasticsearch_rows(&users, USERS).await);
    second.stop().await;
    setup.clean().await;
}

/// The longest that each partition's position stood still, and that all of them did, until `stop`.
async fn pauses(table: String, stop: Arc<AtomicBool>) -> (Duration, Duration) {
    let sql =
        format!("select partition, position from foldline.positions where target like '%{table}%'");
    let mut moved: HashMap<String, (String, Instant)> = HashMap::new();
    let (mut one, mut all, mut any) = (Duration::ZERO, Duration::ZERO, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        for row in query(&sql).await {
            let [Some(partition), Some(position)] = &row[..] else { panic!("{row:?}") };
            let now = Instant::now();
            let last = moved.entry(partition.clone()).or_insert_with(|| (position.clone(), now));
            if last.0 != *position {
                one = one.max(now - last.1);
                all = all.max(now - any);
                (*last, any) = ((position.clone(), now), now);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (one, all)
}

async fn shared(workers: &[Daemon], partitions: u64) {
    wait::until("the workers share the partitions", LATER, async || {
        let mut parts = Vec::new();
        for worker in workers {
            parts.push(worker.metrics().await.of("orders", "assigned_partitions"));
        }
        let all = parts.iter().sum::<u64>() == partitions;
        if all { Ok(()) } else { Err(format!("{parts:?}")) }
    })
    .await;
}

/// Two workers are restarted one after the other, twice.
async fn rolling_restart(partitions: i32, protocol: &str) {
    // A standstill is measured, so nothing else runs beside it.
    let _servers = own_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, partitions).await;
    // Kafka's own timeouts: a member that does not leave is missed after 45 s only.
    let source = format!(
        "[sources.events]\ntype = \"kafka\"\nbootstrap_servers = {:?}\ngroup_protocol = {protocol:?}\n",
        servers::kafka()
    );
    setup.config(&[
        source,
        orders_projection(&topic, "", ""),
        postgres_sink(),
        connector("orders", "orders", "warehouse", &table, ""),
    ]);
    let orders = Orders::new(500);
    let load = Background::start(&topic, orders, 0);
    let mut workers = vec![setup.start().await, setup.start().await];
    shared(&workers, partitions as u64).await;
    workers[0].metric("orders", "generation", |generation| generation > 0).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn(pauses(table.clone(), Arc::clone(&stop)));
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        workers.remove(0).stop().await;
        workers.push(setup.start().await);
        shared(&workers, partitions as u64).await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    stop.store(true, Ordering::Relaxed);
    let (one, all) = watch.await.unwrap();
    println!("{protocol}, {partitions} partitions: one stood for {one:?} at most, all for {all:?}");
    load.stop();
    workers[0].caught_up("orders", &topic).await;
    let oracle = Oracle::of_topic(&topic);
    assert_same("PostgreSQL", &oracle.orders(), &postgres_rows(&table, ORDERS).await);
    for worker in workers {
        worker.stop().await;
    }
    setup.clean().await;
    assert!(all <= PAUSE_MAX, "all folding stood for {all:?}");
    if protocol == "classic" {
        // Under the other protocol the broker says how often members hear of what is theirs (5 s).
        assert!(one <= PAUSE_MAX, "a partition stood for {one:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_keeps_no_event_waiting_for_more_than_three_seconds() {
    rolling_restart(PARTITIONS, "classic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_the_consumer_protocol_never_stops_all_folding() {
    rolling_restart(PARTITIONS, "consumer").await;
}
