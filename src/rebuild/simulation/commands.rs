//! What an operator asks for and is told.

use std::time::Duration;

use foldline_api::parked::Which;
use foldline_api::rebuild::By;
use foldline_api::sink::{DesiredState, Target as _};
use foldline_testkit::{Faults, MemoryStore};

use super::World;
use crate::connector::State;
use crate::policy::OnBadRecord;
use crate::task::simulation::runtime;

#[test]
fn a_rebuild_in_place_that_is_asked_for_twice_empties_once() {
    runtime(3).block_on(async {
        let world = World::quiet(MemoryStore::transactional());
        world.until(|world| !world.store.positions("t").is_empty()).await;
        world.append().await;
        let connector = &world.workers[0].connector;
        assert_eq!(connector.rebuild_in_place(false, Some(1)).await.unwrap(), 2);
        // The first answer was lost.
        let again = connector.rebuild_in_place(false, Some(1)).await.unwrap_err();
        assert!(again.to_string().contains("generation 1 of c is no longer live, 2 is"), "{again}");
        assert_eq!(connector.view().generation, 2, "what the next command carries");
        let target = world.store.target(world.spec.clone());
        assert_eq!(target.status().await.unwrap().generation, 2);
        assert_eq!(connector.rebuild_in_place(false, Some(2)).await.unwrap(), 3);
    });
}

#[test]
fn a_build_whose_load_cannot_be_written_says_so() {
    runtime(3).block_on(async {
        for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
            let world = World::quiet(store);
            world.until(|world| !world.store.positions("t").is_empty()).await;
            for _ in 0..3 {
                world.append().await;
            }
            world.store.limit("t", 0);
            let connector = &world.workers[0].connector;
            let asked = connector.rebuild(false).await.unwrap();
            let trouble = || connector.view().rebuild.map(|shown| shown.json()["trouble"].clone());
            let told = |shown: &serde_json::Value| {
                shown.as_str().is_some_and(|text| text.contains("has time for"))
            };
            world.until(|_| trouble().as_ref().is_some_and(told)).await;
            // Attempt after attempt, and not only in between.
            for _ in 0..200 {
                tokio::time::sleep(Duration::from_millis(997)).await;
                assert!(trouble().as_ref().is_some_and(told), "{:?}", trouble());
            }
            world.store.limit("t", 10);
            world.until(|_| !trouble().as_ref().is_some_and(told)).await;
            world.until(|world| world.workers[0].connector.view().generation == asked).await;
        }
    });
}

#[test]
fn a_build_of_another_config_says_whose_it_is() {
    runtime(3).block_on(async {
        let world = World::quiet(MemoryStore::transactional());
        world.until(|world| !world.store.positions("t").is_empty()).await;
        let mut others = world.spec.clone();
        others.projection["topics"] = serde_json::json!(["others"]);
        others.fingerprint = others.projection.to_string();
        let target = world.store.target(others);
        let number = target.rebuilds().begin(By::Operator, &[], &[]).await.unwrap();
        let connector = &world.workers[0].connector;
        let waiting = || connector.view().rebuild.and_then(|shown| shown.waiting);
        world.until(|_| waiting().is_some()).await;
        let waiting = waiting().unwrap_or_default();
        let whose = format!("generation {number} is being built by another config");
        assert!(waiting.contains(&whose) && waiting.contains("topics"), "{waiting}");
        assert!(waiting.contains("foldline rebuild c --cancel"), "{waiting}");
    });
}

#[test]
fn a_record_has_one_letter_through_a_rebuild_in_place_and_a_rollback() {
    runtime(3).block_on(async {
        for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
            let world = World::quiet(store);
            world.until(|world| !world.store.positions("t").is_empty()).await;
            let letters = || world.letters.letters().len();
            let mut bad = 0;
            let append = async || {
                world.log.append("events", 0, None, Some("{"));
                world.append().await;
            };
            append().await;
            bad += 1;
            assert_eq!(letters(), bad);
            let connector = &world.workers[0].connector;
            let emptied = connector.rebuild_in_place(false, None).await.unwrap();
            let stands = world.store.rows("t");
            assert!(stands.is_empty(), "{stands:?}");
            world
                .until(|world| {
                    connector.view().generation == emptied && !world.store.rows("t").is_empty()
                })
                .await;
            assert_eq!(letters(), bad, "in place");
            world.rebuilt().await;
            append().await;
            bad += 1;
            assert_eq!(letters(), bad);
            let back = connector.roll_back(None).await.unwrap();
            append().await;
            bad += 1;
            assert_eq!((connector.view().generation, letters()), (back, bad), "rolled back");
        }
    });
}

#[test]
fn each_resume_lets_as_many_be_parked_as_the_limit_says() {
    runtime(3).block_on(async {
        // The session looks at what is wanted before, while and after the answer of the command is on its way.
        for late in (0..40).map(|step| Duration::from_millis(100 * step)) {
            let mut world = World::quiet(MemoryStore::transactional());
            for worker in world.workers.drain(..) {
                worker.stop().await;
            }
            (world.on_bad_record, world.parked_max) = (OnBadRecord::Park, 3);
            world.start_worker();
            for id in 0..10 {
                let value = format!(r#"{{"id":{id},"kind":"add","v":"many"}}"#);
                world.log.append("events", 0, None, Some(&value));
            }
            let target = world.store.target(world.spec.clone());
            let paused = async |events: usize| {
                world.until(|world| world.workers[0].connector.view().state == State::Paused).await;
                let parked = target.parking().parked(1, &Which::default()).await.unwrap();
                assert_eq!(parked.len(), events, "{late:?}");
            };
            paused(3).await;
            let slow_max = Duration::from_millis(300);
            let (slow, command_late) = (1_000, late);
            world.script.set(Faults { slow, slow_max, command_late, ..Faults::default() });
            world.workers[0].connector.command(DesiredState::Running).await.unwrap();
            world.script.set(Faults::default());
            tokio::time::sleep(Duration::from_secs(60)).await;
            paused(6).await;
            for worker in world.workers.drain(..) {
                worker.stop().await;
            }
        }
    });
}
