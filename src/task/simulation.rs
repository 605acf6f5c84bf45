//! The real task over a log and a store in memory, with faults that a seed decides: lost replies,
//! refusals, slow and partial writes, an outside writer, revocations, lost partitions, crashes. Each
//! run must end in the rows of the plain fold, and so must a run whose tasks load first, as in a rebuild. A
//! failing seed prints itself; `FOLDLINE_SEED=N` runs it alone, step by step as before.

mod events;
pub(crate) mod expiry;
mod letters;
mod limits;
mod memory;
mod parking;
mod recreated;
mod schemas;
mod shown;
mod together;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use foldline_api::source::{DeadLetter, Log};
use foldline_testkit::{Faults, MemoryStore, Rng, Script};
use tokio::time::Instant;

use self::events::{Expect, plain_fold};
pub(crate) use self::events::{OneDecoder, PARTITIONS, decoder, oracle, produce, projection};
pub(crate) use self::schemas::Registry;
use self::world::World;
use super::*;
use crate::maps::HashSet;

async fn run_seed(seed: u64) -> u64 {
    run(World::new(seed), seed).await
}

/// Rows that alone are larger than what there is room for, and events of a few bytes beside large ones.
async fn run_large(seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let store =
        if rng.chance(500) { MemoryStore::transactional() } else { MemoryStore::with_marks() };
    let (loads, memory) = (rng.chance(300), Some(2_000 + rng.below(30_000) as usize));
    let script = Script::new(seed ^ 0xF00D, Faults::some());
    run(World { loads, memory, ..World::of("large", store, rng, script) }, seed).await
}

async fn run(mut world: World, seed: u64) -> u64 {
    world.begin().await;
    world.script.set(Faults::some());
    world.registry.away(300);
    world.start_task().await;
    for _ in 0..25 {
        world.produce();
        let pause = world.rng.below(400);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        world.disturb().await;
        if world.tasks.is_empty() {
            world.start_task().await;
        }
        // A task that gave up after too many fences is started again, as the connector does.
        if let Some(at) = world.tasks.iter().position(|(task, _)| task.is_finished()) {
            let (task, _) = world.tasks.remove(at);
            assert_eq!(task.await.unwrap().unwrap(), Ended::Superseded, "seed {seed}");
        }
    }
    world.settle().await;
    let expect = world.compare(seed, &BTreeMap::new()).await;
    // A load neither sends dead letters nor counts what it fetched: that was done when they were folded first.
    if !world.loads {
        check_accounts(&world, seed, &expect);
    }
    if world.parks() {
        world.free_what_is_parked(seed).await;
    }
    world.metrics.connector("c").fetched.get()
}

fn check_accounts(world: &World, seed: u64, expect: &Expect) {
    let records = world.log.records("events");
    // At least once each, and no other record: what went wrong with calls is nobody's fault.
    let place = |letter: &DeadLetter| {
        let of = |name: &str| letter.headers.iter().find(|(known, _)| **known == *name).cloned();
        (of("__connect.errors.partition"), of("__connect.errors.offset"))
    };
    let set_aside: HashSet<_> = world.letters.letters().iter().map(place).collect();
    assert_eq!(
        set_aside.len() as u64,
        expect.bad,
        "seed {seed}: just the bad records are set aside"
    );
    let m = world.metrics.connector("c");
    let good = m.applied.get() + m.filtered.get() + m.replayed.get();
    let consumed = good + m.dead_lettered.get() + m.parked.get();
    assert_eq!(m.consumed.get(), consumed, "seed {seed}: outcomes add up");
    if !world.crashed {
        let settled = consumed + m.abandoned.get();
        assert_eq!(m.fetched.get(), settled, "seed {seed}: fetched = consumed + abandoned");
        assert_eq!(m.inflight.get(), 0, "seed {seed}: nothing is in flight at the end");
        assert_eq!(m.parked_keys.get(), 0, "seed {seed}: nobody holds a parked key");
    }
    if !world.crashed && !world.lost {
        assert!(consumed >= records.len() as u64, "seed {seed}: every record has an outcome");
    }
}

/// Time stands still while anything can run, and chance is the seed's.
pub(crate) fn runtime(seed: u64) -> tokio::runtime::Runtime {
    crate::chance::seeded::seed(seed);
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Runs this seed; how long it took on its clock, and what it told of itself.
pub(crate) fn one_seed<T>(seed: u64, run: impl AsyncFn(u64) -> T) -> (Duration, T) {
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime(seed).block_on(async {
            let begun = Instant::now();
            let limit = Duration::from_secs(100_000);
            let told = tokio::time::timeout(limit, run(seed)).await.expect("no progress");
            (begun.elapsed(), told)
        })
    }));
    ran.unwrap_or_else(|panic| {
        eprintln!("seed {seed} failed; run it alone with FOLDLINE_SEED={seed}");
        std::panic::resume_unwind(panic)
    })
}

/// Runs the seed that is asked for, or one in `part` of as many as are asked for, on all processors.
pub(crate) fn each_seed<T, F>(part: u64, run: F)
where
    F: AsyncFn(u64) -> T + Sync,
{
    let asked = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let count = asked("FOLDLINE_SEEDS").unwrap_or(5_000) / part;
    let seeds = Mutex::new(asked("FOLDLINE_SEED").map_or(0..count, |seed| seed..seed + 1));
    let next = || seeds.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = next() {
                    one_seed(seed, &run);
                }
            });
        }
    });
}

/// Runs each of some seeds twice, and sees no difference.
pub(crate) fn replays<T: PartialEq + std::fmt::Debug>(run: impl AsyncFn(u64) -> T) {
    for seed in 0..40 {
        assert_eq!(one_seed(seed, &run), one_seed(seed, &run), "seed {seed}");
    }
}

#[test]
fn a_load_writes_each_key_once_where_the_states_fit_into_memory() {
    runtime(11).block_on(async {
        for (memory, once) in [(1 << 20, true), (600, false)] {
            let script = Script::new(11, Faults::default());
            let store = MemoryStore::transactional();
            let mut world = World::of("accounts", store, Rng::new(11), script);
            (world.loads, world.memory) = (true, Some(memory));
            world.begin().await;
            for _ in 0..40 {
                world.produce();
            }
            world.settle().await;
            let records = world.log.records("events");
            let (expect, _) = oracle(&world.projection, &records);
            assert_eq!(world.store.rows("t"), expect);
            let m = world.metrics.connector("c");
            let written = m.upserts.get() + m.deletes.get();
            assert!(records.len() > 300 && written >= expect.len() as u64);
            if once {
                assert_eq!(written, expect.len() as u64, "each key is written once");
            }
        }
    });
}

#[test]
fn a_load_folds_a_key_of_several_partitions_by_the_records_time() {
    runtime(16).block_on(async {
        let script = Script::new(16, Faults::default());
        let mut world = World::of("order", MemoryStore::transactional(), Rng::new(16), script);
        world.loads = true;
        world.begin().await;
        let mut times: Vec<i64> = (0..3_000).collect();
        // One partition after the other, and unlike numbers of records.
        times.sort_by_key(|time| (time % 10).min(2));
        for time in times {
            let partition = i32::try_from((time % 10).min(2)).unwrap();
            let value = Bytes::from(format!(r#"{{"id":{},"n":{time}}}"#, time % 7));
            world.log.append_record("events", partition, (None, Some(value)), vec![], Some(time));
        }
        world.settle().await;
        let mut records = world.log.records("events");
        records.sort_by_key(|record| record.timestamp);
        let (expect, _) = oracle(&world.projection, &records);
        assert_eq!(world.store.rows("t"), expect);
    });
}

#[test]
fn any_faults_end_in_the_plain_fold() {
    each_seed(1, run_seed);
}

#[test]
fn batches_that_memory_ends_end_in_the_plain_fold() {
    each_seed(5, run_large);
}

#[test]
fn a_seed_replays() {
    replays(run_seed);
    replays(run_large);
}

/// Three members, each with a partition of its own, fold the same four rows through a slow store.
async fn meet_at_hot_rows(store: MemoryStore, seed: u64) {
    const EVENTS: u64 = 2_000;
    let slow = Faults { slow: 1_000, slow_max: Duration::from_millis(40), ..Faults::default() };
    let mut world = World::of("hot", store, Rng::new(seed), Script::new(seed, slow));
    for event in 0..EVENTS * 3 {
        let value = Bytes::from(format!(r#"{{"id":{}}}"#, event % 4));
        let record = (None, Some(value));
        world.log.append_record("events", i32::try_from(event % 3).unwrap(), record, vec![], None);
    }
    world.begin().await;
    world.script.set(slow);
    for _ in 0..3 {
        let writer = world.target().writer(1).await.unwrap();
        let limits = Limits { rows: 200, bytes: 1 << 20, age: Duration::from_millis(5) };
        world.start_task_with(writer, limits, 1 << 20);
    }
    let start = Instant::now();
    let done = |world: &World| world.store.positions("t").iter().map(|p| p.position.0).sum::<i64>();
    while done(&world) < i64::try_from(EVENTS * 3).unwrap() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        // One writer alone takes 30 flushes of some 40 ms.
        assert!(start.elapsed() < Duration::from_secs(30), "seed {seed}: no convergence");
    }
    let (expect, _) = oracle(&world.projection, &world.log.records("events"));
    assert_eq!(world.store.rows("t"), expect, "seed {seed}");
    let shares = world.store.positions("t");
    assert!(shares.iter().all(|share| share.position.0 > 0), "each had a part: {shares:?}");
    for (task, cancel) in world.tasks.drain(..) {
        cancel.cancel();
        assert_eq!(task.await.unwrap().unwrap(), Ended::Stopped, "seed {seed}");
    }
}

#[test]
fn writers_of_the_same_rows_converge_in_bounded_time() {
    for seed in 0..50 {
        runtime(seed).block_on(meet_at_hot_rows(MemoryStore::transactional(), seed));
        runtime(seed).block_on(meet_at_hot_rows(MemoryStore::with_marks(), seed));
    }
}

#[test]
fn a_path_that_no_event_has_is_warned_of_once_by_name() {
    let lines = crate::log::captured(|| {
        runtime(0).block_on(async {
            let store = MemoryStore::transactional();
            let script = Script::new(0, Faults::default());
            let mut world = World::of("hot", store, Rng::new(0), script);
            for event in 0..12_000 {
                let value = Bytes::from(format!(r#"{{"id":{}}}"#, event % 4));
                world.log.append_record("events", 0, (None, Some(value)), vec![], None);
            }
            world.begin().await;
            world.settle().await;
        });
    });
    let told: Vec<&String> = lines.iter().filter(|line| line.contains("misspelt")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("none of the first 10000 events") && told[0].contains("\"WARN\""));
}

#[test]
fn nothing_is_written_before_the_group_knows_the_generation() {
    runtime(0).block_on(async {
        let script = Script::new(0, Faults::default());
        let mut world = World::of("hot", MemoryStore::transactional(), Rng::new(0), script);
        world.log.append("events", 0, None, Some(r#"{"id":1}"#));
        world.begin().await;
        world.group.refuse_commits(true);
        world.start_task().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(
            world.store.rows("t").is_empty(),
            "an offset that looks reset would be taken for one"
        );
        world.group.refuse_commits(false);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(world.store.rows("t").len(), 1);
        for commit in world.group.committed().await.unwrap() {
            assert!(commit.metadata.starts_with("foldline/1 "), "{commit:?}");
        }
    });
}

/// What stands before a batch that cannot be read is durable when the task ends, so that a hole is no larger
/// than the batch; also where its records are read again meanwhile.
#[test]
fn what_stands_before_a_batch_that_cannot_be_read_is_folded_first() {
    for seed in 0..40 {
        runtime(seed).block_on(async {
            let store = MemoryStore::transactional();
            let faults = Faults { conflict: 200, fail_after: 100, ..Faults::default() };
            let script = Script::new(seed, Faults::default());
            let mut world = World::of("hot", store, Rng::new(seed), script);
            world.begin().await;
            for event in 0..300 {
                let value = Bytes::from(format!(r#"{{"id":{}}}"#, event % 4));
                world.log.append_record("events", 0, (None, Some(value)), vec![], None);
            }
            world.log.break_at("events", 0, 250);
            world.script.set(faults);
            world.start_task().await;
            let (task, _) = world.tasks.pop().unwrap();
            let error = task.await.unwrap().unwrap_err();
            assert!(error.message().contains("at offset 250"), "seed {seed}: {error}");
            let partition = TopicPartition::new("events", 0);
            let positions = world.store.positions("t");
            let place = positions.iter().find(|stored| stored.partition == partition).unwrap();
            assert_eq!(place.position.0, 250, "seed {seed}");
        });
    }
}
