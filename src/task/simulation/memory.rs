//! What a task may hold, in bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldline_api::budget::{TOGETHER_BYTES_MAX, Together};
use foldline_api::model::{Key, Row};
use foldline_api::parked::Place;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Advance, Beginning, Flush, Mark, Marks, RowWrite, Version, Written};
use foldline_api::value::Value;
use foldline_testkit::{Faults, MemoryStore, Rng, Script};

use super::runtime;
use super::world::World;
use crate::task::letters::Sent;
use crate::task::needed::Needed;
use crate::task::ops::Ops;
use crate::task::*;

/// So many rows of 10,000 bytes each, and their keys. The last one holds the event at offset 7.
async fn filled(count: i64, store: MemoryStore) -> (Ops, Vec<Key>) {
    let script = Script::new(0, Faults::default());
    let world = World::of("grown", store, Rng::new(0), script);
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
        let mark = Mark { partition: partition.clone(), position: Position(8) };
        let marks = if id == count - 1 { Marks::from_iter([mark]) } else { Marks::new() };
        RowWrite { key, row: Some(row), version, marks }
    };
    let writes: Vec<RowWrite> = (0..count).map(write).collect();
    let keys = writes.iter().map(|write| write.key.clone()).collect();
    let advance =
        Advance { partition: partition.clone(), epoch, from: Position(0), to: Position(0) };
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
        let (ops, keys) = filled(500, MemoryStore::transactional()).await;
        for (first, room, least, most) in
            [(1, 105_000, 9, 11), (1, 0, 1, 1), (170, 0, 170, 170), (1, usize::MAX, 500, 500)]
        {
            let needed = Needed { keys: first, ..Needed::default() };
            let states = ops.clone().load(keys.clone(), needed, room).await.unwrap();
            let came: Vec<&Key> = states.loaded.iter().map(|(key, _)| key).collect();
            assert!((least..=most).contains(&came.len()), "{room}: {}", came.len());
            assert!(came.into_iter().eq(&keys[..states.loaded.len()]), "in their order");
        }
    });
}

/// Nearly as much is there as one record may touch.
fn nearly_over(keys: usize, place: Option<Place>) -> Needed {
    let mut together = Together::default();
    let text = "x".repeat(TOGETHER_BYTES_MAX - 105_000);
    together.add(Some(&Row::new(vec![Value::text(&text)])));
    Needed { keys, together: Some(together), place }
}

#[test]
fn a_load_ends_where_the_rows_of_the_first_record_are_more_than_it_may_touch() {
    runtime(0).block_on(async {
        for store in [MemoryStore::transactional, MemoryStore::with_marks] {
            let (ops, keys) = filled(500, store()).await;
            let place = |offset| Some((TopicPartition::new("events", 0), offset));
            let load = |needed: Needed| ops.clone().load(keys.clone(), needed, 0);
            for place in [None, place(8)] {
                let states = load(nearly_over(500, place)).await.unwrap();
                assert!(states.over && states.loaded.len() <= 120, "{}", states.loaded.len());
            }
            let states = load(nearly_over(10, None)).await.unwrap();
            assert!(!states.over && states.loaded.len() == 10, "they are within it");
            if ops.writer.keeps_marks() {
                // A crash came between two of its rows: it is to be applied to the others.
                let states = load(nearly_over(500, place(7))).await.unwrap();
                assert!(!states.over && states.loaded.len() == 500);
            }
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
