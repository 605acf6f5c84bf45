//! Dead letters: of a member that is not the owner any more, and of batches that are folded again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldline_api::model::Row;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Advance, Beginning, Flush, Written};
use foldline_api::source::DeadLetter;
use foldline_api::value::Value;
use foldline_testkit::{Faults, MemoryStore, Rng, Script};

use super::{World, runtime};
use crate::task::letters::Sent;
use crate::task::ops::{Ops, WriteEnd};
use crate::task::{Limits, TaskStatus};

fn letter(offset: i64) -> DeadLetter {
    let partition = TopicPartition::new("events", 0);
    DeadLetter { partition, offset, key: None, value: None, headers: Vec::new() }
}

#[tokio::test]
async fn a_letter_is_sent_under_a_lease_only() {
    for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
        let world = World::of("hot", store, Rng::new(0), Script::new(0, Faults::default()));
        world.begin().await;
        let writer = world.target().writer(1).await.unwrap();
        let partition = TopicPartition::new("events", 0);
        let claim = Beginning {
            partition: partition.clone(),
            topic_id: Some("1".to_owned()),
            position: Position(0),
        };
        let acquire = async || {
            let claims = std::slice::from_ref(&claim);
            writer.acquire(claims).await.unwrap().leases.remove(0).epoch
        };
        let flush = |epoch, from, to| {
            let (from, to) = (Position(from), Position(to));
            let advance = Advance { partition: partition.clone(), epoch, from, to };
            Arc::new(Flush { advances: vec![advance], ..Flush::default() })
        };
        let ops = Ops {
            expiry: None,
            writer: Arc::clone(&writer),
            target: world.target(),
            generation: 1,
            log: Arc::clone(&world.group) as _,
            dead_letters: Arc::new(world.letters.clone()),
            sent: Sent::default(),
            outbox: false,
            metrics: world.metrics.connector("c"),
            status: TaskStatus::default(),
            stride: Arc::default(),
        };
        let write = async |flush: Arc<Flush>| {
            let letters = vec![letter(flush.advances[0].from.0)];
            ops.clone().write(letters, flush, Duration::ZERO).await.unwrap()
        };
        let first = acquire().await;
        let written = write(flush(first, 0, 5)).await;
        assert!(matches!(written, WriteEnd::Known(Written::Durable(_))), "{written:?}");
        assert_eq!(world.letters.letters().len(), 1);
        // Another member takes over, and maybe moves on: what the first folds now is folded on its rows.
        let second = acquire().await;
        for stale in [flush(first, 5, 9), flush(second, 0, 5)] {
            let written = write(stale).await;
            assert!(matches!(written, WriteEnd::Unknown(_, None)), "{written:?}");
            assert_eq!(world.letters.letters().len(), 1);
        }
        write(flush(second, 5, 9)).await;
        assert_eq!(world.letters.letters().len(), 2);
    }
}

/// Half of a batch's records are bad in the fold, some only for the store, which has the batch halved; other
/// writers and lost replies have it folded again.
#[test]
fn a_record_has_one_letter_however_often_its_batch_is_folded() {
    for (seed, store) in (0_u64..).zip([MemoryStore::transactional(), MemoryStore::with_marks()]) {
        runtime(seed).block_on(async {
            let faults = Faults { reject: 50, fail_after: 50, conflict: 50, ..Faults::default() };
            let script = Script::new(seed, Faults::default());
            let mut world = World::of("hot", store, Rng::new(seed), script);
            let refuses = |row: &Row| {
                let Value::Int(id) = row.get(0) else { return None };
                (id % 100 == 7).then(|| "a CHECK".to_owned())
            };
            world.begin().await;
            world.store.constrain("t", Some(Arc::new(refuses)));
            for id in 0..600 {
                let bad = if id % 2 == 0 { "\"many\"".to_owned() } else { id.to_string() };
                let value = Bytes::from(format!(r#"{{"id":{bad}}}"#));
                world.log.append_record("events", 0, (None, Some(value)), vec![], None);
            }
            world.script.set(faults);
            let writer = world.target().writer(1).await;
            let limits = Limits { rows: 500, bytes: 1 << 20, age: Duration::from_millis(50) };
            world.start_task_with(writer.unwrap(), limits, 1 << 20);
            world.catch_up().await;
            let mut places: Vec<i64> =
                world.letters.letters().iter().map(|letter| letter.offset).collect();
            places.sort_unstable();
            let expect: Vec<i64> = (0..600).filter(|id| id % 2 == 0 || id % 100 == 7).collect();
            assert_eq!(places, expect);
            assert_eq!(world.metrics.connector("c").dead_lettered.get(), expect.len() as u64);
        });
    }
}
