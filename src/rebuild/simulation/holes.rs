//! What an operator left out stays out of every generation, until it is wanted back.

use foldline_api::hole::Hole;
use foldline_api::model::Row;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{DesiredState, Target};
use foldline_api::value::Value;
use foldline_testkit::{MemoryStore, Rng};

use super::World;
use crate::connector::State;
use crate::task::simulation::runtime;

fn partition() -> TopicPartition {
    TopicPartition::new("events", 0)
}

fn hole(from: i64, to: i64) -> Hole {
    Hole::new(partition(), Position(from), Position(to))
}

impl World {
    /// Two events of which the first cannot be read; where they begin and end.
    async fn broken(&self) -> (i64, i64) {
        let append = || {
            let record = (None, Some(bytes::Bytes::from_static(br#"{"id":1,"kind":"add","v":1}"#)));
            self.log.append_record("events", 0, record, Vec::new(), None)
        };
        let from = i64::try_from(self.log.records("events").len()).unwrap();
        self.log.break_at("events", 0, from);
        append();
        let place = (from, append() + 1);
        self.in_state(State::Failed).await;
        place
    }

    async fn in_state(&self, state: State) {
        self.until(|world| world.workers[0].connector.view().state == state).await;
    }

    /// As an operator does it.
    async fn leave_out(&self, to: i64) {
        let connector = &self.workers[0].connector;
        connector.command(DesiredState::Stopped).await.unwrap();
        self.in_state(State::Stopped).await;
        connector.skip(&[(partition(), Position(to))]).await.unwrap();
        connector.command(DesiredState::Running).await.unwrap();
        self.in_state(State::Running).await;
    }

    /// How many events the one row holds, and what the live generation leaves out.
    async fn holds(&self) -> (Value, Vec<Hole>) {
        let target = self.store.target(self.spec.clone());
        let live = target.status().await.unwrap().generation;
        let rows = self.store.rows("t");
        let row: &Row = rows.values().next().unwrap();
        (row.get(1).clone(), target.holes().holes(live).await.unwrap())
    }

    async fn rebuilt_in_place(&self) {
        let stood = i64::try_from(self.log.records("events").len()).unwrap();
        let asked = self.workers[0].connector.rebuild_in_place(false, None).await.unwrap();
        let target = self.store.target(self.spec.clone());
        for _ in 0..10_000 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            let opened = target.status().await.unwrap();
            let place = opened.positions.iter().find(|stored| stored.partition == partition());
            if opened.generation == asked && place.is_some_and(|p| p.position.0 == stood) {
                return;
            }
        }
        panic!("in time");
    }
}

#[test]
fn what_cannot_be_read_is_left_out_of_every_generation_until_it_is_wanted_back() {
    for (seed, store) in
        [MemoryStore::transactional(), MemoryStore::with_marks()].iter().enumerate()
    {
        runtime(seed as u64).block_on(async {
            let mut world = World::quiet(store.clone());
            world.rng = Rng::new(seed as u64);
            world.until(|world| !world.store.positions("t").is_empty()).await;
            for _ in 0..3 {
                world.append().await;
            }
            let (from, to) = world.broken().await;
            assert_eq!((from, to), (3, 5));
            world.leave_out(to).await;
            world.append().await;
            let four = (Value::Int(4), vec![hole(3, 5)]);
            assert_eq!(world.holds().await, four);
            world.rebuilt().await;
            assert_eq!(world.holds().await, four, "a load does not read it");
            world.rebuilt_in_place().await;
            assert_eq!(world.holds().await, four, "nor does a task that meets it");
            // One that ends the log, and is left out while a generation is kept for a rollback.
            world.rebuilt().await;
            world.log.break_at("events", 0, -1);
            let (from, to) = world.broken().await;
            world.leave_out(to).await;
            let both = (Value::Int(4), vec![hole(3, 5), hole(from, to)]);
            assert_eq!(world.holds().await, both);
            world.workers[0].connector.roll_back(None).await.unwrap();
            let done = |world: &World| {
                let stored = world.store.positions("t");
                stored.iter().any(|p| p.partition == partition() && p.position.0 == to)
            };
            world.until(done).await;
            assert_eq!(world.holds().await, both, "it catches up past it");
            world.append().await;
            world.rebuilt().await;
            assert_eq!(world.holds().await.0, Value::Int(5));
            world.log.break_at("events", 0, -1);
            let holes = world.workers[0].connector.forget_holes().await.unwrap();
            assert!(holes.len() == 2 && holes.iter().all(|hole| !hole.repeated), "{holes:?}");
            assert_eq!(world.holds().await.0, Value::Int(5));
            world.rebuilt().await;
            assert_eq!(world.holds().await, (Value::Int(9), Vec::new()));
            for worker in world.workers.drain(..) {
                worker.stop().await;
            }
        });
    }
}
