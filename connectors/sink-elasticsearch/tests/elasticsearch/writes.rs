//! Flushes: versions, fences, tombstones, what a lost reply was.

use std::time::Duration;

use foldline_api::ErrorClass;
use foldline_api::model::{Key, Row};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Beginning, Check, RowWrite, Target, Version, Written};
use foldline_api::value::Value;
use serde_json::json;

use crate::support::{Bench, SMALL, beginning, durable, flush, key, opened, partition, write};

#[tokio::test]
async fn a_stale_write_conflicts_and_moves_no_position() {
    let bench = Bench::new("stale");
    let (_, writer) = opened(&bench, &bench.spec(&SMALL)).await;
    let first = vec![write(1, Some(1), Version::Absent, 1), write(2, Some(1), Version::Absent, 2)];
    let versions = durable(writer.write(&flush(1, 0, 2, first)).await.unwrap());

    // A create where a document stands, and a write at an old version; the others of the flush land.
    let create = vec![write(1, Some(9), Version::Absent, 3), write(3, Some(3), Version::Absent, 3)];
    assert!(matches!(
        writer.write(&flush(1, 2, 3, create)).await.unwrap(),
        Written::Conflict { .. }
    ));
    let second = vec![write(2, Some(2), versions[1], 3)];
    let newer = durable(writer.write(&flush(1, 2, 3, second.clone())).await.unwrap());
    assert!(matches!(
        writer.write(&flush(1, 3, 4, second)).await.unwrap(),
        Written::Conflict { .. }
    ));

    let loaded = writer.load(&[key(1), key(2), key(3)]).await.unwrap();
    assert_eq!(loaded[0].row.as_ref().unwrap().get(1), &Value::Int(1));
    assert_eq!(loaded[1].version, newer[0]);
    // The mark tells the replay that this event is in already.
    assert_eq!(loaded[2].marks[0].position, Position(3));
    assert_eq!(writer.positions(&[partition()]).await.unwrap()[0].position, Position(3));

    // A decision on a row that changed meanwhile, and on one that was thought absent.
    for (id, version) in [(2, versions[1]), (1, Version::Absent)] {
        let mut looked = flush(1, 3, 4, vec![]);
        looked.checks.push(Check { key: key(id), version });
        assert!(matches!(writer.write(&looked).await.unwrap(), Written::Conflict { .. }));
    }
    let mut looked = flush(1, 3, 4, vec![]);
    looked.checks = vec![
        Check { key: key(2), version: newer[0] },
        Check { key: key(77), version: Version::Absent },
    ];
    durable(writer.write(&looked).await.unwrap());
    bench.clean().await;
}

#[tokio::test]
async fn a_delete_stands_against_a_late_create() {
    let bench = Bench::new("delete");
    let (target, writer) = opened(&bench, &bench.spec(&SMALL)).await;
    let first = vec![write(1, Some(1), Version::Absent, 1)];
    let versions = durable(writer.write(&flush(1, 0, 1, first)).await.unwrap());
    // Key 2 was created and deleted within one batch: a writer that only knows the create must fail.
    let deletes = vec![write(1, None, versions[0], 2), write(2, None, Version::Absent, 4)];
    let tombstones = durable(writer.write(&flush(1, 1, 4, deletes)).await.unwrap());
    assert_eq!(bench.search().await, 0);
    let loaded = writer.load(&[key(1), key(2)]).await.unwrap();
    for (loaded, (version, mark)) in loaded.iter().zip([(tombstones[0], 2), (tombstones[1], 4)]) {
        assert_eq!((&loaded.row, loaded.version), (&None, version));
        assert_eq!(loaded.marks[0].position, Position(mark));
    }
    for id in [1, 2] {
        let late = flush(1, 4, 5, vec![write(id, Some(1), Version::Absent, 3)]);
        assert!(matches!(writer.write(&late).await.unwrap(), Written::Conflict { .. }));
    }
    // Over its tombstone a row comes back.
    let back = vec![write(2, Some(7), tombstones[1], 5)];
    durable(writer.write(&flush(1, 4, 5, back)).await.unwrap());
    assert_eq!(bench.search().await, 1);

    assert_eq!(target.purge_tombstones(Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(target.purge_tombstones(Duration::ZERO).await.unwrap(), 1);
    let loaded = writer.load(&[key(1), key(2)]).await.unwrap();
    assert_eq!(loaded[0].version, Version::Absent);
    assert!(loaded[1].row.is_some());
    bench.clean().await;
}

#[tokio::test]
async fn a_tombstone_that_its_position_has_not_passed_is_not_purged() {
    let bench = Bench::new("keep");
    let (target, writer) = opened(&bench, &bench.spec(&SMALL)).await;
    // As after a crash between documents and position: the marker is ahead.
    durable(writer.write(&flush(1, 0, 1, vec![write(1, None, Version::Absent, 9)])).await.unwrap());
    assert_eq!(bench.search().await, 0);
    assert_eq!(target.purge_tombstones(Duration::ZERO).await.unwrap(), 0);
    bench.clean().await;
}

#[tokio::test]
async fn a_higher_epoch_fences() {
    let bench = Bench::new("fence");
    let (target, zombie) = opened(&bench, &bench.spec(&SMALL)).await;
    let owner = target.writer(1).await.unwrap();
    let lease = owner.acquire(&[beginning(3)]).await.unwrap().leases.remove(0);
    assert_eq!((lease.epoch, lease.position), (2, Position(0)));
    let versions = durable(
        owner.write(&flush(2, 0, 2, vec![write(1, Some(1), Version::Absent, 2)])).await.unwrap(),
    );

    // What the zombie writes carries its marks; its position does not move.
    let late = flush(1, 0, 1, vec![write(2, Some(1), Version::Absent, 1)]);
    assert!(matches!(zombie.write(&late).await.unwrap(), Written::Fenced));
    let stored = owner.positions(&[partition()]).await.unwrap().remove(0);
    assert_eq!((stored.position, stored.epoch), (Position(2), 2));
    // It learns that it is fenced, and does not go on under the new epoch by accident.
    assert_eq!(zombie.positions(&[partition()]).await.unwrap()[0].epoch, 2);
    for epoch in [1, 2] {
        let late = flush(epoch, 2, 3, vec![]);
        assert!(matches!(zombie.write(&late).await.unwrap(), Written::Fenced));
    }
    // A wrong place is refused before anything is written.
    let wrong = flush(2, 1, 3, vec![write(5, Some(1), Version::Absent, 3)]);
    assert!(matches!(owner.write(&wrong).await.unwrap(), Written::Fenced));
    assert_eq!(owner.load(&[key(5)]).await.unwrap()[0].version, Version::Absent);
    durable(owner.write(&flush(2, 2, 3, vec![write(1, Some(2), versions[0], 3)])).await.unwrap());
    bench.clean().await;
}

#[tokio::test]
async fn two_tasks_that_take_a_partition_at_once_get_two_epochs() {
    let bench = Bench::new("epochs");
    let (target, _) = opened(&bench, &bench.spec(&SMALL)).await;
    let writers = [target.writer(1).await.unwrap(), target.writer(1).await.unwrap()];
    let claims =
        [beginning(0), Beginning { partition: TopicPartition::new("events", 1), ..beginning(4) }];
    let acquired =
        futures_util::future::join_all(writers.iter().map(|writer| writer.acquire(&claims))).await;
    for at in [0, 1] {
        let mut epochs: Vec<i64> =
            acquired.iter().map(|a| a.as_ref().unwrap().leases[at].epoch).collect();
        epochs.sort_unstable();
        assert_eq!(epochs, if at == 0 { [2, 3] } else { [1, 2] });
    }
    let status = target.status().await.unwrap();
    let second = status.positions.iter().find(|p| p.partition.partition == 1).unwrap();
    assert_eq!((second.beginning, second.position), (Position(4), Position(4)));
    bench.clean().await;
}

#[tokio::test]
async fn a_lost_reply_is_found_again() {
    let bench = Bench::new("reply");
    let (target, writer) = opened(&bench, &bench.spec(&SMALL)).await;
    durable(
        writer.write(&flush(1, 0, 2, vec![write(1, Some(1), Version::Absent, 2)])).await.unwrap(),
    );
    // Another hand moved the document of the place without changing what it says, as a write does
    // whose reply was lost: the writer's version is stale, its epoch is not.
    let id = format!("position:{}:1:events:0", bench.name);
    let path = format!("/foldline-books/_doc/{id}");
    let (_, got) = bench.call("GET", &path, None).await;
    let mut moved = got["_source"].clone();
    moved["position"] = json!(3);
    bench.call("PUT", &path, Some(moved)).await;
    assert!(matches!(writer.write(&flush(1, 2, 3, vec![])).await.unwrap(), Written::Fenced));
    let stored = writer.positions(&[partition()]).await.unwrap().remove(0);
    assert_eq!((stored.position, stored.epoch), (Position(3), 1));
    durable(writer.write(&flush(1, 3, 4, vec![])).await.unwrap());
    assert_eq!(target.status().await.unwrap().positions[0].position, Position(4));
    bench.clean().await;
}

#[tokio::test]
async fn what_takes_too_long_is_made_smaller_and_no_event_of_it_is_written_twice() {
    let bench = Bench::new("slow");
    let spec = bench.spec(&SMALL);
    let (target, _) = opened(&bench, &spec).await;
    let slow = bench.target_of_few(&spec, 2, Duration::from_secs(2)).await;
    let writer = slow.writer(1).await.unwrap();
    let epoch = writer.acquire(&[beginning(0)]).await.unwrap().leases[0].epoch;
    // Sixteen events, each of which adds one to a row of its own. As a worker does: what became of a write is asked, and
    // what the marks say is in already is left out.
    let keys: Vec<Key> = (0..16).map(key).collect();
    let (mut slow_ones, mut done_unheard) = (0, 0);
    for attempt in 0.. {
        assert!(attempt < 20, "{slow_ones} bulks took too long");
        assert_eq!(writer.positions(&[partition()]).await.unwrap()[0].position, Position(0));
        let loaded = writer.load(&keys).await.unwrap();
        let open = loaded.iter().zip(0..).filter(|(loaded, _)| loaded.marks.is_empty());
        let writes: Vec<RowWrite> =
            open.map(|(loaded, id)| write(id, Some(1), loaded.version, id + 1)).collect();
        done_unheard = done_unheard.max(keys.len() - writes.len());
        match writer.write(&flush(epoch, 0, 16, writes)).await {
            Ok(Written::Durable(_)) => break,
            Ok(Written::Conflict { .. }) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(error.is_too_much(), "{error}");
                slow_ones += 1;
            }
        }
    }
    // Of 16, 8 and 4; some of them were done all the same.
    assert!((2..=4).contains(&slow_ones), "{slow_ones}");
    assert!((4..16).contains(&done_unheard), "{done_unheard}");
    let loaded = writer.load(&keys).await.unwrap();
    for (loaded, id) in loaded.iter().zip(0..) {
        assert_eq!(loaded.row.as_ref().unwrap().get(1), &Value::Int(1), "{id}");
        assert!(matches!(loaded.version, Version::At(..)), "{id}");
    }
    // Each document was written once: every write takes a sequence number.
    let path = format!("/{}-g1/_stats/indexing", bench.name);
    let (_, stats) = bench.call("GET", &path, None).await;
    assert_eq!(stats["_all"]["primaries"]["indexing"]["index_total"], json!(16), "{stats}");
    assert_eq!(target.status().await.unwrap().positions[0].position, Position(16));
    bench.clean().await;
}

#[tokio::test]
async fn a_write_block_of_an_operator_is_waited_for() {
    let bench = Bench::new("block");
    let (_, writer) = opened(&bench, &bench.spec(&SMALL)).await;
    let path = format!("/{}-g1/_settings", bench.name);
    let one = flush(1, 0, 1, vec![write(1, Some(1), Version::Absent, 1)]);
    for block in ["index.blocks.write", "index.blocks.read_only_allow_delete"] {
        bench.call("PUT", &path, Some(json!({ block: true }))).await;
        assert_eq!(writer.write(&one).await.unwrap_err().class(), ErrorClass::Retriable, "{block}");
        bench.call("PUT", &path, Some(json!({ block: null }))).await;
    }
    durable(writer.write(&one).await.unwrap());
    bench.clean().await;
}

#[tokio::test]
async fn a_flush_of_many_documents_goes_in_several_requests() {
    let bench = Bench::new("many");
    let spec = bench.spec(&[("id", "bigint"), ("n", "text")]);
    let (_, writer) = opened(&bench, &spec).await;
    let padding = Value::text(&"x".repeat(2_000));
    let writes: Vec<RowWrite> = (0..12_000)
        .map(|id| RowWrite {
            row: Some(Row::new(vec![Value::Int(id), padding.clone()])),
            ..write(id, None, Version::Absent, 12_000)
        })
        .collect();
    let versions = durable(writer.write(&flush(1, 0, 12_000, writes)).await.unwrap());
    let keys: Vec<Key> = (0..12_000).map(key).collect();
    let loaded = writer.load(&keys).await.unwrap();
    assert_eq!(loaded.len(), keys.len());
    for (loaded, (version, key)) in loaded.iter().zip(versions.iter().zip(&keys)) {
        assert_eq!(loaded.version, *version);
        assert_eq!(loaded.row.as_ref().unwrap().get(0), &key.values()[0]);
    }
    bench.clean().await;
}
