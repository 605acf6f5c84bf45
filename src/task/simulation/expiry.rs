//! Rows that the clock deletes, under the same faults: clocks of worker and store that disagree, go back and jump.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldline_api::expiry::{Horizon, Horizons as _};
use foldline_api::model::{Key, Row};
use foldline_api::parked::Request;
use foldline_language::projection::Projection;
use foldline_testkit::{Faults, MemoryStore, Rng, Script};

use super::events::plain_fold;
use super::world::World;
use super::{OneDecoder, decoder, each_seed, replays, runtime};
use crate::clock::simulated;
use crate::expiry::Expiry;
use crate::policy::OnBadRecord;
use crate::replay::Fold;

pub(crate) const HOUR: i64 = 3_600_000;
/// 2026-03-01.
pub(crate) const BEGIN: i64 = 1_772_323_200_000;

/// What of these rows the horizon has not passed.
pub(crate) fn kept(
    projection: &Projection,
    mut rows: BTreeMap<Key, Row>,
    horizon: Horizon,
) -> BTreeMap<Key, Row> {
    let rule = projection.rule().unwrap();
    rows.retain(|key, _| !rule.has_passed(horizon, key));
    rows
}

/// A world whose rows go six hours after their own.
fn world(seed: u64) -> World {
    let mut rng = Rng::new(seed);
    let store =
        if rng.chance(500) { MemoryStore::transactional() } else { MemoryStore::with_marks() };
    let loads = rng.chance(300);
    let on_bad_record = if rng.chance(500) { OnBadRecord::Park } else { OnBadRecord::DeadLetter };
    let script = Script::new(seed ^ 0xF00D, Faults::some());
    let mut world = World { loads, on_bad_record, ..World::of("hours", store, rng, script) };
    let rule = world.projection.rule().unwrap().clone();
    world.spec.expire = Some(rule.clone());
    let metrics = world.metrics.connector("c").expiry();
    world.expiry = Some(Arc::new(Expiry::new("c", rule, simulated::now, metrics)));
    world.set_clocks(BEGIN);
    if world.rng.chance(300) {
        // It has no time for more rows at once, whoever asks.
        world.store.limit("t", 6 + usize::try_from(world.rng.below(10)).unwrap());
    }
    world
}

impl World {
    /// The worker's clock is this; the store's is off by up to two hours.
    fn set_clocks(&mut self, now: i64) {
        simulated::set(now);
        let off = i64::try_from(self.rng.below(4)).unwrap() - 2;
        self.store.set_clock(now + off * HOUR);
    }

    async fn horizon(&self) -> Horizon {
        let target = self.store.target(self.spec.clone());
        target.look().await.unwrap().horizon.expect("there is a horizon")
    }

    /// Runs without faults for so long that the horizon is looked at again.
    async fn look_again(&mut self) {
        self.start_task().await;
        self.catch_up().await;
        tokio::time::sleep(Duration::from_secs(200)).await;
        let (task, cancel) = self.tasks.pop().unwrap();
        cancel.cancel();
        task.await.unwrap().unwrap();
    }

    /// The rows are those of a fold that knows no clock, less what the horizon has passed; and so are those of a replay.
    async fn compare_at_horizon(&self, seed: u64) {
        let (horizon, records) = (self.horizon().await, self.log.records("events"));
        let parks = BTreeMap::new();
        let parks = (self.on_bad_record == OnBadRecord::Park).then_some(&parks);
        let plain = plain_fold(&self.projection, &records, parks);
        let expect = kept(&self.projection, plain.rows, horizon);
        assert_eq!(self.store.rows("t"), expect, "seed {seed}: at {horizon}");
        if parks.is_some() {
            return;
        }
        let decoders = Arc::new(OneDecoder(decoder(&self.projection)));
        let mut fold = Fold::new(Arc::clone(&self.projection), decoders, 1 << 20);
        fold.expire(Some(horizon));
        for record in &records {
            fold.fold(record).unwrap();
        }
        let found = fold.unseen().unwrap();
        let states = found.into_iter().map(|key| {
            let row = fold.state(&key).unwrap().row.unwrap();
            (key, row)
        });
        assert_eq!(states.collect::<BTreeMap<_, _>>(), expect, "seed {seed}: a replay");
    }
}

async fn run_seed(seed: u64) -> u64 {
    let mut world = world(seed);
    world.begin().await;
    world.script.set(Faults::some());
    world.start_task().await;
    let mut before = Horizon(i64::MIN);
    for _ in 0..25 {
        world.produce();
        let pause = world.rng.below(20_000);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        // Now and then back, as a clock that is set right.
        let hours = i64::try_from(world.rng.below(5)).unwrap() - 1;
        world.set_clocks(simulated::now() + hours * HOUR / 2);
        world.disturb().await;
        if world.tasks.is_empty() {
            world.start_task().await;
        }
        if let Some(at) = world.tasks.iter().position(|(task, _)| task.is_finished()) {
            world.tasks.remove(at).0.await.unwrap().unwrap();
        }
        let target = world.store.target(world.spec.clone());
        if let Some(horizon) = target.look().await.unwrap().horizon {
            assert!(horizon >= before, "seed {seed}: never back");
            before = horizon;
        }
    }
    world.settle().await;
    world.look_again().await;
    world.compare_at_horizon(seed).await;
    let deleted = world.metrics.connector("c").expiry().rows.get();
    let filtered = world.metrics.connector("c").filtered.get();
    // Everything goes, but for what is younger than six hours.
    world.set_clocks(simulated::now() + 20 * HOUR);
    world.look_again().await;
    world.compare_at_horizon(seed).await;
    assert!(world.store.rows("t").is_empty(), "seed {seed}: nothing is left");
    deleted * 1_000 + filtered
}

#[test]
fn what_is_left_is_the_plain_fold_at_the_horizon() {
    each_seed(2, run_seed);
}

#[test]
fn a_seed_of_clocks_replays() {
    replays(run_seed);
}

#[test]
fn a_late_event_writes_nothing_however_it_comes() {
    for loads in [false, true] {
        runtime(4).block_on(async {
            let mut world = world(4);
            (world.loads, world.on_bad_record) = (loads, OnBadRecord::Park);
            world.begin().await;
            world.script.set(Faults::default());
            let append = |world: &World, hours: i64, v: &str| {
                let at = Horizon(simulated::now() - hours * HOUR);
                let value = format!(r#"{{"id":1,"at":"{at}","kind":"add","v":{v}}}"#);
                let record = (Some(Bytes::from_static(b"k")), Some(Bytes::from(value)));
                world.log.append_record("events", 0, record, Vec::new(), Some(0));
            };
            // Ten hours ago it would be bad, four hours ago it is, and the key waits with what comes.
            for (hours, v) in [(10, "1"), (10, "\"bad\""), (4, "\"bad\""), (4, "1")] {
                append(&world, hours, v);
            }
            world.settle().await;
            let m = world.metrics.connector("c");
            assert_eq!((m.filtered.get(), m.parked.get(), world.parked().await.len()), (2, 2, 2));
            assert_eq!((m.upserts.get(), m.deletes.get()), (0, 0));
            // What waits is late by now: a retry frees it, and writes nothing.
            world.set_clocks(BEGIN + 5 * HOUR);
            world.loads = false;
            world.ask(Request::Retry).await;
            assert_eq!((world.parked().await.len(), world.store.rows("t").len()), (0, 0));
            assert_eq!((m.upserts.get(), m.deletes.get()), (0, 0));
        });
    }
}

#[test]
fn a_clock_that_jumps_deletes_nothing_until_somebody_says_so() {
    runtime(3).block_on(async {
        let mut world = world(3);
        (world.loads, world.on_bad_record) = (false, OnBadRecord::DeadLetter);
        world.begin().await;
        world.script.set(Faults::default());
        world.produce();
        world.look_again().await;
        let (rows, horizon) = (world.store.rows("t"), world.horizon().await);
        assert!(!rows.is_empty());
        world.store.set_clock(i64::MAX);
        simulated::set(BEGIN + 24 * HOUR * 400);
        world.look_again().await;
        assert_eq!((world.store.rows("t"), world.horizon().await), (rows.clone(), horizon));
        let expiry = world.expiry.clone().unwrap();
        let (message, _) = expiry.view().paused.expect("it says so");
        assert!(message.contains("`foldline resume c --expiry`"), "{message}");
        // The store's clock is right: the lesser of the two counts, and nothing is wrong any more.
        world.store.set_clock(BEGIN);
        world.look_again().await;
        assert_eq!((expiry.view().paused, world.store.rows("t")), (None, rows));
        world.store.set_clock(i64::MAX);
        world.look_again().await;
        assert!(expiry.view().paused.is_some());
        let (from, to) = expiry.go_on(&*world.store.target(world.spec.clone())).await.unwrap();
        assert_eq!((from, to), (Some(horizon), Horizon(BEGIN + HOUR * (24 * 400 - 6))));
        world.look_again().await;
        assert_eq!(expiry.view().paused, None);
        assert!(world.store.rows("t").is_empty());
    });
}
