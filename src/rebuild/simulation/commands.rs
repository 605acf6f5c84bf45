//! What an operator asks for and is told.

use std::time::Duration;

use foldline_api::rebuild::By;
use foldline_api::sink::Target as _;
use foldline_testkit::MemoryStore;

use super::World;
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
