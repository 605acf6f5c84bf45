//! Whole connectors over a log and a store in memory, with faults that a seed decides: rebuilds are begun,
//! cancelled, rolled back, events left out, and workers killed at any moment, while events keep coming. Each run
//! must end in the rows of the plain fold without what is left out, and its readers may never see the table go back. A failing seed
//! prints itself; `FOLDLINE_SEED=N` runs it alone.

mod commands;
mod expiry;
mod holes;
mod idle;
mod recreated;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foldline_api::expiry::Rule;
use foldline_api::hole::Hole;
use foldline_api::model::{Key, Row};
use foldline_api::parked::Which;
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::sink::{StoredPosition, Target, TargetSpec};
use foldline_api::source::Log;
use foldline_api::value::Value;
use foldline_language::projection::Projection;
use foldline_testkit::contract::spec_of;
use foldline_testkit::{
    Faults, FaultyTarget, MemoryDeadLetters, MemoryGroup, MemoryLog, MemoryStore, Rng, Script,
};

use crate::connector::Connector;
use crate::connector_spec::ConnectorSpec;
use crate::in_memory::{Worker, connector_spec};
use crate::policy::OnBadRecord;
use crate::task::Limits;
use crate::task::simulation::{
    PARTITIONS, each_seed, oracle, produce, projection, replays, runtime,
};

/// What a reader has seen: how far each partition was folded, and how far each row.
#[derive(Default)]
struct Seen {
    positions: BTreeMap<TopicPartition, i64>,
    rows: BTreeMap<(Key, TopicPartition), i64>,
    /// By which rows go: one that has expired is what some generation or other still has of it.
    rule: Option<Rule>,
}

impl Seen {
    /// A row that was written ahead of its partition's position may hold an event of `left_out`: the next rebuild takes
    /// it out, so such a mark says nothing of what comes.
    fn look(&mut self, store: &MemoryStore, left_out: &[Hole]) {
        let holds = |partition: &TopicPartition, mark: i64| {
            let last = Position(mark - 1);
            !left_out.iter().any(|hole| hole.partition == *partition && hole.has(last))
        };
        for stored in store.positions("t") {
            let before = self.positions.entry(stored.partition.clone()).or_default();
            assert!(stored.position.0 >= *before, "{} went back", stored.partition);
            *before = stored.position.0;
        }
        // A row can be ahead of its partition's position where rows are written one by one.
        let horizon = self.rule.as_ref().and_then(|rule| store.horizon("t", rule));
        for (key, marks) in store.marks("t") {
            if let (Some(rule), Some(horizon)) = (&self.rule, horizon)
                && rule.has_passed(horizon, &key)
            {
                continue;
            }
            for mark in marks.iter() {
                let place = (key.clone(), mark.partition.clone());
                let before = self.rows.entry(place).or_default();
                let back = mark.position.0 < *before && holds(&mark.partition, *before);
                assert!(!back, "row {key} went back in {}", mark.partition);
                *before = mark.position.0;
            }
        }
    }
}

struct World {
    name: &'static str,
    projection: Arc<Projection>,
    log: MemoryLog,
    group: Arc<MemoryGroup>,
    rebuild_group: Arc<MemoryGroup>,
    store: MemoryStore,
    spec: TargetSpec,
    script: Script,
    rng: Rng,
    workers: Vec<Worker>,
    letters: Arc<MemoryDeadLetters>,
    /// Whether someone goes back to an older generation.
    rolls_back: bool,
    /// What was ever left out, wanted back or not.
    left_out: Vec<Hole>,
    on_bad_record: OnBadRecord,
    parked_max: u64,
    idle_poll_interval: Option<Duration>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let names = ["accounts", "solo", "forks"];
        let name = names[usize::try_from(rng.below(3)).unwrap()];
        let store =
            if rng.chance(500) { MemoryStore::transactional() } else { MemoryStore::with_marks() };
        let projection = projection(name);
        let log = MemoryLog::new("log-1");
        log.create_topic("events", PARTITIONS);
        let mut spec = spec_of("t", (**projection.model()).clone());
        spec.fingerprint = projection.fingerprint().to_owned();
        World {
            name,
            projection,
            group: log.group("g", &["events"]),
            rebuild_group: log.group("g.rebuild", &["events"]),
            log,
            store,
            spec,
            script: Script::new(seed ^ 0xF00D, Faults::some()),
            rolls_back: rng.chance(300),
            rng,
            workers: Vec::new(),
            left_out: Vec::new(),
            letters: Arc::default(),
            on_bad_record: OnBadRecord::DeadLetter,
            parked_max: 1_000,
            idle_poll_interval: Some(Duration::from_secs(30)),
        }
    }

    fn start_worker(&mut self) {
        let (store, spec, script) = (self.store.clone(), self.spec.clone(), self.script.clone());
        // With so little memory a load has to write what it has again and again.
        let memory = if self.rng.chance(500) { 20_000 } else { 1 << 20 };
        let rows = 1 + usize::try_from(self.rng.below(40)).unwrap();
        let groups = (&self.group, &self.rebuild_group);
        let target = move || {
            let target = store.target(spec.clone());
            Arc::new(FaultyTarget::new(target, script.clone())) as Arc<dyn Target>
        };
        self.workers.push(Worker::start(ConnectorSpec {
            tasks_max: 1 + usize::try_from(self.rng.below(2)).unwrap(),
            limits: Limits { rows, bytes: 1 << 20, age: Duration::from_millis(5) },
            on_bad_record: self.on_bad_record,
            parked_max: self.parked_max,
            idle_poll_interval: self.idle_poll_interval,
            dead_letters: Arc::clone(&self.letters) as Arc<dyn foldline_api::source::DeadLetters>,
            expiry: self.expiry(),
            memory,
            ..connector_spec(("c", "g"), &self.projection, groups, target)
        }));
    }

    fn produce(&mut self) {
        produce(&mut self.rng, self.name, &self.log);
    }

    fn any_worker(&mut self) -> Option<usize> {
        let count = self.workers.len() as u64;
        (count > 0).then(|| usize::try_from(self.rng.below(count)).unwrap())
    }

    async fn disturb(&mut self) {
        let Some(at) = self.any_worker() else { return };
        let connector = Arc::clone(&self.workers[at].connector);
        match self.rng.below(12) {
            0..=2 => {
                let worker = self.workers.swap_remove(at);
                worker.crash().await;
            }
            3 => self.workers.swap_remove(at).stop().await,
            4 if self.workers.len() < 3 => self.start_worker(),
            // Refused where the worker has not reached its target yet.
            5..=8 => drop(connector.rebuild(false).await),
            9 => drop(connector.cancel_rebuild(None).await),
            10 if self.rolls_back => drop(connector.roll_back(None).await),
            11 => self.skip().await,
            _ => {}
        }
    }

    /// Leaves a few events out, or wants them back.
    async fn skip(&mut self) {
        let target = self.store.target(self.spec.clone());
        let Ok(opened) = target.status().await else { return };
        if opened.positions.is_empty() {
            return;
        }
        if self.rng.chance(200) {
            return target.holes().forget(opened.generation).await.unwrap();
        }
        let at = self.rng.below(opened.positions.len() as u64);
        let StoredPosition { partition, position, .. } =
            opened.positions[usize::try_from(at).unwrap()].clone();
        let infos = self.group.partitions().await.unwrap();
        let high = infos.iter().find(|info| info.partition == partition).unwrap().high;
        let to = high.min(Position(position.0 + 1 + i64::try_from(self.rng.below(9)).unwrap()));
        if to >= position {
            self.left_out.push(Hole::new(partition.clone(), position, to));
            target.holes().skip(opened.generation, &[(partition, to)]).await.unwrap();
        }
    }

    /// The log's records without those that the live generation leaves out.
    async fn records(&self) -> Vec<Record> {
        let target = self.store.target(self.spec.clone());
        let live = target.status().await.unwrap().generation;
        let holes = target.holes().holes(live).await.unwrap();
        let left_out = |record: &Record| {
            let of_it = holes.iter().filter(|hole| record.topic_partition() == hole.partition);
            of_it.into_iter().any(|hole| hole.has(Position(record.offset)))
        };
        let mut records = self.log.records("events");
        records.retain(|record| !left_out(record));
        records
    }

    /// Lets some time pass; whoever reads meanwhile never sees an earlier state.
    async fn pass(&mut self, millis: u64, seen: &mut Seen) {
        for _ in 0..millis / 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if !self.rolls_back {
                seen.look(&self.store, &self.left_out);
            }
        }
    }

    /// Heals everything, rebuilds once more, and waits until all is durable in the next generation.
    async fn settle(&mut self) {
        self.script.set(Faults::default());
        if self.workers.is_empty() {
            self.start_worker();
        }
        let target = self.store.target(self.spec.clone());
        let rebuilds = target.rebuilds();
        let mut asked = None;
        let highs: i64 = self.group.partitions().await.unwrap().iter().map(|i| i.high.0).sum();
        for _ in 0..20_000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let Ok(seen) = rebuilds.generations().await else { continue };
            let done: i64 = seen.positions.iter().map(|stored| stored.position.0).sum();
            match asked {
                None if seen.build.is_none() => {
                    asked = self.workers[0].connector.rebuild(false).await.ok();
                }
                Some(asked) if seen.live == asked && done == highs && seen.build.is_none() => {
                    for worker in self.workers.drain(..) {
                        worker.stop().await;
                    }
                    return;
                }
                _ => {}
            }
        }
        let states: Vec<_> = self.workers.iter().map(|w| w.connector.view()).collect();
        panic!("not settled: {:?} {states:?}", rebuilds.generations().await);
    }
}

async fn run_seed(seed: u64) -> usize {
    let mut world = World::new(seed);
    let mut seen = Seen::default();
    world.start_worker();
    for _ in 0..25 {
        world.produce();
        let pause = world.rng.below(4_000);
        world.pass(pause, &mut seen).await;
        world.disturb().await;
        if world.workers.is_empty() {
            world.start_worker();
        }
    }
    world.settle().await;
    let (expect, _) = oracle(&world.projection, &world.records().await);
    let found = world.store.rows("t");
    assert_eq!(found, expect, "seed {seed}: rows differ from the plain fold");
    for group in [&world.group, &world.rebuild_group] {
        assert!(group.members().is_empty(), "seed {seed}: everyone has left");
    }
    let left = world.rebuild_group.committed().await.unwrap();
    assert!(left.is_empty(), "seed {seed}: a rebuild commits nothing: {left:?}");
    world.log.records("events").len()
}

#[test]
fn rebuilds_under_any_faults_end_in_the_plain_fold() {
    each_seed(10, run_seed);
}

#[test]
fn a_seed_replays() {
    replays(run_seed);
}

impl World {
    /// A quiet world of one worker over `store`.
    fn quiet(store: MemoryStore) -> Self {
        let mut world = World::new(1);
        world.script.set(Faults::default());
        world.name = "solo";
        world.projection = projection("solo");
        world.spec = spec_of("t", (**world.projection.model()).clone());
        world.spec.fingerprint = world.projection.fingerprint().to_owned();
        world.store = store;
        world.start_worker();
        world
    }

    /// Appends an event of row 0:1, and waits until it is durable.
    async fn append(&self) {
        let record = (None, Some(bytes::Bytes::from_static(br#"{"id":1,"kind":"add","v":1}"#)));
        let offset = self.log.append_record("events", 0, record, Vec::new(), None);
        self.until(|world| {
            let stored = world.store.positions("t");
            stored
                .iter()
                .any(|stored| stored.partition.partition == 0 && stored.position.0 > offset)
        })
        .await;
    }

    async fn until(&self, done: impl Fn(&World) -> bool) {
        for _ in 0..10_000 {
            if done(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("in time");
    }

    /// Rebuilds, and waits until the new generation is live.
    async fn rebuilt(&self) {
        let asked = self.workers[0].connector.rebuild(false).await.unwrap();
        let target = self.store.target(self.spec.clone());
        for _ in 0..10_000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let seen = target.rebuilds().generations().await.unwrap();
            if seen.live == asked && seen.build.is_none() {
                return;
            }
        }
        panic!("in time");
    }

    fn story(&self) -> (Value, Value, usize) {
        let rows = self.store.rows("t");
        let row = rows.values().next().unwrap();
        (row.get(1).clone(), row.get(3).clone(), self.store.verdicts("t").len())
    }
}

/// Refuses the row as the event at offset 1 leaves it; the event behind it hides that.
fn refuses() -> foldline_testkit::Constraint {
    Arc::new(|row: &Row| (*row.get(3) == Value::text("1")).then(|| "no".to_owned()))
}

#[test]
fn a_rebuild_repeats_a_refusal_while_what_refused_stands_and_else_asks_the_store() {
    runtime(3).block_on(async {
        for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
            let mut world = World::quiet(store);
            world.until(|world| !world.store.positions("t").is_empty()).await;
            // As a trigger: nobody can tell it from another, and it does refuse again.
            world.store.constrain("t", Some(refuses()));
            for _ in 0..3 {
                world.append().await;
            }
            let two = (Value::Int(2), Value::text("2"), 1);
            assert_eq!(world.story(), two);
            world.rebuilt().await;
            assert_eq!(world.story(), two, "the end state alone would hide the refusal");
            // As a CHECK, known from here on.
            world.store.define("t", "CHECK", refuses());
            world.rebuilt().await;
            assert_eq!(world.story(), two);
            world.store.define("t", "CHECK", Arc::new(|_| None));
            world.rebuilt().await;
            assert_eq!(world.story(), two, "it stands, so nobody asks");
            world.store.define("t", "another CHECK", Arc::new(|_| None));
            world.rebuilt().await;
            let three = (Value::Int(3), Value::text("2"), 0);
            assert_eq!(world.story(), three, "what refused is gone, and so is the verdict");
            for worker in world.workers.drain(..) {
                worker.stop().await;
            }
        }
    });
}

/// Its end state would pass, so only asking for the one event shows what the live generation met.
#[test]
fn a_rebuild_asks_for_what_the_live_generation_parked_since_the_store_refused_it() {
    runtime(3).block_on(async {
        for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
            let mut world = World::quiet(store);
            for worker in world.workers.drain(..) {
                worker.stop().await;
            }
            world.on_bad_record = OnBadRecord::Park;
            world.start_worker();
            world.until(|world| !world.store.positions("t").is_empty()).await;
            world.store.constrain("t", Some(refuses()));
            for _ in 0..3 {
                world.append().await;
            }
            let target = world.store.target(world.spec.clone());
            let parked = async || {
                let live = target.status().await.unwrap().generation;
                let all = Which::default();
                let parked = target.parking().parked(live, &all).await.unwrap();
                parked.iter().map(|event| event.offset).collect::<Vec<_>>()
            };
            let live = world.store.rows("t");
            assert_eq!(parked().await, [1, 2]);
            world.rebuilt().await;
            assert_eq!((parked().await, world.store.rows("t")), (vec![1, 2], live));
            // Nothing refuses it any more: what waited is in its row.
            world.store.constrain("t", None);
            world.rebuilt().await;
            assert!(parked().await.is_empty());
            assert_eq!(world.story().0, Value::Int(3));
            for worker in world.workers.drain(..) {
                worker.stop().await;
            }
        }
    });
}

#[test]
fn what_only_a_rebuild_calls_bad_has_its_letter_once_it_is_live() {
    runtime(3).block_on(async {
        for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
            let mut world = World::quiet(store);
            world.until(|world| !world.store.positions("t").is_empty()).await;
            for _ in 0..3 {
                world.append().await;
            }
            let connector = Arc::clone(&world.workers[0].connector);
            // The load's end state is refused, so it goes on event by event.
            let last = |row: &Row| (*row.get(3) == Value::text("2")).then(|| "no".to_owned());
            world.store.constrain("t", Some(Arc::new(last)));
            connector.rebuild(false).await.unwrap();
            connector.cancel_rebuild(None).await.unwrap();
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert_eq!(world.letters.letters().len(), 0, "none of a build that is cancelled");
            for _ in 0..2 {
                world.rebuilt().await;
                assert_eq!(world.story(), (Value::Int(2), Value::text("1"), 1));
                tokio::time::sleep(Duration::from_secs(60)).await;
                assert_eq!(
                    world.letters.letters().len(),
                    1,
                    "and one, however often it is rebuilt"
                );
            }
            // Killed between the swap and the letter: whoever comes next sends it.
            let both = |row: &Row| (*row.get(1) == Value::Int(2)).then(|| "no".to_owned());
            world.store.constrain("t", Some(Arc::new(both)));
            world.letters.refuse(true);
            world.rebuilt().await;
            assert_eq!(world.letters.letters().len(), 1);
            let worker = world.workers.remove(0);
            worker.crash().await;
            world.letters.refuse(false);
            world.start_worker();
            world.until(|world| world.letters.letters().len() == 2).await;
            for worker in world.workers.drain(..) {
                worker.stop().await;
            }
        }
    });
}
