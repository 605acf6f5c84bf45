//! Positions belong to one table, one connector, one life of a topic and one projection.

use crate::support::kafka;
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{
    Case, Setup, connector, elasticsearch_sink, kafka_source, orders_projection,
};
use crate::support::stores::{ORDERS, elasticsearch, elasticsearch_rows, postgres_versions, query};
use crate::support::use_servers;

impl Case {
    /// The same with one column more.
    fn wider(&self) -> String {
        orders_projection(
            &self.topic,
            "last_amount = \"bigint\"",
            ", last_amount = \"event.amount\"",
        )
    }
}

async fn folded() -> Case {
    Case::folded(Orders::new(500), 5_000).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_dropped_is_built_anew() {
    let _servers = use_servers().await;
    let case = folded().await;
    query(&format!("drop table {}", case.table)).await;
    let daemon = case.setup.start().await;
    daemon.metric("orders", "generation", |generation| generation == 2).await;
    daemon.idle("orders", PARTITIONS as u64).await.assert_balanced("orders");
    case.assert_exact().await;
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_deleted_is_built_anew() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, alias) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    kafka::produce(&topic, Orders::new(200).events(0..2_000));
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "", ""),
        elasticsearch_sink(),
        connector("docs", "orders", "search", &alias, ""),
    ]);
    let daemon = setup.start().await;
    daemon.caught_up("docs", &topic).await;
    daemon.stop().await;
    let (_, aliases) = elasticsearch("GET", &format!("_alias/{alias}"), None).await;
    let index = aliases.as_object().and_then(|found| found.keys().next()).cloned();
    let index = index.unwrap_or_else(|| panic!("{alias} is no alias: {aliases}"));
    assert_eq!(elasticsearch("DELETE", &index, None).await.0, 200);

    let daemon = setup.start().await;
    daemon.metric("docs", "generation", |generation| generation == 2).await;
    daemon.idle("docs", PARTITIONS as u64).await.assert_balanced("docs");
    let expected = Oracle::of_topic(&topic).orders();
    assert_same("Elasticsearch", &expected, &elasticsearch_rows(&alias, ORDERS).await);
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_changed_in_the_config_is_rebuilt_beside_the_live_index() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, alias) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    kafka::produce(&topic, Orders::new(200).events(0..2_000));
    let config = |more: &str| {
        setup.config(&[
            kafka_source(),
            orders_projection(&topic, "", ""),
            elasticsearch_sink(),
            connector("docs", "orders", "search", &alias, more),
        ]);
    };
    config("on_change = \"rebuild\"\n");
    let daemon = setup.start().await;
    daemon.caught_up("docs", &topic).await;
    daemon.stop().await;

    let keyword = "mapping = { amount = { type = \"keyword\" } }\n";
    config(keyword);
    let daemon = setup.start().await;
    let why = daemon.failure("docs").await;
    assert!(why.contains("mapper [amount] cannot be changed"), "{why}");
    assert!(why.contains("on_change"), "{why}");
    daemon.stop().await;

    config(&format!("on_change = \"rebuild\"\n{keyword}"));
    let daemon = setup.start().await;
    daemon.metric("docs", "generation", |generation| generation == 2).await;
    daemon.idle("docs", PARTITIONS as u64).await;
    daemon.stop().await;
    let expected = Oracle::of_topic(&topic).orders();
    assert_same("Elasticsearch", &expected, &elasticsearch_rows(&alias, ORDERS).await);
    let (_, mapping) = elasticsearch("GET", &format!("{alias}/_mapping"), None).await;
    let mapping = &mapping[format!("{alias}-g2")]["mappings"]["properties"]["amount"];
    assert_eq!(mapping["type"], "keyword");
    // Once is enough: the next start finds what the config says.
    let daemon = setup.start().await;
    daemon.idle("docs", PARTITIONS as u64).await;
    daemon.metric("docs", "generation", |generation| generation == 2).await;
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_under_another_name_is_refused_with_the_way_out() {
    let _servers = use_servers().await;
    let case = folded().await;
    let versions = postgres_versions(&case.table).await;
    case.config(case.projection(), "orders-renamed", "");
    let daemon = case.setup.start().await;
    let why = daemon.failure("orders-renamed").await;
    assert!(why.contains("belongs to connector \"orders\""), "{why}");
    daemon.stop().await;
    assert_eq!(postgres_versions(&case.table).await, versions);

    case.config(case.projection(), "orders", "");
    let daemon = case.setup.start().await;
    daemon.idle("orders", PARTITIONS as u64).await;
    daemon.stop().await;
    assert_eq!(postgres_versions(&case.table).await, versions);
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_created_again_stops_with_the_choices() {
    let _servers = use_servers().await;
    let case = folded().await;
    let versions = postgres_versions(&case.table).await;
    kafka::delete(std::slice::from_ref(&case.topic)).await;
    kafka::create(&case.topic, PARTITIONS).await;
    kafka::produce(&case.topic, Orders::new(500).events(9_000..9_100));
    let daemon = case.setup.start().await;
    let why = daemon.failure("orders").await;
    assert!(why.contains("created again") && why.contains("foldline rebuild"), "{why}");
    daemon.stop().await;
    assert_eq!(postgres_versions(&case.table).await, versions, "nothing is written");
    case.setup.clean().await;
}

/// The topic is made anew while the worker runs, or while it stands still, and soon has more events than before.
async fn created_again_under_a_worker(frozen: bool) {
    let _servers = use_servers().await;
    let case = folded().await;
    let versions = postgres_versions(&case.table).await;
    let daemon = case.setup.start().await;
    daemon.metric("orders", "assigned_partitions", |count| count == PARTITIONS as u64).await;
    if frozen {
        daemon.freeze();
    }
    kafka::delete(std::slice::from_ref(&case.topic)).await;
    kafka::create(&case.topic, PARTITIONS).await;
    kafka::produce(&case.topic, Orders::new(500).events(9_000..19_000));
    if frozen {
        daemon.thaw();
    }
    let why = daemon.failure("orders").await;
    assert!(why.contains("created again") && why.contains("foldline rebuild"), "{why}");
    daemon.stop().await;
    assert_eq!(postgres_versions(&case.table).await, versions, "nothing is written");
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_created_again_under_a_running_worker_stops_it_with_the_choices() {
    created_again_under_a_worker(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_created_again_under_a_frozen_worker_stops_it_with_the_choices() {
    created_again_under_a_worker(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_created_again_is_folded_anew_by_a_rebuild() {
    let _servers = use_servers().await;
    let case = folded().await;
    kafka::delete(std::slice::from_ref(&case.topic)).await;
    kafka::create(&case.topic, PARTITIONS).await;
    kafka::produce(&case.topic, Orders::new(500).events(9_000..9_100));
    let daemon = case.setup.start().await;
    daemon.failure("orders").await;
    let printed = daemon.cli(&["rebuild", "orders", "--in-place"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    daemon.metric("orders", "generation", |generation| generation == 2).await;
    daemon.caught_up("orders", &case.topic).await;
    case.assert_exact().await;
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_projection_is_refused_until_the_config_says_what_to_do() {
    let _servers = use_servers().await;
    let case = folded().await;
    let versions = postgres_versions(&case.table).await;
    case.config(case.wider(), "orders", "");
    let daemon = case.setup.start().await;
    let why = daemon.failure("orders").await;
    assert!(why.contains("last_amount") && why.contains("on_change"), "{why}");
    daemon.stop().await;
    assert_eq!(postgres_versions(&case.table).await, versions, "nothing is written");

    // `continue` adds the column and fills it from here on.
    case.config(case.wider(), "orders", "on_change = \"continue\"");
    let daemon = case.setup.start().await;
    daemon.idle("orders", PARTITIONS as u64).await;
    let filled = query(&format!("select count(last_amount) from {}", case.table)).await;
    assert_eq!(filled[0][0].as_deref(), Some("0"));
    kafka::produce(&case.topic, Orders::new(500).events(5_000..5_400));
    daemon.caught_up("orders", &case.topic).await;
    case.assert_exact().await;
    let filled = query(&format!("select count(last_amount) > 0 from {}", case.table)).await;
    assert_eq!(filled[0][0].as_deref(), Some("t"));
    assert_eq!(daemon.metrics().await.of("orders", "generation"), 1);
    daemon.stop().await;

    // The older projection was superseded: a rolling deploy does not flip back.
    case.config(case.projection(), "orders", "on_change = \"rebuild\"");
    let daemon = case.setup.start().await;
    let why = daemon.waits("orders").await;
    assert!(why.contains("superseded"), "{why}");
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_projection_rebuilds_where_the_config_says_so() {
    let _servers = use_servers().await;
    let case = folded().await;
    case.config(case.wider(), "orders", "on_change = \"rebuild\"");
    let daemon = case.setup.start().await;
    daemon.metric("orders", "generation", |generation| generation == 2).await;
    daemon.idle("orders", PARTITIONS as u64).await.assert_balanced("orders");
    case.assert_exact().await;
    let filled = query(&format!("select count(last_amount) > 100 from {}", case.table)).await;
    assert_eq!(filled[0][0].as_deref(), Some("t"), "the new column is folded from the beginning");
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_rows_of_others_is_not_taken() {
    let _servers = use_servers().await;
    let case = Case::new(Orders::new(50), 100).await;
    let table = &case.table;
    query(&format!("create table public.{table} (id bigint primary key, note text)")).await;
    query(&format!("insert into public.{table} values (1, 'mine')")).await;
    case.config(case.projection(), "orders", "");
    let daemon = case.setup.start().await;
    let why = daemon.failure("orders").await;
    assert!(why.contains(table), "{why}");
    let rows = query(&format!("select id, note from public.{table}")).await;
    assert_eq!(rows, [[Some("1".to_owned()), Some("mine".to_owned())]]);
    daemon.stop().await;
    case.setup.clean().await;
}
