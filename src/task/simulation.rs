//! The real task over a log and a store in memory, with faults that a seed decides: lost replies,
//! refusals, slow and partial writes, an outside writer, revocations, lost partitions, crashes. Each
//! run must end in the rows of the plain fold, and so must a run whose tasks load first, as in a rebuild. A
//! failing seed prints itself; `FOLDLINE_SEED=N` runs it alone.

mod letters;
mod parking;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldline_api::model::{Key, Row};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::sink::{Beginning, Target, TargetSpec};
use foldline_api::source::{DeadLetter, Log, Start};
use foldline_testkit::contract::spec_of;
use foldline_testkit::{
    Faults, FaultyTarget, MemoryDeadLetters, MemoryGroup, MemoryLog, MemoryStore, Rng, Script,
};
use hashbrown::HashSet;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{self, Env};
use crate::converter::{Decoder, Format};
use crate::metrics::Metrics;
use crate::projection::{Effects, StateRef, States};

const CONFIG: &str = r#"
[sources.events]
type = "kafka"
bootstrap_servers = "localhost:1"
[projections.accounts]
topics = ["events"]
key    = { id = "event.id" }
[projections.accounts.fields]
id    = "bigint"
n     = { type = "bigint", default = 0 }
sum   = { type = "numeric(12,2)", default = 0 }
p0    = "text"
p1    = "text"
p2    = "text"
[[projections.accounts.on]]
when  = "event.kind == 'add' && event.v < 90"
add   = { n = 1, sum = "event.v" }
patch = { p0 = "event.p0", p1 = "event.p1", p2 = "event.p2" }
[[projections.accounts.on]]
when   = "event.kind == 'many'"
for_each = "event.ids"
key    = { id = "item" }
add    = { n = 1 }
[[projections.accounts.on]]
when  = "event.kind == 'touch' && exists"
add   = { n = 100 }
[projections.solo]
topics = ["events"]
key    = { id = "string(partition) + ':' + string(event.id)" }
[projections.solo.fields]
id    = "text"
n     = { type = "bigint", default = 0 }
sum   = "numeric(12,2)"
last  = "text"
seen  = "text[]"
[[projections.solo.on]]
when   = "event.kind == 'drop'"
delete = true
[[projections.solo.on]]
when  = "event.kind == 'touch' && !exists"
ignore = true
[[projections.solo.on]]
when  = "event.kind != 'many'"
add   = { n = 1 }
merge = { sum = "event.v" }
set   = { last = "string(offset)" }
[projections.forks]
topics = ["events"]
key    = { id = "string(partition) + ':' + string(event.id)" }
[projections.forks.fields]
id    = "text"
n     = { type = "bigint", default = 0 }
small = { type = "smallint", default = 0 }
[[projections.forks.on]]
when = "event.kind == 'many' && state.n % 3 != 0"
for_each = "event.ids"
key  = { id = "string(partition) + ':' + string(item)" }
add  = { n = 1, small = 7000 }
continue = true
[[projections.forks.on]]
when = "event.kind == 'add' && state.n % 2 == 0"
add  = { n = 1 }
[[projections.forks.on]]
when = "event.kind == 'add' && state.n % 5 != 4"
key  = { id = "string(partition) + ':' + string((event.id + 5) % 12)" }
add  = { n = 10 }
set  = { small = 0 }
[[projections.forks.on]]
key  = { id = "string(partition) + ':' + string((event.id + 7) % 12)" }
add  = { n = 100 }
[projections.hot]
topics = ["events"]
key    = { id = "event.id" }
[projections.hot.fields]
id    = "bigint"
n     = { type = "bigint", default = 0 }
[[projections.hot.on]]
add   = { n = "event.misspelt == null ? 1 : 2" }
[sinks.s]
type = "sqlite"
path = "unused.db"
"#;

/// One decoder for all topics.
#[derive(Debug)]
pub(crate) struct OneDecoder(pub(crate) Decoder);

impl Decoders for OneDecoder {
    fn of(&self, _topic: &Arc<str>) -> &Decoder {
        &self.0
    }
}

/// A projection of the simulation's config.
pub(crate) fn projection(name: &str) -> Arc<Projection> {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), CONFIG).unwrap();
    let config = config::load(file.path(), &Env::new([("A", "b")])).unwrap();
    Arc::new(Projection::compile(&config.projections[name]).unwrap())
}

/// Its decoder.
pub(crate) fn decoder(projection: &Projection) -> Decoder {
    Decoder {
        key: Some(Format::Text),
        value: Format::Json,
        mask: projection.mask().clone(),
        slots: projection.slots(),
    }
}

/// One record's value. A few are bad; `exists` is only asked where one partition feeds the key.
pub(crate) fn value(rng: &mut Rng, projection: &str, partition: i32, offset: u64) -> String {
    let id = rng.below(12);
    let v = format!("{}.{:02}", rng.below(100), rng.below(100));
    match rng.below(20) {
        0 => r#"{"id":"none","kind":"add","v":1}"#.to_owned(),
        1 => "{".to_owned(),
        2 => format!(r#"{{"id":{id},"kind":"other"}}"#),
        3 | 4 if projection != "solo" => {
            let ids: Vec<String> = (0..rng.below(4)).map(|_| rng.below(12).to_string()).collect();
            format!(r#"{{"kind":"many","id":0,"ids":[{}]}}"#, ids.join(","))
        }
        3 | 4 => format!(r#"{{"id":{id},"kind":"drop"}}"#),
        // Bad, and their keys are known.
        7 if rng.chance(300) => format!(r#"{{"id":{id},"kind":"add","v":1,"p{partition}":{{}}}}"#),
        8 if rng.chance(300) && projection == "solo" => {
            format!(r#"{{"id":{id},"kind":"add","v":"bad"}}"#)
        }
        5 | 6 if projection == "solo" => format!(r#"{{"id":{id},"kind":"touch"}}"#),
        _ => format!(r#"{{"id":{id},"kind":"add","v":{v},"p{partition}":"{offset}"}}"#),
    }
}

/// What the plain fold gives.
#[derive(Default)]
struct Expect {
    rows: BTreeMap<Key, Row>,
    /// Bad, and not parked.
    bad: u64,
    /// The places of what is parked.
    parked: Vec<(TopicPartition, i64)>,
}

/// The rows of the plain fold, and how many records are bad.
pub(crate) fn oracle(projection: &Projection, records: &[Record]) -> (BTreeMap<Key, Row>, u64) {
    let Expect { rows, bad, .. } = plain_fold(projection, records, None);
    (rows, bad)
}

/// The plain fold, partition after partition: handlers commute across partitions. Where bad records are parked,
/// one takes its keys' later events of the partition along; those before these offsets were dropped.
fn plain_fold(
    projection: &Projection,
    records: &[Record],
    parks: Option<&BTreeMap<TopicPartition, i64>>,
) -> Expect {
    struct Plain(BTreeMap<Key, Row>);
    impl States for Plain {
        fn get(&self, key: &Key) -> Option<StateRef<'_>> {
            Some(StateRef { row: self.0.get(key) })
        }
    }
    let decoder = decoder(projection);
    let mut plain = Plain(BTreeMap::new());
    let mut expect = Expect::default();
    let mut waiting: BTreeMap<TopicPartition, BTreeSet<Key>> = BTreeMap::new();
    let mut cleared = BTreeSet::new();
    for record in records {
        let partition = record.topic_partition();
        let dropped = parks.and_then(|dropped| dropped.get(&partition)).copied().unwrap_or(0);
        let mine = waiting.entry(partition.clone()).or_default();
        if record.offset >= dropped && cleared.insert(partition.clone()) {
            mine.clear();
        }
        let decoded = decoder.decode(record).ok();
        let decoded = decoded.and_then(|event| Some((projection.prepare(&event).ok()?, event)));
        let Some((prepared, event)) = decoded else {
            expect.bad += 1;
            continue;
        };
        let keys = prepared.keys();
        let waits = parks.is_some() && keys.iter().any(|key| mine.contains(key));
        let effects = projection.apply(&event, &prepared, &plain);
        if waits || (effects.is_err() && parks.is_some() && !keys.is_empty()) {
            mine.extend(keys.iter().cloned());
            if record.offset >= dropped {
                expect.parked.push((partition, record.offset));
            }
            continue;
        }
        match effects {
            Err(_) => expect.bad += 1,
            Ok(Effects::Filtered { .. }) => {}
            Ok(Effects::Applied { writes, .. }) => {
                for (key, row) in writes {
                    match row {
                        Some(row) => plain.0.insert(key, row),
                        None => plain.0.remove(&key),
                    };
                }
            }
        }
    }
    expect.parked.sort();
    Expect { rows: plain.0, ..expect }
}

struct World {
    name: &'static str,
    projection: Arc<Projection>,
    log: MemoryLog,
    group: Arc<MemoryGroup>,
    store: MemoryStore,
    spec: TargetSpec,
    script: Script,
    letters: MemoryDeadLetters,
    on_bad_record: OnBadRecord,
    metrics: Metrics,
    tasks: Vec<(JoinHandle<Result<Ended>>, CancellationToken)>,
    rng: Rng,
    /// A task that dies between its flush and its count leaves no count.
    crashed: bool,
    /// What was being written when a partition was lost is let go without asking.
    lost: bool,
    /// Tasks load what there is when they start, in memory, before they go on.
    loads: bool,
    /// Up to where.
    goals: Vec<(TopicPartition, Position)>,
    /// Bytes for states; else the seed decides.
    memory: Option<usize>,
    allowance: Allowance,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let name = ["accounts", "solo", "forks"][usize::try_from(rng.below(3)).unwrap()];
        let store =
            if rng.chance(500) { MemoryStore::transactional() } else { MemoryStore::with_marks() };
        let loads = rng.chance(300);
        let on_bad_record =
            if rng.chance(500) { OnBadRecord::Park } else { OnBadRecord::DeadLetter };
        World {
            loads,
            on_bad_record,
            ..World::of(name, store, rng, Script::new(seed ^ 0xF00D, Faults::some()))
        }
    }

    fn of(name: &'static str, store: MemoryStore, rng: Rng, script: Script) -> Self {
        let projection = projection(name);
        let log = MemoryLog::new("log-1");
        log.create_topic("events", 3);
        let mut spec = spec_of("t", (**projection.model()).clone());
        spec.fingerprint = projection.fingerprint().to_owned();
        let touching = store.clone();
        let script = script.with_outside(Arc::new(move |flush: &Flush| {
            if let Some(write) = flush.writes.first() {
                touching.touch("t", &write.key);
            }
        }));
        let group = log.group("g", &["events"]);
        World {
            name,
            projection,
            log,
            group,
            store,
            spec,
            script,
            letters: MemoryDeadLetters::default(),
            on_bad_record: OnBadRecord::DeadLetter,
            metrics: Metrics::new().unwrap(),
            tasks: Vec::new(),
            rng,
            crashed: false,
            lost: false,
            loads: false,
            goals: Vec::new(),
            memory: None,
            allowance: Allowance::new(1_000_000),
        }
    }

    fn target(&self) -> Arc<dyn Target> {
        let inner = self.store.target(self.spec.clone());
        Arc::new(FaultyTarget::new(inner, self.script.clone()))
    }

    async fn begin(&self) {
        self.script.set(Faults::default());
        let target = self.target();
        let opened = target.open().await.unwrap();
        let infos = self.group.partitions().await.unwrap();
        let partitions: Vec<TopicPartition> = infos.iter().map(|i| i.partition.clone()).collect();
        let starts = self.group.find(&partitions, Start::Earliest).await.unwrap();
        let beginnings: Vec<Beginning> = infos
            .iter()
            .zip(starts)
            .map(|(info, position)| Beginning {
                partition: info.partition.clone(),
                topic_id: info.topic_id.clone(),
                position,
            })
            .collect();
        target.begin(opened.generation, &beginnings).await.unwrap();
    }

    async fn start_task(&mut self) {
        let writer = loop {
            if let Ok(writer) = self.target().writer(1).await {
                break writer;
            }
        };
        let limits = Limits {
            rows: 1 + usize::try_from(self.rng.below(40)).unwrap(),
            // So few that a batch which grows lets its records go.
            bytes: if self.rng.chance(300) { 1_000 } else { 1 << 20 },
            age: Duration::from_millis(self.rng.below(20)),
        };
        let random = if self.rng.chance(500) { 4_000 } else { 1 << 20 };
        let cache_bytes = self.memory.unwrap_or(random);
        if self.loads {
            let infos = self.group.partitions().await.unwrap();
            self.goals = infos.into_iter().map(|i| (i.partition, i.high)).collect();
        }
        self.start_task_with(writer, limits, cache_bytes);
    }

    fn start_task_with(&mut self, writer: Arc<dyn Writer>, limits: Limits, cache_bytes: usize) {
        let number = u32::try_from(self.tasks.len()).unwrap();
        let spec = TaskSpec {
            projection: Arc::clone(&self.projection),
            decoders: Arc::new(OneDecoder(decoder(&self.projection))),
            source: self.group.source(number, 1 << 14).unwrap(),
            log: Arc::clone(&self.group) as Arc<dyn Log>,
            writer,
            target: self.target(),
            dead_letters: Arc::new(self.letters.clone()),
            metrics: self.metrics.connector("c"),
            status: TaskStatus::default(),
            origin: Origin::default(),
            on_bad_record: self.on_bad_record,
            allowance: self.allowance.clone(),
            limits,
            cache_bytes,
            generation: 1,
            paused: watch::channel(false).1,
            now: || 0,
        };
        let cancel = CancellationToken::new();
        let task = if self.loads {
            tokio::spawn(Load::new(spec, &self.goals).run(cancel.clone()))
        } else {
            tokio::spawn(Task::new(spec).run(cancel.clone()))
        };
        self.tasks.push((task, cancel));
    }

    fn produce(&mut self) {
        for _ in 0..self.rng.below(30) {
            let partition = i32::try_from(self.rng.below(3)).unwrap();
            let offset = self.rng.next_u64();
            let value = value(&mut self.rng, self.name, partition, offset % 1_000);
            let record = (Some(Bytes::from_static(b"k")), Some(Bytes::from(value)));
            self.log.append_record("events", partition, record, Vec::new(), Some(0));
            if self.rng.chance(20) {
                self.log.append_marker("events", partition);
            }
        }
    }

    async fn disturb(&mut self) {
        match self.rng.below(8) {
            // Crash: nothing is flushed, nothing committed.
            0 => {
                if let Some((task, _)) = self.tasks.pop() {
                    task.abort();
                    drop(task.await);
                    self.crashed = true;
                }
            }
            1 => {
                if let Some((task, cancel)) = self.tasks.pop() {
                    cancel.cancel();
                    task.await.unwrap().unwrap();
                }
            }
            2 if self.tasks.len() < 3 => self.start_task().await,
            3 | 4 => {
                let members = self.group.members();
                let partition =
                    TopicPartition::new("events", i32::try_from(self.rng.below(3)).unwrap());
                if let Some(member) = members.first() {
                    self.lost = true;
                    self.group.lose(*member, std::slice::from_ref(&partition));
                    let last = members.last().unwrap_or(member);
                    self.group.assign(*last, &[partition]);
                }
            }
            _ => {}
        }
    }

    /// Until every record is durable; restarts tasks that gave up.
    async fn settle(&mut self) {
        self.script.set(Faults::default());
        for (task, cancel) in self.tasks.drain(..) {
            cancel.cancel();
            drop(task.await);
        }
        self.start_task().await;
        let highs: i64 = self.group.partitions().await.unwrap().iter().map(|i| i.high.0).sum();
        for _ in 0..20_000 {
            let done: i64 = self.store.positions("t").iter().map(|p| p.position.0).sum();
            if done == highs {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let done: i64 = self.store.positions("t").iter().map(|p| p.position.0).sum();
        assert_eq!(done, highs, "caught up");
        let (task, cancel) = self.tasks.pop().unwrap();
        cancel.cancel();
        task.await.unwrap().unwrap();
    }
}

async fn run_seed(seed: u64) {
    let mut world = World::new(seed);
    world.begin().await;
    world.script.set(Faults::some());
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

/// Time stands still while anything can run.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

fn run_seeds(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let runtime = runtime();
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(async {
                let limit = Duration::from_secs(100_000);
                tokio::time::timeout(limit, run_seed(seed)).await.expect("no progress");
            });
        }));
        if let Err(panic) = run {
            eprintln!("seed {seed} failed; run it alone with FOLDLINE_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_load_writes_each_key_once_where_the_states_fit_into_memory() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
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
fn any_faults_end_in_the_plain_fold() {
    match std::env::var("FOLDLINE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => run_seeds(std::iter::once(seed)),
        None => {
            let count = std::env::var("FOLDLINE_SEEDS").ok().and_then(|n| n.parse().ok());
            run_seeds(0..count.unwrap_or(2_000));
        }
    }
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
        runtime().block_on(meet_at_hot_rows(MemoryStore::transactional(), seed));
        runtime().block_on(meet_at_hot_rows(MemoryStore::with_marks(), seed));
    }
}

#[test]
fn a_path_that_no_event_has_is_warned_of_once_by_name() {
    let lines = crate::log::captured(|| {
        runtime().block_on(async {
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
    runtime().block_on(async {
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
