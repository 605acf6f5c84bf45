//! Two workers of one name share the partitions, and a key that all partitions feed.

use crate::support::kafka::{self, Background};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, kafka_source, orders_projection, postgres_sink,
    users_projection,
};
use crate::support::stores::{ORDERS, USERS, elasticsearch_rows, postgres_rows};
use crate::support::use_servers;
use crate::support::wait::{self, LATER};

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
