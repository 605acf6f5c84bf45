//! Parked keys under the same faults: what is set aside, tried again, left out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldline_api::model::Row;
use foldline_api::parked::{Parked, Request, Which};
use foldline_api::record::TopicPartition;
use foldline_api::sink::Target as _;
use foldline_api::source::Log as _;
use foldline_api::value::Value;
use foldline_testkit::{Faults, MemoryStore, Rng, Script};

use super::{Expect, World, oracle, plain_fold, runtime};
use crate::policy::OnBadRecord;
use crate::task::Allowance;

/// Parked keys.
impl World {
    pub(super) fn parks(&self) -> bool {
        self.on_bad_record == OnBadRecord::Park
    }

    pub(super) async fn parked(&self) -> Vec<Parked> {
        let target = self.store.target(self.spec.clone());
        target.parking().parked(1, &Which::default()).await.unwrap()
    }

    /// The rows are those of the plain fold, and what is parked is what must be.
    pub(super) async fn compare(
        &self,
        seed: u64,
        dropped: &BTreeMap<TopicPartition, i64>,
    ) -> Expect {
        let parks = self.parks().then_some(dropped);
        let expect = plain_fold(&self.projection, &self.log.records("events"), parks);
        let found = self.store.rows("t");
        assert_eq!(found, expect.rows, "seed {seed}: rows differ from the plain fold");
        let places: Vec<_> = self.parked().await.iter().map(Parked::place).collect();
        assert_eq!(places, expect.parked, "seed {seed}: what is parked");
        expect
    }

    /// Asks for all that is parked, and runs, under faults, until everything asked for is done.
    pub(super) async fn ask(&mut self, request: Request) {
        let target = self.store.target(self.spec.clone());
        for event in self.parked().await {
            assert!(target.parking().ask(1, &event.place(), request).await.unwrap());
        }
        self.script.set(Faults::some());
        self.registry.away(300);
        self.start_task().await;
        for turn in 0.. {
            let which = Which { partitions: None, asked: true };
            if target.parking().parked(1, &which).await.unwrap().is_empty() {
                break;
            }
            assert!(turn < 2_000, "requests are followed");
            if turn == 100 {
                // No more faults: from here on it must end.
                self.script.set(Faults::default());
                self.registry.away(0);
            }
            let pause = self.rng.below(4_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if turn < 100 {
                self.disturb().await;
            }
            self.tasks.retain(|(task, _)| !task.is_finished());
            if self.tasks.is_empty() {
                self.start_task().await;
            }
        }
        self.settle().await;
    }

    /// What is bad for good stays parked when it is retried, and ends in the plain fold when it is left out,
    /// alone or with what waits behind it.
    pub(super) async fn free_what_is_parked(&mut self, seed: u64) {
        self.ask(Request::Retry).await;
        self.compare(seed, &BTreeMap::new()).await;
        if self.rng.chance(500) {
            for _ in 0..1_000 {
                if self.parked().await.is_empty() {
                    break;
                }
                self.ask(Request::Skip).await;
            }
            assert_eq!(self.parked().await, [], "seed {seed}: all is freed in the end");
            let (plain, _) = oracle(&self.projection, &self.log.records("events"));
            assert_eq!(self.store.rows("t"), plain, "seed {seed}: only what is bad is left out");
            return;
        }
        self.ask(Request::Drop).await;
        let infos = self.group.partitions().await.unwrap();
        let dropped = infos.into_iter().map(|info| (info.partition, info.high.0)).collect();
        self.compare(seed, &dropped).await;
        self.produce();
        self.produce();
        self.settle().await;
        self.compare(seed, &dropped).await;
    }
}

#[test]
fn a_retry_that_works_replays_the_events_in_order_and_frees_the_key() {
    for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
        runtime(0).block_on(async {
            let mut world =
                World::of("solo", store, Rng::new(1), Script::new(1, Faults::default()));
            world.on_bad_record = OnBadRecord::Park;
            world.begin().await;
            // The store alone refuses a second event of key 0:1.
            let refuses = |row: &Row| {
                let is = |at: usize, value: Value| *row.get(at) == value;
                (is(0, Value::text("0:1")) && is(1, Value::Int(2))).then(|| "a CHECK".to_owned())
            };
            world.store.constrain("t", Some(Arc::new(refuses)));
            let append = |world: &World, id: i64| {
                let value = format!(r#"{{"id":{id},"kind":"add","v":1}}"#);
                let record = (Some(Bytes::from_static(b"k")), Some(Bytes::from(value)));
                world.log.append_record("events", 0, record, Vec::new(), Some(0));
            };
            // One by one, as the end state of a batch may pass what its parts do not.
            for id in [1, 2, 1, 2, 1, 1] {
                append(&world, id);
                world.settle().await;
            }
            let parked = world.parked().await;
            let offsets: Vec<i64> = parked.iter().map(|event| event.offset).collect();
            assert_eq!(offsets, [2, 4, 5], "the bad event, and those behind it");
            assert!(parked[0].reason.as_deref().is_some_and(|reason| reason.contains("a CHECK")));
            assert_eq!(world.metrics.connector("c").parked.get(), 3);
            let before = world.store.rows("t");
            // Still refused, whatever is asked for first: everything stays as it was.
            let still = |row: &Row| (*row.get(0) == Value::text("0:1")).then(|| "no".to_owned());
            world.store.constrain("t", Some(Arc::new(still)));
            world.ask(Request::Retry).await;
            let kept = world.parked().await;
            assert_eq!((kept.len(), world.store.rows("t")), (3, before));
            assert!(kept[0].reason.as_deref().is_some_and(|reason| reason.contains("no")));
            world.store.constrain("t", None);
            world.ask(Request::Retry).await;
            assert_eq!(world.parked().await, []);
            append(&world, 1);
            world.settle().await;
            let (plain, _) = oracle(&world.projection, &world.log.records("events"));
            assert_eq!(world.store.rows("t"), plain);
            assert_eq!(world.metrics.connector("c").parked_keys.get(), 0);
        });
    }
}

#[test]
fn what_is_over_the_allowance_waits_in_the_log() {
    runtime(0).block_on(async {
        let script = Script::new(0, Faults::default());
        let mut world = World::of("hot", MemoryStore::transactional(), Rng::new(0), script);
        world.on_bad_record = OnBadRecord::Park;
        world.allowance = Allowance::new(3);
        for event in 0..10 {
            let value = Bytes::from(format!(r#"{{"id":{event}}}"#));
            world.log.append_record("events", 0, (None, Some(value)), vec![], None);
        }
        world.log.append("events", 1, None, Some(r#"{"id":100}"#));
        world.begin().await;
        // The store refuses what the fold does not.
        world.store.constrain(
            "t",
            Some(Arc::new(|row: &Row| {
                matches!(row.get(0), Value::Int(0..10)).then(|| "a CHECK".to_owned())
            })),
        );
        world.start_task().await;
        let until = async |what: &dyn Fn() -> bool| {
            for _ in 0..10_000 {
                if what() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("in time");
        };
        let allowance = world.allowance.clone();
        until(&|| allowance.is_overdrawn()).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.parked().await.len(), 3, "no more are parked, however long it takes");
        assert_eq!(world.metrics.connector("c").parked.get(), 3);
        allowance.refill();
        until(&|| world.metrics.connector("c").parked.get() == 6).await;
        allowance.refill();
        until(&|| world.metrics.connector("c").parked.get() == 9).await;
        allowance.refill();
        world.settle().await;
        assert_eq!(world.parked().await.len(), 10);
        assert_eq!(world.store.rows("t").len(), 1, "and the good one is folded");
    });
}

#[test]
fn a_retry_that_the_store_has_no_time_for_keeps_nobody_waiting_and_says_so_in_the_end() {
    for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
        runtime(0).block_on(async {
            let script = Script::new(0, Faults::default());
            let mut world = World::of("accounts", store, Rng::new(0), script);
            world.on_bad_record = OnBadRecord::Park;
            world.begin().await;
            let one = |row: &Row| (*row.get(0) == Value::Int(1)).then(|| "a CHECK".to_owned());
            world.store.constrain("t", Some(Arc::new(one)));
            world.log.append("events", 0, None, Some(r#"{"kind":"many","id":0,"ids":[1,2,3,4]}"#));
            world.settle().await;
            world.store.constrain("t", None);
            world.store.limit("t", 2);
            let target = world.store.target(world.spec.clone());
            let ask = async |event: Parked| {
                assert!(target.parking().ask(1, &event.place(), Request::Retry).await.unwrap());
            };
            ask(world.parked().await.remove(0)).await;
            world.start_task().await;
            let trouble = |world: &World| world.status.snapshot().trouble.unwrap_or_default();
            while !trouble(&world).contains("has time for") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            for id in 20..40 {
                let value = format!(r#"{{"kind":"add","id":{id},"v":1}}"#);
                world.log.append("events", id % 3, None, Some(&value));
            }
            world.catch_up().await;
            let parked = world.parked().await;
            assert!(parked[0].request.is_some(), "others were folded before it is given up");
            for _ in 0..600 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let parked = world.parked().await;
            assert!(parked[0].request.is_none(), "{parked:?}");
            let told = parked[0].reason.as_deref().is_some_and(|why| why.contains("has time for"));
            assert!(told, "{parked:?}");
            assert_eq!(trouble(&world), "", "nothing is tried again");
            world.store.limit("t", 4);
            world.ask(Request::Retry).await;
            assert_eq!(world.parked().await, []);
            let (plain, _) = oracle(&world.projection, &world.log.records("events"));
            assert_eq!(world.store.rows("t"), plain);
        });
    }
}
