//! Kafka's own tool on the stopped group: a reset to the beginning is a rebuild, a missing group is not.

use crate::support::kafka;
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::servers::consumer_groups;
use crate::support::setup::Case;
use crate::support::stores::{postgres_versions, query};
use crate::support::use_servers;

fn reset(case: &Case) {
    let to = ["--to-earliest", "--execute"];
    consumer_groups(
        &[
            &["--group", &case.setup.group("orders"), "--topic", &case.topic, "--reset-offsets"],
            &to[..],
        ]
        .concat(),
    );
}

async fn a_reset_refills_from_nothing(events: u64) {
    let case = Case::folded(Orders::new(500), events).await;
    // What a refill that is none would leave as it is.
    query(&format!("delete from {} where id % 3 = 0", case.table)).await;
    query(&format!("update {} set amount = -1, changes = 1000", case.table)).await;
    query(&format!("insert into {} (id, changes) values (-1, 7)", case.table)).await;
    reset(&case);

    let daemon = case.setup.start().await;
    daemon.metric("orders", "generation", |generation| generation == 2).await;
    daemon.caught_up("orders", &case.topic).await;
    daemon.idle("orders", PARTITIONS as u64).await.assert_balanced("orders");
    case.assert_exact().await;
    daemon.stop().await;
    let versions = postgres_versions(&case.table).await;

    let daemon = case.setup.start().await;
    let scrape = daemon.idle("orders", PARTITIONS as u64).await;
    assert_eq!(scrape.of("orders", "generation"), 2, "a second start rebuilds nothing");
    assert_eq!(scrape.of("orders", "records_consumed_total"), 0);
    daemon.stop().await;
    assert_eq!(postgres_versions(&case.table).await, versions, "a second start writes nothing");

    // And goes on from there.
    kafka::produce(&case.topic, Orders::new(500).events(events..events + 50));
    let daemon = case.setup.start().await;
    daemon.caught_up("orders", &case.topic).await;
    case.assert_exact().await;
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_reset_to_the_earliest_offset_refills_the_table_from_nothing() {
    let _servers = use_servers().await;
    a_reset_refills_from_nothing(20_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_reset_is_noticed_where_the_topic_was_folded_in_one_flush_and_idle_since() {
    let _servers = use_servers().await;
    a_reset_refills_from_nothing(12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_offsets_of_a_stopped_connector_refills_the_table() {
    let _servers = use_servers().await;
    let case = Case::folded(Orders::new(500), 5_000).await;
    query(&format!("update {} set amount = -1, changes = 1000", case.table)).await;
    let daemon = case.setup.start().await;
    daemon.state("orders", "RUNNING").await;
    let path = "/connectors/orders/offsets";
    let (status, body) = daemon.request("DELETE", path).await.unwrap();
    assert!(status == 400 && body["message"].as_str().unwrap().contains("STOPPED"), "{body}");
    daemon.request("PUT", "/connectors/orders/stop").await.unwrap();
    daemon.state("orders", "STOPPED").await;
    let (status, body) = daemon.request("DELETE", path).await.unwrap();
    assert_eq!((status, &body["generation"]), (200, &serde_json::json!(2)), "{body}");
    assert_eq!(daemon.status("orders").await["generation"], 1, "stopped, it folds nothing");
    daemon.request("PUT", "/connectors/orders/resume").await.unwrap();
    daemon.metric("orders", "generation", |generation| generation == 2).await;
    daemon.caught_up("orders", &case.topic).await;
    case.assert_exact().await;
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_missing_goes_on_from_the_tables_positions() {
    let _servers = use_servers().await;
    let case = Case::folded(Orders::new(500), 5_000).await;
    let versions = postgres_versions(&case.table).await;
    consumer_groups(&["--group", &case.setup.group("orders"), "--delete"]);

    let daemon = case.setup.start().await;
    let scrape = daemon.idle("orders", PARTITIONS as u64).await;
    assert_eq!(scrape.of("orders", "records_consumed_total"), 0, "nothing is folded twice");
    assert_eq!(scrape.of("orders", "generation"), 1);
    assert_eq!(postgres_versions(&case.table).await, versions);

    kafka::produce(&case.topic, Orders::new(500).events(5_000..6_000));
    daemon.caught_up("orders", &case.topic).await;
    case.assert_exact().await;
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_set_into_the_middle_is_not_obeyed_and_warned_of() {
    let _servers = use_servers().await;
    let case = Case::folded(Orders::new(500), 5_000).await;
    let versions = postgres_versions(&case.table).await;
    let to = ["--to-offset", "10", "--execute"];
    consumer_groups(
        &[
            &["--group", &case.setup.group("orders"), "--topic", &case.topic, "--reset-offsets"],
            &to[..],
        ]
        .concat(),
    );

    let daemon = case.setup.start().await;
    let scrape = daemon.idle("orders", PARTITIONS as u64).await;
    assert_eq!(
        scrape.of("orders", "records_consumed_total"),
        0,
        "a fold from the middle would be wrong"
    );
    assert_eq!(scrape.of("orders", "generation"), 1);
    daemon.caught_up("orders", &case.topic).await;
    assert_eq!(postgres_versions(&case.table).await, versions);
    daemon.stop().await;
    assert!(case.setup.log().contains("WARN"), "the log warns:\n{}", case.setup.log());
    case.setup.clean().await;
}
