//! Two whole connectors over one store in memory, one of which shows the other's rows, with faults that a seed decides:
//! workers are killed, either side is rebuilt, in place too, cancelled or rolled back at any moment, while events of both
//! keep coming. Each run must end in a plain join of two plain folds. Whoever reads meanwhile sees no name that was
//! nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldline_api::model::{Key, Row};
use foldline_api::sink::{Target, TargetSpec};
use foldline_api::value::Value;
use foldline_language::config::env::Env;
use foldline_language::config::projections;
use foldline_language::projection::{Projection, compile, joins};
use foldline_testkit::contract::spec_of;
use foldline_testkit::{Faults, FaultyTarget, MemoryGroup, MemoryLog, MemoryStore, Rng, Script};

use crate::connector_spec::ConnectorSpec;
use crate::in_memory::{Worker, connector_spec};
use crate::task::Limits;
use crate::task::simulation::{PARTITIONS, each_seed, oracle, replays};

const CONFIG: &str = r#"
[projections.authors]
topics = ["authors"]
key    = { id = "key" }
[projections.authors.fields]
id   = "bigint"
n    = { type = "bigint", default = 0 }
name = "text"
[[projections.authors.on]]
add  = { n = 1 }
set  = { name = "event.name" }
[projections.books]
topics = ["books"]
key    = { id = "key" }
[projections.books.fields]
id     = "bigint"
author = "bigint"
n      = { type = "bigint", default = 0 }
name   = { type = "text", lookup = "authors.name", via = "author" }
label  = { type = "text", computed = "string(state.n) + ' of ' + state.name" }
[[projections.books.on]]
add    = { n = 1 }
set    = { author = "event.author" }
"#;

/// The looked-up side, and the one that shows it.
const NAMES: [&str; 2] = ["authors", "books"];

struct Side {
    projection: Arc<Projection>,
    spec: TargetSpec,
    group: Arc<MemoryGroup>,
    rebuild_group: Arc<MemoryGroup>,
    workers: Vec<Worker>,
}

struct World {
    sides: [Side; 2],
    log: MemoryLog,
    store: MemoryStore,
    script: Script,
    rng: Rng,
    /// All names that an author ever had.
    names: BTreeMap<i64, BTreeSet<String>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let (configs, places) =
            projections::of_text("joins.toml", CONFIG, &Env::default()).unwrap();
        let all = compile(&configs, &places).unwrap();
        let log = MemoryLog::new("log-1");
        let side = |name: &str| {
            log.create_topic(name, PARTITIONS);
            let projection = Arc::clone(&all[name]);
            let mut spec = spec_of(name, (**projection.model()).clone());
            spec.fingerprint = projection.fingerprint().to_owned();
            spec.joins = joins(&projection, |other| {
                Some((other.to_owned(), Arc::clone(all[other].model())))
            });
            Side {
                projection,
                spec,
                group: log.group(name, &[name]),
                rebuild_group: log.group(&format!("{name}.rebuild"), &[name]),
                workers: Vec::new(),
            }
        };
        let (sides, store, mut rng) =
            (NAMES.map(side), MemoryStore::transactional(), Rng::new(seed));
        if rng.chance(200) {
            // It has no time for more rows at once, whoever asks.
            store.limit(NAMES[1], 1 + usize::try_from(rng.below(10)).unwrap());
        }
        World {
            sides,
            log,
            store,
            script: Script::new(seed ^ 0xF00D, Faults::some()),
            rng,
            names: BTreeMap::new(),
        }
    }

    fn start_worker(&mut self, at: usize) {
        let rows = 1 + usize::try_from(self.rng.below(20)).unwrap();
        let side = &mut self.sides[at];
        let (store, spec, script) = (self.store.clone(), side.spec.clone(), self.script.clone());
        let target = move || {
            let target = store.target(spec.clone());
            Arc::new(FaultyTarget::new(target, script.clone())) as Arc<dyn Target>
        };
        let (name, groups) = (NAMES[at], (&side.group, &side.rebuild_group));
        let worker = Worker::start(ConnectorSpec {
            tasks_max: 2,
            limits: Limits { rows, bytes: 1 << 20, age: Duration::from_millis(5) },
            ..connector_spec((name, name), &side.projection, groups, target)
        });
        side.workers.push(worker);
    }

    fn append(&mut self, topic: &str, key: i64, value: Option<String>) {
        let record = (Some(Bytes::from(key.to_string())), value.map(Bytes::from));
        let partition = i32::try_from(key).unwrap() % PARTITIONS;
        self.log.append_record(topic, partition, record, Vec::new(), Some(0));
    }

    fn produce(&mut self) {
        for _ in 0..self.rng.below(12) {
            let (author, gone) = (self.rng.below(5).cast_signed(), self.rng.chance(150));
            if self.rng.chance(400) {
                let name = format!("{author}-{}", self.rng.below(1_000));
                let value = (!gone).then(|| format!(r#"{{"name":"{name}"}}"#));
                if value.is_some() {
                    self.names.entry(author).or_default().insert(name);
                }
                self.append("authors", author, value);
            } else {
                let book = self.rng.below(30).cast_signed();
                let author =
                    if self.rng.chance(50) { "null".to_owned() } else { author.to_string() };
                let value = (!gone).then(|| format!(r#"{{"author":{author}}}"#));
                self.append("books", book, value);
            }
        }
    }

    async fn disturb(&mut self) {
        let at = usize::from(self.rng.chance(500));
        let count = self.sides[at].workers.len() as u64;
        if count == 0 {
            return self.start_worker(at);
        }
        let worker = usize::try_from(self.rng.below(count)).unwrap();
        let connector = Arc::clone(&self.sides[at].workers[worker].connector);
        match self.rng.below(10) {
            0..=1 => {
                let worker = self.sides[at].workers.swap_remove(worker);
                worker.crash().await;
            }
            2 => self.sides[at].workers.swap_remove(worker).stop().await,
            3 if count < 3 => self.start_worker(at),
            // Refused where the worker has not reached its target yet.
            4..=5 => drop(connector.rebuild(false).await),
            6 => drop(connector.cancel_rebuild(None).await),
            7 => drop(connector.roll_back(None).await),
            8 => drop(connector.rebuild_in_place(false, None).await),
            _ => {}
        }
    }

    /// What a row shows was once its author's name, and what is computed from it is of the same one.
    fn look(&self, seed: u64) {
        for (key, row) in self.store.rows("books") {
            let (Value::Int(author), Value::Text(name)) = (row.get(1), row.get(3)) else {
                assert_eq!((row.get(3), row.get(4)), (&Value::Null, &Value::Null), "seed {seed}");
                continue;
            };
            let known = self.names.get(author).is_some_and(|names| names.contains(&**name));
            assert!(known, "seed {seed}: book {key} shows {name} of author {author}");
            assert_eq!(*row.get(4), label(&row, name), "seed {seed}: book {key}");
        }
    }

    async fn pass(&self, seed: u64, millis: u64) {
        for _ in 0..millis / 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.look(seed);
        }
    }

    /// The plain join of two plain folds.
    fn expected(&self) -> [BTreeMap<Key, Row>; 2] {
        let [authors, mut books] = [0, 1].map(|at| {
            let records = self.log.records(NAMES[at]);
            oracle(&self.sides[at].projection, &records).0
        });
        for row in books.values_mut() {
            let author = authors.get(&Key::of(row.get(1).clone()));
            if let Some(Value::Text(name)) = author.map(|author| author.get(2).clone()) {
                let label = label(row, &name);
                let values = row.values_mut();
                (values[3], values[4]) = (Value::Text(name), label);
            }
        }
        [authors, books]
    }

    /// Heals everything, and waits until all is folded and shown.
    async fn settle(&mut self, seed: u64) {
        self.script.set(Faults::default());
        for at in [0, 1] {
            if self.sides[at].workers.is_empty() {
                self.start_worker(at);
            }
        }
        let expected = self.expected();
        for _ in 0..5_000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if NAMES.map(|name| self.store.rows(name)) == expected {
                break;
            }
        }
        // And nothing is written after it that is wrong again.
        tokio::time::sleep(Duration::from_secs(20)).await;
        let found = NAMES.map(|name| self.store.rows(name));
        assert_eq!(found, expected, "seed {seed}: rows differ from the plain join");
        for side in &mut self.sides {
            for worker in side.workers.drain(..) {
                worker.stop().await;
            }
        }
    }
}

fn label(row: &Row, name: &str) -> Value {
    let Value::Int(n) = row.get(2) else { return Value::Null };
    Value::text(&format!("{n} of {name}"))
}

async fn run_seed(seed: u64) -> usize {
    let mut world = World::new(seed);
    for _ in 0..20 {
        world.produce();
        let pause = world.rng.below(2_000);
        world.pass(seed, pause).await;
        world.disturb().await;
    }
    world.settle(seed).await;
    world.log.records("books").len()
}

#[test]
fn rows_end_as_the_plain_join_under_any_faults() {
    each_seed(5, run_seed);
}

#[test]
fn a_seed_replays() {
    replays(run_seed);
}
