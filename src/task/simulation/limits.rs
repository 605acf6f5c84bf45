//! Keys that the store cannot name, and batches that it has no time for.

use bytes::Bytes;
use foldline_api::model::Key;
use foldline_api::parked::Request;
use foldline_api::value::Value;
use foldline_testkit::{Faults, MemoryStore, Rng, Script};

use super::events::oracle;
use super::runtime;
use super::world::World;
use crate::policy::OnBadRecord;
use crate::task::*;

fn world(store: MemoryStore, loads: bool, on_bad_record: OnBadRecord) -> World {
    let script = Script::new(3, Faults::default());
    World { loads, on_bad_record, ..World::of("hot", store, Rng::new(3), script) }
}

fn append(world: &World, events: u64, keys: u64) {
    for event in 0..events {
        let value = Bytes::from(format!(r#"{{"id":{}}}"#, event % keys));
        let record = (None, Some(value));
        world.log.append_record("events", i32::try_from(event % 3).unwrap(), record, vec![], None);
    }
}

fn three() -> Key {
    Key::new(vec![Value::Int(3)])
}

/// A store that cannot spell key 3, filled twice: first nothing is looked up, as all keys are new.
async fn misspelt(world: &mut World) -> usize {
    world.begin().await;
    let spelling = |key: &Key| (*key == three()).then(|| "it has no such letter".to_owned());
    world.store.misspell("t", Arc::new(spelling));
    for _ in 0..2 {
        append(world, 40, 8);
        world.settle().await;
    }
    let records = world.log.records("events");
    let (mut expect, _) = oracle(&world.projection, &records);
    expect.remove(&three()).unwrap();
    assert_eq!(world.store.rows("t"), expect, "all other keys go on");
    10
}

#[test]
fn a_record_whose_key_the_store_cannot_name_is_a_bad_record_wherever_that_shows() {
    for store in [MemoryStore::transactional, MemoryStore::with_marks] {
        for loads in [false, true] {
            runtime(3).block_on(async {
                let mut world = world(store(), loads, OnBadRecord::DeadLetter);
                let bad = misspelt(&mut world).await;
                let letters = world.letters.letters();
                assert_eq!(letters.len(), bad, "each once");
                assert_eq!(world.store.verdicts("t").len(), bad, "a replay leaves them out");
            });
            runtime(3).block_on(async {
                let mut world = world(store(), loads, OnBadRecord::Park);
                let bad = misspelt(&mut world).await;
                let parked = world.parked().await;
                assert_eq!(parked.len(), bad, "with its later events");
                let told = |event: &foldline_api::parked::Parked| {
                    event.reason.as_deref().is_some_and(|reason| reason.contains("no such letter"))
                };
                assert!(parked.iter().any(told), "{parked:?}");
                world.ask(Request::Retry).await;
                let kept = world.parked().await;
                assert_eq!(kept.len(), bad, "a retry is refused in the same way");
                assert!(kept.iter().all(|event| event.request.is_none()), "and is done with");
                assert!(kept.iter().any(told), "{kept:?}");
            });
        }
    }
}

#[test]
fn what_the_store_has_no_time_for_is_made_smaller_down_to_one_row() {
    for store in [MemoryStore::transactional, MemoryStore::with_marks] {
        for (loads, rows_max) in [(false, 1), (false, 7), (true, 1), (true, 7)] {
            runtime(5).block_on(async {
                let mut world = world(store(), loads, OnBadRecord::DeadLetter);
                world.begin().await;
                world.store.limit("t", rows_max);
                append(&world, 300, 300);
                world.settle().await;
                append(&world, 300, 300);
                world.settle().await;
                let (expect, _) = oracle(&world.projection, &world.log.records("events"));
                assert_eq!(world.store.rows("t"), expect);
            });
        }
    }
}

#[test]
fn a_write_that_fails_again_and_again_shows_while_reads_work() {
    runtime(7).block_on(async {
        let mut world = world(MemoryStore::transactional(), false, OnBadRecord::DeadLetter);
        world.begin().await;
        append(&world, 30, 30);
        world.store.limit("t", 0);
        world.start_task().await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(997)).await;
            let trouble = world.status.snapshot().trouble.unwrap_or_default();
            let shown = trouble.contains("has time for") && trouble.contains("times in a row");
            assert!(shown, "{trouble}");
        }
        world.store.limit("t", 10);
        world.settle().await;
        assert_eq!(world.status.snapshot().trouble, None);
    });
}
