//! Records whose rows take more than one record may touch.

use std::collections::BTreeMap;

use bytes::Bytes;
use foldline_api::model::{Key, Row};
use foldline_api::parked::Request;
use foldline_testkit::{Faults, MemoryStore, Rng, Script};

use super::events::{OneDecoder, decoder, oracle};
use super::runtime;
use super::world::World;
use crate::policy::OnBadRecord;
use crate::replay::{Fold, Outcome};
use crate::task::*;

fn world(store: MemoryStore, loads: bool, on_bad_record: OnBadRecord) -> World {
    let script = Script::new(3, Faults::default());
    let memory = Some(1 << 20);
    World { loads, on_bad_record, memory, ..World::of("heavy", store, Rng::new(3), script) }
}

/// An event on these rows; with a text of so many bytes for each.
fn append(world: &World, ids: std::ops::Range<usize>, text: Option<usize>) {
    let ids = ids.map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    let text = text.map_or(String::new(), |bytes| format!(r#","s":"{}""#, "x".repeat(bytes)));
    let value = Bytes::from(format!(r#"{{"id":0,"ids":[{ids}]{text}}}"#));
    world.log.append_record("events", 0, (None, Some(value)), vec![], None);
}

/// Forty rows of a megabyte, and events on some of them and on all.
async fn fill(world: &mut World) {
    world.begin().await;
    append(world, 0..20, Some(1_000_000));
    append(world, 20..40, Some(1_000_000));
    append(world, 0..3, None);
    append(world, 0..40, None);
    append(world, 0..30, None);
    world.settle().await;
    append(world, 0..40, None);
    append(world, 39..40, None);
    append(world, 0..20, Some(10));
    append(world, 0..40, None);
    world.settle().await;
}

/// What `verify` folds, in so little memory that each row is read back.
fn replayed(world: &World) -> (BTreeMap<Key, Row>, Vec<String>) {
    let projection = &world.projection;
    let decoders = Arc::new(OneDecoder(decoder(projection)));
    let mut fold = Fold::new(Arc::clone(projection), decoders, 1);
    let mut bad = Vec::new();
    for record in world.log.records("events") {
        if let Outcome::Bad(stage, reason) = fold.fold(&record).unwrap().outcome {
            bad.push(format!("{stage}: {reason}"));
        }
    }
    let keys = fold.unseen().unwrap().into_iter();
    let rows = keys.map(|key| (key.clone(), fold.state(&key).unwrap().row.unwrap())).collect();
    (rows, bad)
}

#[test]
fn such_a_record_is_bad_and_all_others_are_folded() {
    for store in [MemoryStore::transactional, MemoryStore::with_marks] {
        for loads in [false, true] {
            for on_bad_record in [OnBadRecord::DeadLetter, OnBadRecord::Skip] {
                runtime(3).block_on(async {
                    let mut world = world(store(), loads, on_bad_record);
                    fill(&mut world).await;
                    let (expect, bad) = oracle(&world.projection, &world.log.records("events"));
                    assert_eq!(bad, 2);
                    assert_eq!(world.store.rows("t"), expect);
                    let letters = world.letters.letters();
                    let offsets: Vec<_> = letters.iter().map(|letter| letter.offset).collect();
                    // Those of a load wait in the books of its build.
                    let sent = on_bad_record == OnBadRecord::DeadLetter && !loads;
                    assert_eq!(offsets, if sent { vec![3, 5] } else { vec![] });
                    let counted = world.metrics.connector("c");
                    assert_eq!(counted.dead_lettered.get() + counted.skipped.get(), 2);
                    let (rows, bad) = replayed(&world);
                    assert_eq!(rows, expect, "a verification gives the same");
                    let told =
                        |why: &String| why.starts_with("budget: the 40 rows that the record");
                    assert!(bad.len() == 2 && bad.iter().all(told), "{bad:?}");
                });
            }
        }
    }
}

#[test]
fn it_is_parked_with_what_comes_behind_and_judged_anew_by_a_retry() {
    for store in [MemoryStore::transactional, MemoryStore::with_marks] {
        runtime(3).block_on(async {
            let mut world = world(store(), false, OnBadRecord::Park);
            fill(&mut world).await;
            let offsets = |parked: Vec<foldline_api::parked::Parked>| -> Vec<i64> {
                parked.iter().map(|event| event.offset).collect()
            };
            let parked = world.parked().await;
            assert!(parked[0].keys.len() == 40 && parked[0].reason.is_some(), "{:?}", parked[0]);
            assert_eq!(offsets(parked), [3, 4, 5, 6, 7, 8]);
            let before = world.store.rows("t");
            world.ask(Request::Retry).await;
            assert_eq!(offsets(world.parked().await), [3, 4, 5, 6, 7, 8], "it is bad as before");
            assert_eq!(world.store.rows("t"), before);
            // What waits behind is folded, up to the next that is bad, and so on.
            for _ in 0..10 {
                world.ask(Request::Skip).await;
            }
            assert_eq!(offsets(world.parked().await), Vec::<i64>::new());
            let (expect, bad) = oracle(&world.projection, &world.log.records("events"));
            assert_eq!((world.store.rows("t"), bad), (expect, 2));
        });
    }
}

#[test]
fn the_connector_stops_at_it_where_the_config_says_so() {
    runtime(3).block_on(async {
        let mut world = world(MemoryStore::transactional(), false, OnBadRecord::Stop);
        world.begin().await;
        append(&world, 0..20, Some(1_000_000));
        append(&world, 20..40, Some(1_000_000));
        append(&world, 0..40, None);
        world.start_task().await;
        let (task, _) = world.tasks.pop().unwrap();
        let error = task.await.unwrap().unwrap_err().to_string();
        let told = error.contains("events-0 at offset 2") && error.contains("33,554,432 bytes");
        assert!(told && error.contains("send an event for each of fewer rows"), "{error}");
        assert_eq!(world.store.rows("t").len(), 40, "what stands before it is durable");
    });
}

/// Events of fifteen rows each, that share one with the next: they are one group, and no flush holds the rows of all.
#[test]
fn a_group_of_parked_events_is_freed_in_parts_where_its_rows_are_many() {
    for store in [MemoryStore::transactional, MemoryStore::with_marks] {
        runtime(3).block_on(async {
            let mut world = world(store(), false, OnBadRecord::Park);
            world.begin().await;
            // Bad as long as the store says so.
            let refuses = |_: &Row| Some("a CHECK".to_owned());
            world.store.constrain("t", Some(Arc::new(refuses)));
            for first in (0..140).step_by(14) {
                append(&world, first..first + 15, Some(1_000_000));
            }
            world.settle().await;
            assert_eq!(world.parked().await.len(), 10);
            world.store.constrain("t", None);
            let place = world.parked().await[0].place();
            let target = world.store.target(world.spec.clone());
            let parking = target.parking();
            assert!(parking.ask(1, &place, Request::Retry).await.unwrap());
            let flushed = world.metrics.connector("c").batch_rows;
            let before = flushed.get_sample_count();
            world.start_task().await;
            for _ in 0..2_000 {
                if world.parked().await.is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            assert_eq!(
                world.parked().await,
                [],
                "all of it is freed, though one event was asked for"
            );
            let (expect, _) = oracle(&world.projection, &world.log.records("events"));
            assert_eq!(world.store.rows("t"), expect);
            let flushes = flushed.get_sample_count() - before;
            assert!((4..=6).contains(&flushes), "{flushes} flushes, each of some 32 MiB");
        });
    }
}
