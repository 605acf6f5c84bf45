//! A topic in Avro and its twin in JSON, `avro` and `json`, folded by the connectors `avro`, `docs` (an index) and `json`.

use super::daemon::Daemon;
use super::orders::PARTITIONS;
use super::setup::Setup;
use super::stores::{Columns, elasticsearch_rows, postgres_rows};
use super::{kafka, wait};

/// Waits until all that there is was folded.
pub(crate) async fn caught_up(setup: &Setup, daemon: &Daemon) {
    for (name, topic) in [("avro", "avro"), ("docs", "avro"), ("json", "json")] {
        daemon.caught_up(name, &setup.name(topic)).await;
        daemon.idle(name, PARTITIONS as u64).await;
    }
}

/// Table and index of the topic in Avro are the table of its twin.
pub(crate) async fn assert_twins(setup: &Setup, columns: Columns) {
    let wanted = postgres_rows(&setup.name("json"), columns).await;
    assert!(wanted.len() > 40, "{} rows", wanted.len());
    assert_eq!(postgres_rows(&setup.name("avro"), columns).await, wanted);
    assert_eq!(elasticsearch_rows(&setup.name("avro"), columns).await, wanted);
}

/// A command of this worker's that ends well.
pub(crate) fn assert_answers(daemon: &Daemon, arguments: &[&str]) {
    let printed = daemon.cli(arguments);
    assert_eq!(printed.code, Some(0), "{printed:?}");
}

/// Waits until the connector waits for schemas, and says why.
pub(crate) async fn waits_for_schemas(daemon: &Daemon, connector: &str, says: &str) {
    wait::until(&format!("{connector} waits for schemas"), wait::SOON, async || {
        let (_, status) = daemon.get(&format!("/connectors/{connector}/status")).await;
        let text = status.to_string();
        let waits = text.contains(r#""blocked_by":"schemas""#) && text.contains(says);
        if waits { Ok(()) } else { Err(text) }
    })
    .await;
}

/// The reasons of a connector's dead letters.
pub(crate) fn letters(setup: &Setup, connector: &str) -> Vec<String> {
    let letters = kafka::read_back(&format!("dlq-{}", setup.group(connector)));
    let message = |letter: &kafka::Owned| {
        letter.header("__connect.errors.exception.message").unwrap().to_owned()
    };
    letters.iter().map(message).collect()
}
