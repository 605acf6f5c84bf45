//! A topic that is deleted and made again under running tasks: nothing of the new one is folded into what the old one made.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use foldline_api::source::Log;
use foldline_testkit::Faults;

use super::events::PARTITIONS;
use super::world::World;
use super::{each_seed, replays};
use crate::task::*;

/// A record of the new topic; a few are bad.
fn value(world: &mut World) -> Bytes {
    let id = world.rng.below(12);
    Bytes::from(match world.rng.below(6) {
        0 => format!(r#"{{"life":2,"id":{id}"#),
        1 => format!(r#"{{"life":2,"id":0,"kind":"many","ids":[{id}]}}"#),
        _ => format!(r#"{{"life":2,"id":{id},"kind":"add","v":1}}"#),
    })
}

/// Deletes the topic and makes it anew, for some time without one between; each partition soon has more records than before.
async fn recreate(world: &mut World) {
    let infos = world.group.partitions().await.unwrap();
    world.log.delete_topic("events");
    if world.rng.chance(300) {
        let pause = world.rng.below(300);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    world.log.create_topic("events", PARTITIONS);
    for info in infos {
        let (partition, end) = (info.partition.partition, info.high.0);
        for _ in 0..end + 1 + i64::try_from(world.rng.below(60)).unwrap() {
            let record = (None, Some(value(world)));
            world.log.append_record("events", partition, record, Vec::new(), Some(0));
        }
    }
}

async fn run_seed(seed: u64) -> u64 {
    let mut world = World::new(seed);
    world.begin().await;
    world.script.set(Faults::some());
    // More comes of the log meanwhile.
    world.log.answer_later(Duration::from_millis(world.rng.below(3)));
    world.start_task().await;
    for _ in 0..world.rng.below(12) {
        world.produce();
        let pause = world.rng.below(200);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        world.disturb().await;
        world.tasks.retain(|(task, _)| !task.is_finished());
        if world.tasks.is_empty() {
            world.start_task().await;
        }
    }
    if world.rng.chance(700) {
        // An idle task asks as soon as something comes: the topic goes while its answer is on its way.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    world.produce();
    let within = if world.rng.chance(700) { 4 } else { 60 };
    let pause = world.rng.below(within);
    tokio::time::sleep(Duration::from_millis(pause)).await;
    let before = world.log.copy();
    recreate(&mut world).await;
    // One that starts now sees it when it takes its partitions.
    world.start_task().await;
    let mut stopped = 0;
    for _ in 0..300 {
        let more = world.rng.below(PARTITIONS as u64);
        let record = (None, Some(value(&mut world)));
        let partition = i32::try_from(more).unwrap();
        world.log.append_record("events", partition, record, Vec::new(), Some(0));
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (task, _) in world.tasks.extract_if(.., |(task, _)| task.is_finished()) {
            match task.await.unwrap() {
                Err(error) => {
                    // One that takes its partitions again just then sees that there is no topic.
                    let said = ["created again", "does not exist"];
                    let said = said.iter().any(|part| error.to_string().contains(part));
                    assert!(said, "seed {seed}: {error}");
                    stopped += 1;
                }
                Ok(ended) => assert_eq!(ended, Ended::Superseded, "seed {seed}"),
            }
        }
    }
    assert!(stopped > 0, "seed {seed}: somebody says so");
    let new = |letter: &foldline_api::source::DeadLetter| {
        letter.value.as_ref().is_some_and(|value| value.starts_with(b"{\"life\":2"))
    };
    assert!(!world.letters.letters().iter().any(new), "seed {seed}: a letter of the new topic");
    // With the old topic back, as from a mirror, the rest of it is folded, and nothing else ever was.
    world.group = before.group("g", &["events"]);
    world.log = before;
    world.settle().await;
    world.compare(seed, &BTreeMap::new()).await;
    world.metrics.connector("c").fetched.get()
}

#[test]
fn nothing_of_a_topic_that_was_made_anew_is_folded() {
    each_seed(5, run_seed);
}

#[test]
fn a_seed_replays() {
    replays(run_seed);
}
