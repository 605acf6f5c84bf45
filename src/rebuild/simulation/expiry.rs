//! Rows that the clock deletes, while generations are built, swapped and rolled back.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::expiry::{Horizon, Horizons as _};
use foldline_api::sink::Target as _;
use foldline_api::source::Log as _;
use foldline_testkit::{Faults, MemoryStore};

use super::{Seen, World, each_seed, oracle, runtime};
use crate::clock::simulated;
use crate::expiry::Expiry;
use crate::metrics::Metrics;
use crate::task::simulation::expiry::{BEGIN, HOUR, kept};

impl World {
    /// What a worker knows of the horizon: each its own.
    pub(super) fn expiry(&self) -> Option<Arc<Expiry>> {
        let metrics = Metrics::new().unwrap().connector("c").expiry();
        let rule = self.spec.expire.clone()?;
        Some(Arc::new(Expiry::new("c", rule, simulated::now, metrics)))
    }

    /// Rows go six hours after their own.
    fn of_hours(seed: u64) -> Self {
        let mut world = World::new(seed);
        let projection = super::projection("hours");
        world.name = "hours";
        world.spec = super::spec_of("t", (**projection.model()).clone());
        world.spec.fingerprint = projection.fingerprint().to_owned();
        world.spec.expire = projection.rule().cloned();
        world.projection = projection;
        world.set_clocks(BEGIN);
        world
    }

    /// The workers' clock is this; the store's is off by up to two hours.
    fn set_clocks(&mut self, now: i64) {
        simulated::set(now);
        let off = i64::try_from(self.rng.below(4)).unwrap() - 2;
        self.store.set_clock(now + off * HOUR);
    }

    async fn horizon(&self) -> Option<Horizon> {
        self.store.target(self.spec.clone()).look().await.ok()?.horizon
    }
}

async fn run_seed(seed: u64) -> usize {
    let mut world = World::of_hours(seed);
    let mut seen = Seen { rule: world.spec.expire.clone(), ..Seen::default() };
    world.start_worker();
    let mut before = None;
    for _ in 0..25 {
        world.produce();
        let pause = world.rng.below(8_000);
        world.pass(pause, &mut seen).await;
        let hours = i64::try_from(world.rng.below(5)).unwrap() - 1;
        world.set_clocks(simulated::now() + hours * HOUR / 2);
        world.disturb().await;
        if world.workers.is_empty() {
            world.start_worker();
        }
        let horizon = world.horizon().await;
        assert!(horizon >= before, "seed {seed}: never back");
        before = horizon;
    }
    world.settle().await;
    let (plain, _) = oracle(&world.projection, &world.records().await);
    let horizon = world.horizon().await.unwrap();
    let expect = kept(&world.projection, plain, horizon);
    let found = world.store.rows("t");
    assert_eq!(kept(&world.projection, found, horizon), expect, "seed {seed}: at {horizon}");
    // Whoever comes next deletes what is left of the rest.
    world.start_worker();
    tokio::time::sleep(Duration::from_secs(200)).await;
    let horizon = world.horizon().await.unwrap();
    let expect = kept(&world.projection, expect, horizon);
    assert_eq!(world.store.rows("t"), expect, "seed {seed}: nothing else is there");
    for worker in world.workers.drain(..) {
        worker.stop().await;
    }
    expect.len()
}

/// A row that readers saw go never comes back with the swap, whenever the horizon moves during the build.
async fn moves_after(millis: u64, store: MemoryStore) {
    let mut world = World::of_hours(1);
    world.script.set(Faults::default());
    world.store = store;
    world.set_clocks(BEGIN);
    for _ in 0..10 {
        world.produce();
    }
    world.start_worker();
    let highs: i64 = world.group.partitions().await.unwrap().iter().map(|i| i.high.0).sum();
    let done = |world: &World| world.store.positions("t").iter().map(|p| p.position.0).sum::<i64>();
    world.until(|world| done(world) == highs).await;
    let connector = Arc::clone(&world.workers[0].connector);
    let asked = connector.rebuild(false).await.unwrap();
    tokio::time::sleep(Duration::from_millis(millis)).await;
    simulated::set(BEGIN + 5 * HOUR);
    world.store.set_clock(BEGIN + 5 * HOUR);
    let (_, horizon) = connector.resume_expiry().await.unwrap();
    let rule = world.spec.expire.clone().unwrap();
    let past = |world: &World| {
        world.store.rows("t").keys().filter(|key| rule.has_passed(horizon, key)).count()
    };
    let mut least = past(&world);
    assert!(least > 0, "there is something to delete");
    for _ in 0..1_000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = past(&world);
        assert!(now <= least, "after {millis} ms: {now} rows, of {least} that were left");
        least = now;
    }
    let target = world.store.target(world.spec.clone());
    assert_eq!((target.rebuilds().generations().await.unwrap().live, least), (asked, 0));
    for worker in world.workers.drain(..) {
        worker.stop().await;
    }
}

#[test]
fn a_row_that_has_gone_does_not_come_back_with_the_swap() {
    for millis in (0..1_000).step_by(50) {
        for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
            runtime(1).block_on(moves_after(millis, store));
        }
    }
}

#[test]
fn rebuilds_at_a_horizon_that_moves_end_in_the_plain_fold() {
    each_seed(10, run_seed);
}
