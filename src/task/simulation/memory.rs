//! What a task may hold, in bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldline_api::model::{Key, Row};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Advance, Beginning, Flush, Marks, RowWrite, Version, Written};
use foldline_api::value::Value;
use foldline_testkit::{Faults, MemoryStore, Rng, Script};

use super::runtime;
use super::world::World;
use crate::task::letters::Sent;
use crate::task::ops::Ops;
use crate::task::*;

/// So many rows of 10,000 bytes each, and their keys.
async fn filled(count: i64) -> (Ops, Vec<Key>) {
    let script = Script::new(0, Faults::default());
    let world = World::of("grown", MemoryStore::transactional(), Rng::new(0), script);
    world.begin().await;
    let writer = world.target().writer(1).await.unwrap();
    let partition = TopicPartition::new("events", 0);
    let claim = Beginning {
        partition: partition.clone(),
        topic_id: Some("1".to_owned()),
        position: Position(0),
    };
    let epoch = writer.acquire(&[claim]).await.unwrap().leases[0].epoch;
    let write = |id: i64| {
        let row = Row::new(vec![Value::Int(id), Value::text(&"x".repeat(10_000))]);
        let (key, version) = (Key::of(Value::Int(id)), Version::Absent);
        RowWrite { key, row: Some(row), version, marks: Marks::new() }
    };
    let writes: Vec<RowWrite> = (0..count).map(write).collect();
    let keys = writes.iter().map(|write| write.key.clone()).collect();
    let advance = Advance { partition, epoch, from: Position(0), to: Position(0) };
    let flush = Flush { advances: vec![advance], writes, ..Flush::default() };
    assert!(matches!(writer.write(&flush).await.unwrap(), Written::Durable(_)));
    let ops = Ops {
        expiry: None,
        writer,
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
    (ops, keys)
}

#[test]
fn a_load_brings_what_there_is_room_for_and_what_the_first_record_needs() {
    runtime(0).block_on(async {
        let (ops, keys) = filled(500).await;
        for (first, room, least, most) in
            [(1, 105_000, 9, 11), (1, 0, 1, 1), (170, 0, 170, 170), (1, usize::MAX, 500, 500)]
        {
            let states = ops.clone().load(keys.clone(), first, room).await.unwrap();
            let came: Vec<&Key> = states.loaded.iter().map(|(key, _)| key).collect();
            assert!((least..=most).contains(&came.len()), "{room}: {}", came.len());
            assert!(came.into_iter().eq(&keys[..states.loaded.len()]), "in their order");
        }
    });
}

/// While a sink is away for hours, the log goes on.
#[test]
fn what_is_kept_with_a_batch_that_grows_is_bounded() {
    runtime(0).block_on(async {
        let script = Script::new(0, Faults::default());
        let world = &mut World::of("hot", MemoryStore::transactional(), Rng::new(0), script);
        world.begin().await;
        let append = |world: &World, value: String| {
            let record = (None, Some(Bytes::from(value)));
            world.log.append_record("events", 0, record, vec![], None);
        };
        append(world, r#"{"id":1}"#.to_owned());
        for _ in 0..5_000 {
            append(world, format!(r#"{{"id":"none","text":"{}"}}"#, "x".repeat(500)));
        }
        world.script.hold();
        let writer = world.target().writer(1).await.unwrap();
        let limits = Limits { rows: 100, bytes: 50_000, age: Duration::from_millis(5) };
        world.start_task_with(writer, limits, 1 << 20);
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let fetched = world.metrics.connector("c").fetched.get();
        assert!((50..600).contains(&fetched), "{fetched} of 5,001 are in memory");
        world.script.release();
        world.catch_up().await;
        assert_eq!(world.letters.letters().len(), 5_000);
    });
}
