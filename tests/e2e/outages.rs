//! A server goes away under load and comes back: nobody is called, no record is set aside, no row is wrong.

use std::time::Duration;

use super::refused::{nothing, refused};
use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Background};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::own_servers;
use crate::support::servers::ctl;
use crate::support::setup::{
    Case, Setup, connector, elasticsearch_sink, kafka_source, orders_projection, postgres_sink,
    users_projection,
};
use crate::support::stores::{ORDERS, USERS, elasticsearch_rows, postgres_rows, query};

const NAMES: [&str; 3] = ["orders", "docs", "users"];
/// Four members and three connectors, with some lines each.
const WARNINGS_MAX: usize = 80;

/// Longer than what a flush may wait for a lock, and than a broker's members may be silent.
const STANDSTILL: Duration = Duration::from_secs(15);

/// An outage is one story for each member, and tells whose it is.
fn assert_quiet(log: &str) {
    let warnings: Vec<&str> =
        log.lines().filter(|line| line.contains(r#""level":"WARN""#)).collect();
    assert!(
        warnings.len() <= WARNINGS_MAX,
        "{} warnings:\n{}",
        warnings.len(),
        warnings.join("\n")
    );
    for line in warnings {
        assert!(line.contains(r#""connector":""#), "whose is this? {line}");
    }
}

async fn survives(disturb: impl AsyncFnOnce(&Daemon)) {
    let _servers = own_servers().await;
    let setup = Setup::new();
    let (topic, table, users) = (setup.name("orders"), setup.name("orders"), setup.name("users"));
    kafka::create(&topic, PARTITIONS).await;
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "", ""),
        users_projection(&topic),
        postgres_sink(),
        elasticsearch_sink(),
        connector("orders", "orders", "warehouse", &table, ""),
        connector("docs", "orders", "search", &table, ""),
        connector("users", "users", "warehouse", &users, "tasks_max = 2"),
    ]);
    let orders = Orders::new(2_000);
    let load = Background::start(&topic, orders, 0);
    let daemon = setup.start().await;
    for name in NAMES {
        daemon.metric(name, "records_consumed_total", |consumed| consumed > 2_000).await;
    }
    disturb(&daemon).await;
    let before = daemon.metrics().await;
    for name in NAMES {
        let done = before.of(name, "records_consumed_total");
        daemon.metric(name, "records_consumed_total", |consumed| consumed > done + 1_000).await;
    }
    load.stop();
    assert_quiet(&setup.log());
    for name in NAMES {
        daemon.caught_up(name, &topic).await;
        let scrape = daemon.idle(name, PARTITIONS as u64).await;
        scrape.assert_balanced(name);
        assert_eq!(scrape.of(name, "events_dead_lettered_total"), 0, "{name}");
        assert_eq!(daemon.status(name).await["connector"]["state"], "RUNNING");
    }
    let oracle = Oracle::of_topic(&topic);
    assert_same("PostgreSQL", &oracle.orders(), &postgres_rows(&table, ORDERS).await);
    assert_same("users", &oracle.users(), &postgres_rows(&users, USERS).await);
    assert_same("Elasticsearch", &oracle.orders(), &elasticsearch_rows(&table, ORDERS).await);
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_dies_and_comes_back_under_load() {
    survives(async |_| {
        ctl("postgres", "kill");
        ctl("postgres", "start");
    })
    .await;
}

/// As after a failover, when the old address still leads to what is a standby now.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_comes_back_as_a_standby_and_is_promoted_under_load() {
    survives(async |daemon| {
        let directory = query("show data_directory").await[0][0].clone().unwrap();
        query(&format!("copy (select 1 where false) to '{directory}/standby.signal'")).await;
        ctl("postgres", "restart");
        for name in ["orders", "users"] {
            refused(daemon, name, "(25006)", nothing).await;
            assert_eq!(daemon.status(name).await["connector"]["state"], "RUNNING", "{name}");
        }
        query("select pg_promote()").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn elasticsearch_restarts_under_load() {
    survives(async |_| ctl("elasticsearch", "restart")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_restarts_under_load() {
    survives(async |_| ctl("kafka", "restart")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_server_stands_still_and_goes_on_under_load() {
    survives(async |_| {
        for server in ["kafka", "postgres", "elasticsearch"] {
            ctl(server, "pause");
            tokio::time::sleep(STANDSTILL).await;
            ctl(server, "cont");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_starts_while_the_stores_are_down_waits_for_them() {
    let _servers = own_servers().await;
    let case = Case::new(Orders::new(200), 2_000).await;
    case.config(case.projection(), "orders", "");
    ctl("postgres", "stop");
    let daemon = case.setup.start().await;
    daemon.metric("orders", "retries_total", |retries| retries > 1).await;
    assert_ne!(daemon.get("/readyz").await.0, 200, "not ready while its store is away");
    ctl("postgres", "start");
    daemon.caught_up("orders", &case.topic).await;
    assert_eq!(daemon.get("/readyz").await.0, 200);
    case.assert_exact().await;
    daemon.stop().await;
    case.setup.clean().await;
}
