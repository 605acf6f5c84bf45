//! The log, the store and the tasks between them, and what disturbs them.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Beginning, Flush, Target, TargetSpec, Writer};
use foldline_api::source::{Log, Start};
use foldline_language::projection::Projection;
use foldline_testkit::contract::spec_of;
use foldline_testkit::{
    Faults, FaultyTarget, MemoryDeadLetters, MemoryGroup, MemoryLog, MemoryStore, Rng, Script,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::events::{OneDecoder, PARTITIONS, decoder, produce, projection};
use super::schemas::Registry;
use crate::expiry::Expiry;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::policy::OnBadRecord;
use crate::prepared::prepared;
use crate::task::*;

/// Milliseconds since the epoch, always.
pub(super) const NOW: i64 = 10_000;

pub(super) struct World {
    pub(super) name: &'static str,
    pub(super) projection: Arc<Projection>,
    pub(super) log: MemoryLog,
    pub(super) group: Arc<MemoryGroup>,
    pub(super) store: MemoryStore,
    pub(super) spec: TargetSpec,
    pub(super) script: Script,
    pub(super) letters: MemoryDeadLetters,
    pub(super) on_bad_record: OnBadRecord,
    pub(super) metrics: Metrics,
    /// Shared by all tasks.
    pub(super) status: TaskStatus,
    pub(super) tasks: Vec<(JoinHandle<Result<Ended>>, CancellationToken)>,
    pub(super) rng: Rng,
    /// A task that dies between its flush and its count leaves no count.
    pub(super) crashed: bool,
    /// What was being written when a partition was lost is let go without asking.
    pub(super) lost: bool,
    /// Tasks load what there is when they start, in memory, before they go on.
    pub(super) loads: bool,
    /// Up to where.
    pub(super) goals: Vec<(TopicPartition, Position)>,
    /// Bytes for states; else the seed decides.
    pub(super) memory: Option<usize>,
    pub(super) allowance: Allowance,
    pub(super) expiry: Option<Arc<Expiry>>,
    /// Values are decoded by schemas of this registry.
    pub(super) by_schema: bool,
    pub(super) registry: Registry,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let name = ["accounts", "solo", "forks"][usize::try_from(rng.below(3)).unwrap()];
        let store =
            if rng.chance(500) { MemoryStore::transactional() } else { MemoryStore::with_marks() };
        let loads = rng.chance(300);
        let on_bad_record =
            if rng.chance(500) { OnBadRecord::Park } else { OnBadRecord::DeadLetter };
        World {
            by_schema: rng.chance(250),
            loads,
            on_bad_record,
            ..World::of(name, store, rng, Script::new(seed ^ 0xF00D, Faults::some()))
        }
    }

    pub(super) fn of(name: &'static str, store: MemoryStore, rng: Rng, script: Script) -> Self {
        let projection = projection(name);
        let log = MemoryLog::new("log-1");
        log.create_topic("events", PARTITIONS);
        let mut spec = spec_of("t", (**projection.model()).clone());
        spec.fingerprint = projection.fingerprint().to_owned();
        let touching = store.clone();
        let script = script.with_outside(Arc::new(move |flush: &Flush| {
            if let Some(write) = flush.writes.first() {
                touching.touch("t", &write.key);
            }
        }));
        let group = log.group("g", &["events"]);
        let registry = Registry::new(rng.clone().next_u64());
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
            status: TaskStatus::default(),
            tasks: Vec::new(),
            rng,
            crashed: false,
            lost: false,
            loads: false,
            goals: Vec::new(),
            memory: None,
            allowance: Allowance::new(1_000_000),
            expiry: None,
            by_schema: false,
            registry,
        }
    }

    pub(super) fn target(&self) -> Arc<dyn Target> {
        let inner = self.store.target(self.spec.clone());
        Arc::new(FaultyTarget::new(inner, self.script.clone()))
    }

    pub(super) async fn begin(&self) {
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

    pub(super) async fn start_task(&mut self) {
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

    pub(super) fn start_task_with(
        &mut self,
        writer: Arc<dyn Writer>,
        limits: Limits,
        cache_bytes: usize,
    ) {
        let number = u32::try_from(self.tasks.len()).unwrap();
        let plain = decoder(&self.projection);
        let decoders: Arc<dyn Decoders> = if self.by_schema {
            self.registry.decoders(plain)
        } else {
            Arc::new(OneDecoder(plain))
        };
        let log = prepared(Arc::clone(&self.group) as Arc<dyn Log>, &decoders);
        let spec = TaskSpec {
            projection: Arc::clone(&self.projection),
            decoders,
            source: log.source(number, 1 << 14).unwrap(),
            log,
            writer,
            target: self.target(),
            dead_letters: Arc::new(self.letters.clone()),
            metrics: self.metrics.connector("c"),
            status: self.status.clone(),
            origin: Origin::default(),
            on_bad_record: self.on_bad_record,
            allowance: self.allowance.clone(),
            asks: Arc::default(),
            outbox: false,
            limits,
            cache_bytes,
            generation: 1,
            paused: watch::channel(false).1,
            pace: Arc::new(Pace::new(None, self.metrics.connector("c").inflight)),
            expiry: self.expiry.clone(),
            now: || NOW,
        };
        let cancel = CancellationToken::new();
        let task = if self.loads {
            tokio::spawn(Load::new(spec, &self.goals, 4 << 10).run(cancel.clone()))
        } else {
            tokio::spawn(Task::new(spec).run(cancel.clone()))
        };
        self.tasks.push((task, cancel));
    }

    pub(super) fn produce(&mut self) {
        produce(&mut self.rng, self.name, &self.log);
    }

    pub(super) async fn disturb(&mut self) {
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
    pub(super) async fn settle(&mut self) {
        self.script.set(Faults::default());
        self.registry.away(0);
        for (task, cancel) in self.tasks.drain(..) {
            cancel.cancel();
            drop(task.await);
        }
        self.start_task().await;
        self.catch_up().await;
        let (task, cancel) = self.tasks.pop().unwrap();
        cancel.cancel();
        task.await.unwrap().unwrap();
    }

    /// Waits until every record is durable.
    pub(super) async fn catch_up(&self) {
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
    }
}
