//! Several connectors in one worker, and how it leaves.

use crate::support::kafka::{self, Background};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, kafka_source, orders_projection, postgres_sink,
    sqlite_sink, users_projection,
};
use crate::support::stores::{
    ORDERS, USERS, elasticsearch_rows, postgres_rows, query, sqlite_rows,
};
use crate::support::use_servers;

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_the_config_describes_is_made_and_one_that_was_folded_is_missed() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    let described = |partitions: i32| {
        format!(
            "[sources.events.topics.{topic}]\npartitions = {partitions}\nreplication_factor = 1\n\
             config = {{ \"retention.ms\" = \"-1\" }}\n"
        )
    };
    let config = |partitions: i32| {
        setup.config(&[
            kafka_source(),
            described(partitions),
            orders_projection(&topic, "", ""),
            postgres_sink(),
            connector("orders", "orders", "warehouse", &table, ""),
        ]);
    };
    config(PARTITIONS);
    let daemon = setup.start().await;
    daemon.state("orders", "RUNNING").await;
    kafka::produce(&topic, Orders::new(30).events(0..300));
    daemon.caught_up("orders", &topic).await;
    let expected = Oracle::of_topic(&topic).orders();
    assert_same("PostgreSQL", &expected, &postgres_rows(&table, ORDERS).await);
    daemon.stop().await;
    // What differs is said, and left.
    config(PARTITIONS + 2);
    let daemon = setup.start().await;
    daemon.state("orders", "RUNNING").await;
    daemon.caught_up("orders", &topic).await;
    assert!(
        setup.log().contains(&format!("the config says {}", PARTITIONS + 2)),
        "{}",
        setup.log()
    );
    daemon.stop().await;
    kafka::delete(std::slice::from_ref(&topic)).await;
    let daemon = setup.start().await;
    let why = daemon.failure("orders").await;
    assert!(why.contains("does not exist"), "{why}");
    assert!(!kafka::topics().contains(&topic));
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_that_fails_says_why_and_leaves_the_others_running() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let topic = setup.name("orders");
    let (table, taken, database) =
        (setup.name("orders"), setup.name("taken"), setup.path("orders.db"));
    kafka::create(&topic, PARTITIONS).await;
    kafka::produce(&topic, Orders::new(300).events(0..3_000));
    // Its columns are not the projection's.
    query(&format!("create table public.{taken} (id text primary key)")).await;
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "", ""),
        users_projection(&topic),
        postgres_sink(),
        elasticsearch_sink(),
        sqlite_sink(&database),
        connector("orders", "orders", "warehouse", &table, ""),
        connector("broken", "orders", "warehouse", &taken, ""),
        connector("docs", "orders", "search", &table, ""),
        connector("embedded", "orders", "file", "orders", ""),
        connector("users", "users", "warehouse", &setup.name("users"), "tasks_max = 2"),
    ]);
    let daemon = setup.start().await;
    let why = daemon.failure("broken").await;
    assert!(why.contains(&taken), "{why}");
    for name in ["orders", "docs", "embedded", "users"] {
        daemon.state(name, "RUNNING").await;
        daemon.caught_up(name, &topic).await;
        daemon.idle(name, PARTITIONS as u64).await.assert_balanced(name);
    }
    let shown = daemon.cli(&["status"]);
    assert_eq!(shown.code, Some(1), "one has failed: {shown:?}");
    assert_eq!(daemon.cli(&["status", "orders"]).code, Some(0));
    assert!(why.contains(".toml:") && why.contains(": connectors.broken"), "{why}");
    for word in
        ["orders", "broken", "docs", "embedded", "users", "RUNNING", "FAILED", taken.as_str()]
    {
        assert!(shown.out.contains(word), "no {word} in {}", shown.out);
    }
    let oracle = Oracle::of_topic(&topic);
    assert_same("PostgreSQL", &oracle.orders(), &postgres_rows(&table, ORDERS).await);
    assert_same("users", &oracle.users(), &postgres_rows(&setup.name("users"), USERS).await);
    assert_same("Elasticsearch", &oracle.orders(), &elasticsearch_rows(&table, ORDERS).await);
    daemon.stop().await;
    assert_same("SQLite", &oracle.orders(), &sqlite_rows(&database, "orders", ORDERS));
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_flushes_commits_and_leaves_the_group() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table, group) = (setup.name("orders"), setup.name("orders"), setup.group("orders"));
    kafka::create(&topic, PARTITIONS).await;
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "", ""),
        postgres_sink(),
        connector("orders", "orders", "warehouse", &table, ""),
    ]);
    let load = Background::start(&topic, Orders::new(1_000), 0);
    let daemon = setup.start().await;
    daemon.metric("orders", "events_applied_total", |applied| applied > 1_000).await;
    daemon.stop().await;
    // The member said goodbye: nobody waits for its session to end.
    assert_eq!(kafka::group_state(&group), "Empty");
    let committed: i64 = kafka::committed(&group, &topic, 4).unwrap().iter().sum();
    let durable = query(&format!("select sum(changes) from {table}")).await;
    assert_eq!(
        durable[0][0].as_deref(),
        Some(committed.to_string().as_str()),
        "all that is durable is committed"
    );
    load.stop();

    let daemon = setup.start().await;
    daemon.caught_up("orders", &topic).await;
    let expected = Oracle::of_topic(&topic).orders();
    assert_same("PostgreSQL", &expected, &postgres_rows(&table, ORDERS).await);
    daemon.stop().await;
    setup.clean().await;
}
