//! What of a snapshot is taken over: only what a stopped connector left.

use std::sync::Arc;

use foldline_api::lifecycle::LogNow;
use foldline_api::sink::{DesiredState, Target, Version, Writer, Written};
use foldline_sink_elasticsearch::ElasticsearchTarget;
use serde_json::json;

use crate::support::{Bench, SMALL, beginning, durable, flush, key, opened, write};

async fn refused(target: &ElasticsearchTarget) -> String {
    target.adopt(&LogNow::default()).await.unwrap_err().to_string()
}

async fn stop(target: &ElasticsearchTarget) {
    target.set_desired(DesiredState::Stopped).await.unwrap();
    target.note_stopped().await.unwrap();
}

/// A target with one document, whose position is 1.
async fn folded(bench: &Bench) -> (ElasticsearchTarget, Arc<dyn Writer>) {
    let (target, writer) = opened(bench, &bench.spec(&SMALL)).await;
    let first = flush(1, 0, 1, vec![write(1, Some(1), Version::Absent, 1)]);
    durable(writer.write(&first).await.unwrap());
    (target, writer)
}

#[tokio::test]
async fn a_snapshot_of_what_is_not_of_one_moment_is_refused() {
    let bench = Bench::new("running");
    let (target, _) = folded(&bench).await;
    target.note_stopped().await.unwrap();
    bench.copy_indexes(&format!("{}-g", bench.name)).await;
    assert!(refused(&target).await.contains("was not stopped"));
    // A seal is of what the books mean.
    stop(&target).await;
    assert!(refused(&target).await.contains("was not stopped"));
    bench.clean().await;

    // It was resumed before the books were copied.
    let bench = Bench::new("resumed");
    let (target, writer) = folded(&bench).await;
    stop(&target).await;
    durable(writer.write(&flush(1, 1, 2, vec![])).await.unwrap());
    bench.copy_indexes(&format!("{}-g", bench.name)).await;
    assert!(refused(&target).await.contains("positions have moved"));
    bench.clean().await;

    // The documents are of before, or of after.
    let bench = Bench::new("other");
    let (target, _) = folded(&bench).await;
    stop(&target).await;
    let document = json!({ "id": 9, "n": 9 });
    let path = format!("/{}-g1/_doc/9?refresh=true", bench.name);
    bench.call("PUT", &path, Some(document)).await;
    bench.copy_indexes(&format!("{}-g", bench.name)).await;
    assert!(refused(&target).await.contains("documents are not those"));
    assert_eq!(target.status().await.unwrap().positions[0].epoch, 1, "nothing was changed");
    bench.clean().await;
}

#[tokio::test]
async fn a_crash_in_the_middle_of_taking_a_copy_is_made_good_by_the_next_open() {
    let bench = Bench::new("half-taken");
    let (target, writer) = folded(&bench).await;
    stop(&target).await;
    bench.copy_indexes(&format!("{}-g", bench.name)).await;
    // As if the record had been written, and nothing that follows from it.
    let (_, made) =
        bench.call("GET", &format!("/{}-g1?flat_settings=true", bench.name), None).await;
    let made = &made[format!("{}-g1", bench.name)];
    let path = format!("/foldline-books/_doc/target:{}", bench.name);
    let (_, record) = bench.call("GET", &path, None).await;
    let mut record = record["_source"].clone();
    record["binding"]["physical"] = made["settings"]["index.uuid"].clone();
    (record["ready"], record["swapped"]) = (json!(false), json!(true));
    bench.call("PUT", &path, Some(record)).await;
    for alias in made["aliases"].as_object().unwrap().keys() {
        bench.call("DELETE", &format!("/{}-g1/_alias/{alias}", bench.name), None).await;
    }
    let late = writer.write(&flush(1, 1, 2, vec![write(2, Some(2), Version::Absent, 2)])).await;
    assert!(!matches!(late, Ok(Written::Durable(_))), "{late:?}");
    let target = bench.target(&bench.spec(&SMALL));
    assert_eq!(target.open().await.unwrap().generation, 1);
    assert_eq!(bench.search().await, 1);
    let next = target.writer(1).await.unwrap();
    let lease = next.acquire(&[beginning(0)]).await.unwrap().leases[0].clone();
    assert!(lease.epoch > 2, "raised, and taken: {lease:?}");
    assert!(next.load(&[key(1)]).await.unwrap()[0].row.is_some());
    bench.clean().await;
}
