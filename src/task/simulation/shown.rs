//! What tasks count and show of a run that nothing disturbs.

use bytes::Bytes;
use foldline_testkit::{Faults, MemoryStore, Rng, Script};

use super::world::{NOW, World};
use super::{BlockedBy, runtime};

fn append(world: &World, partition: i32, event: &str, time: i64) {
    let value = Bytes::from(event.to_owned());
    world.log.append_record("events", partition, (None, Some(value)), vec![], Some(time));
}

async fn world() -> World {
    let script = Script::new(1, Faults::default());
    let world = World::of("solo", MemoryStore::transactional(), Rng::new(1), script);
    world.begin().await;
    world
}

#[test]
fn rows_records_and_their_age_are_counted() {
    runtime(1).block_on(async {
        let mut world = world().await;
        world.start_task().await;
        append(&world, 0, r#"{"id":1,"kind":"add"}"#, NOW - 1_000);
        append(&world, 0, r#"{"id":2,"kind":"add"}"#, NOW - 2_500);
        append(&world, 1, r#"{"id":3,"kind":"add"}"#, NOW + 7);
        world.catch_up().await;
        append(&world, 0, r#"{"id":1,"kind":"drop"}"#, NOW - 4_000);
        append(&world, 0, r#"{"id":9,"kind":"touch"}"#, NOW);
        world.catch_up().await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;

        let m = world.metrics.connector("c");
        assert_eq!((m.upserts.get(), m.deletes.get()), (3, 1));
        assert_eq!((m.consumed.get(), m.applied.get(), m.filtered.get()), (5, 4, 1));
        assert_eq!((m.fetched.get(), m.inflight.get()), (5, 0));
        let rows = m.batch_rows.get_sample_sum();
        assert!((rows - 4.0).abs() < 1e-9, "{rows}");
        let (count, seconds) =
            (m.latency_seconds.get_sample_count(), m.latency_seconds.get_sample_sum());
        assert_eq!(count, 5);
        assert!((seconds - 7.5).abs() < 1e-9, "of one that is ahead of us nothing: {seconds}");
        let shown = world.status.snapshot();
        assert_eq!((shown.consumed, shown.oldest), (5, None), "all are durable");
        let places =
            shown.partitions.iter().map(|p| (p.partition.partition, p.position.0, p.lag()));
        let mut places: Vec<_> = places.collect();
        places.sort_unstable();
        assert_eq!(places, [(0, 4, Some(0)), (1, 1, Some(0)), (2, 0, Some(0))]);
    });
}

/// One new record behind an old one is not as late as the old one was.
#[test]
fn the_age_is_that_of_the_oldest_record_that_is_not_durable() {
    runtime(4).block_on(async {
        let mut world = world().await;
        let pause = |seconds| tokio::time::sleep(std::time::Duration::from_secs(seconds));
        world.start_task().await;
        append(&world, 0, r#"{"id":1,"kind":"add"}"#, NOW - 259_209_000);
        world.catch_up().await;
        assert_eq!(world.status.snapshot().oldest, None);
        let slow_max = std::time::Duration::from_secs(200);
        world.script.set(Faults { slow: 1_000, slow_max, ..Faults::default() });
        append(&world, 0, r#"{"id":1,"kind":"add"}"#, NOW - 5_000);
        append(&world, 1, r#"{"id":2,"kind":"add"}"#, NOW - 7_000);
        append(&world, 0, r#"{"id":1,"kind":"add"}"#, NOW - 3_000);
        pause(5).await;
        assert_eq!(world.status.snapshot().oldest, Some(NOW - 7_000));
        world.script.set(Faults::default());
        world.catch_up().await;
        assert_eq!(world.status.snapshot().oldest, None);
    });
}

#[test]
fn bad_records_are_counted_and_the_last_one_is_named() {
    runtime(5).block_on(async {
        let mut world = world().await;
        world.start_task().await;
        for _ in 0..12 {
            append(&world, 0, r#"{"id":"#, NOW);
        }
        world.catch_up().await;
        let bad = world.status.snapshot().bad;
        assert_eq!((bad.count, bad.in_a_row, bad.is_all()), (12, 12, true));
        let last = bad.last.unwrap();
        assert_eq!((last.place.0.partition, last.place.1, last.at), (0, 11, NOW));
        assert!(last.reason.starts_with("value_converter: "), "{}", last.reason);
        append(&world, 1, r#"{"id":1,"kind":"add"}"#, NOW);
        world.catch_up().await;
        let bad = world.status.snapshot().bad;
        assert_eq!((bad.count, bad.in_a_row), (12, 0));
    });
}

#[test]
fn what_is_in_the_way_is_shown_while_nothing_moves() {
    runtime(3).block_on(async {
        let mut world = world().await;
        let pause = |seconds| tokio::time::sleep(std::time::Duration::from_secs(seconds));
        let shown = |world: &World| world.status.snapshot().blocked_by();
        world.group.refuse_commits(true);
        append(&world, 0, r#"{"id":1,"kind":"add"}"#, NOW);
        world.start_task().await;
        pause(60).await;
        assert_eq!(shown(&world), Some(BlockedBy::Group));
        world.group.refuse_commits(false);
        world.catch_up().await;
        pause(5).await;
        assert_eq!(shown(&world), None, "there is nothing to do");

        let slow_max = std::time::Duration::from_secs(200);
        world.script.set(Faults { slow: 1_000, slow_max, ..Faults::default() });
        append(&world, 0, r#"{"id":2,"kind":"add"}"#, NOW);
        pause(5).await;
        assert_eq!(shown(&world), Some(BlockedBy::Write));
        world.script.set(Faults::default());
        world.catch_up().await;
        assert_eq!(shown(&world), None, "it has just moved");
    });
}

#[test]
fn the_gauge_of_partitions_is_that_of_all_tasks() {
    runtime(2).block_on(async {
        let mut world = world().await;
        let assigned = world.metrics.connector("c").assigned;
        for tasks in 1..=3 {
            world.start_task().await;
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            assert_eq!(assigned.get(), 3, "{tasks} tasks");
        }
        for (task, cancel) in world.tasks.drain(..) {
            cancel.cancel();
            task.await.unwrap().unwrap();
        }
        assert_eq!(assigned.get(), 0);
    });
}
