//! A topic is sampled: what is printed validates, passes its own tests and folds the topic.

use std::path::Path;

use crate::support::daemon::run_in;
use crate::support::kafka;
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{Setup, connector, kafka_source, postgres_sink};
use crate::support::stores::query;
use crate::support::use_servers;

/// The orders' events, as they are in the example: partial updates, numbers as texts too.
#[tokio::test(flavor = "multi_thread")]
async fn the_orders_are_sampled_and_what_is_suggested_folds_them() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let topic = setup.name("es-orders");
    kafka::create(&topic, PARTITIONS).await;
    kafka::produce(&topic, Orders::new(50).events(0..600));
    setup.config(&[kafka_source()]);
    let config = setup.path("config");
    let arguments = ["suggest", &topic, "--name", "orders", "--records", "400", "-c", "."];
    let suggested = run_in(&config, &arguments);
    assert_eq!(suggested.code, Some(0), "{}", suggested.err);
    let text = suggested.out;
    for line in [
        "key = { id = \"event.id\" }    # it is each record's key too",
        "user_id = \"bigint\"",
        "price = \"numeric\"",
        "merge = { ",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert!(!text.contains("bad ="), "{text}");
    setup.config(&[
        kafka_source(),
        text.clone(),
        postgres_sink(),
        connector("orders", "orders", "warehouse", &topic.replace('-', "_"), ""),
    ]);
    for command in ["validate", "test"] {
        let printed = run_in(&config, &[command, "."]);
        assert_eq!(printed.code, Some(0), "{command}: {}{}\n{text}", printed.out, printed.err);
    }
    let daemon = setup.start().await;
    daemon.caught_up("orders", &topic).await;
    let scrape = daemon.idle("orders", PARTITIONS as u64).await;
    assert_eq!(scrape.of("orders", "events_applied_total"), 600, "{text}");
    let rows = query(&format!("select count(*) from {}", topic.replace('-', "_"))).await;
    assert_eq!(rows[0][0].as_deref(), Some("50"));
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_without_records_is_told() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let topic = setup.name("empty");
    kafka::create(&topic, 1).await;
    setup.config(&[kafka_source()]);
    let suggest = |topic: &str, directory: &Path| run_in(directory, &["suggest", topic, "-c", "."]);
    let printed = suggest(&topic, &setup.path("config"));
    assert!(printed.code == Some(1) && printed.err.contains("no records"), "{printed:?}");
    setup.clean().await;
}
