//! Topics that are listed and come later.

use serde_json::json;

use crate::support::kafka;
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{Setup, connector, kafka_source, orders_projection, postgres_sink};
use crate::support::stores::{ORDERS, postgres_rows};
use crate::support::use_servers;
use crate::support::wait::{self, LATER};

/// The fold of one topic, and then of the other.
fn both_of(first: &str, then: &str) -> Oracle {
    let mut oracle = Oracle::of_topic(first);
    kafka::each(then, |record| oracle.fold(record.value.unwrap(), record.timestamp));
    oracle
}

/// One listed topic is there at the start, or none is; by both group protocols.
#[tokio::test(flavor = "multi_thread")]
async fn a_listed_topic_that_comes_later_is_folded_from_its_start_without_a_restart() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (early, late) = (setup.name("early"), setup.name("late"));
    kafka::create(&early, PARTITIONS).await;
    kafka::produce(&early, Orders::new(40).events(0..400));
    let (some, none) = (setup.name("some"), setup.name("none"));
    let of = |name: &str, topics: &[&String]| {
        let projection = orders_projection("", "", "");
        let projection = projection.replace("topics = [\"\"]", &format!("topics = {topics:?}"));
        projection.replace("projections.orders", &format!("projections.{name}"))
    };
    let consumer = kafka_source().replace("sources.events", "sources.next").replace(
        "\n[sources.next.properties]\n\"session.timeout.ms\" = 6000\n\"heartbeat.interval.ms\" = 1000",
        "\ngroup_protocol = \"consumer\"\n[sources.next.properties]",
    );
    let (classic, new) = ("source = \"events\"\n", "source = \"next\"\nstart = \"latest\"\n");
    setup.config(&[
        kafka_source(),
        consumer,
        of("some", &[&early, &late]),
        of("none", &[&late]),
        postgres_sink(),
        connector("some", "some", "warehouse", &some, classic),
        connector("none", "none", "warehouse", &none, new),
    ]);
    let daemon = setup.start().await;
    daemon.caught_up("some", &early).await;
    for (name, state) in [("some", "RUNNING"), ("none", "UNASSIGNED")] {
        wait::until("the missing topic is named", LATER, async || {
            let status = daemon.status(name).await;
            let why = status["connector"]["trace"].as_str().unwrap_or_default();
            let named = why.starts_with(&format!("topic `{late}` does not exist"));
            let shown = named && status["connector"]["state"] == state;
            if shown { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }
    let shown = daemon.cli(&["status"]).out;
    assert!(shown.contains(&format!("topic `{late}` does not exist")), "{shown}");
    assert_eq!(Oracle::of_topic(&early).orders().len(), postgres_rows(&some, ORDERS).await.len());

    // All of it is there before a worker can know.
    kafka::create(&late, PARTITIONS).await;
    kafka::produce(&late, Orders::new(40).events(1_000..1_600));
    for name in ["some", "none"] {
        daemon.caught_up(name, &late).await;
        let status = daemon.status(name).await;
        let seen = (&status["connector"]["state"], &status["connector"]["trace"]);
        assert_eq!(seen, (&json!("RUNNING"), &json!(null)), "{status}");
    }
    let both = both_of(&early, &late).orders();
    let alone = Oracle::of_topic(&late).orders();
    assert_same("PostgreSQL", &both, &postgres_rows(&some, ORDERS).await);
    assert_same("PostgreSQL", &alone, &postgres_rows(&none, ORDERS).await);
    daemon.stop().await;

    // Whoever is there after it goes on, and folds nothing twice.
    let daemon = setup.start().await;
    kafka::produce(&late, Orders::new(40).events(1_600..1_700));
    daemon.caught_up("some", &late).await;
    daemon.caught_up("none", &late).await;
    let both = both_of(&early, &late).orders();
    assert_same("PostgreSQL", &both, &postgres_rows(&some, ORDERS).await);
    daemon.stop().await;

    kafka::delete(std::slice::from_ref(&late)).await;
    let daemon = setup.start().await;
    for name in ["some", "none"] {
        let why = daemon.failure(name).await;
        assert!(why.contains(&format!("topic `{late}` does not exist")), "{why}");
    }
    daemon.stop().await;
    setup.clean().await;
}
