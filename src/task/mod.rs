//! The task loop: one consuming member of a connector's group. It owns the assignment, the cache and
//! everything in flight; what does I/O runs beside it ([`ops`]) and hands results back.
//!
//! A record's way: delivered → inbox → decoded → (states loaded) → folded → written → durable →
//! committed. Reading, folding and writing overlap: while one batch is written, the next is folded and
//! the one after gathers in the inbox.
//!
//! The loop's state is held by parts, each of which changes what is its own: `pipeline` (what is in flight), `assignment`
//! (positions), `contention` (how long other writers get their turn), `exit` (that the task is to end), `membership` (calls to
//! the group), `parking`, `side_work`, `topics` and `gauges`. Whether something more is folded or written follows from what
//! stands of them at one moment (`blocked`).
//!
//! In reading order: this file (the loop and the fold's turn in it), `pipeline`, `inbox`, `folder`, `batch`, `cache`, `let_go`
//! (its keys of before), `blocked`, `writing` (what each end of a flush leads to), `contention`, `membership` (partitions that
//! come and go), `parking` (keys set aside), `side_work` and `expiry` (what is written beside the log's records) and `requests` (what the
//! operator wants of parked keys), `assignment`, `exit`, `gauges`, `status`, `errors` and `ops` (the calls), `letters` (which of them are
//! sent), `topics` (whether a topic was made anew); `load` comes before the loop where a generation is built.

mod aside;
mod asked;
mod assignment;
mod batch;
mod blocked;
mod cache;
mod calls;
mod contention;
mod coverage;
mod decisions;
mod errors;
mod exit;
mod expiry;
mod folder;
mod gauges;
mod inbox;
mod let_go;
mod letters;
mod load;
mod membership;
mod needed;
mod ops;
mod parking;
mod pipeline;
mod requests;
mod side_work;
mod status;
mod topics;
mod uncommitted;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::failpoint::Failpoint;
use foldline_api::parked::Place;
use foldline_api::record::TopicPartition;
use foldline_api::sink::{Target, Writer};
use foldline_api::source::{DeadLetters, Log, Source, SourceEvent, Wanted};
use foldline_api::throttle::Throttle;
use foldline_language::projection::Projection;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dead_letter::Origin;
use crate::decoding::Decoders;
use crate::expiry::Expiry;
use crate::metrics::ConnectorMetrics;
use crate::offload::busy;
use crate::pace::Pace;
use crate::policy::{OnBadRecord, Reaction, reaction};
use assignment::Assignment;
use blocked::Facts;
use cache::Cache;
use calls::{join, spawn, spawn_at_once};
use contention::Contention;
use coverage::Watch;
use exit::ExitIntent;
use expiry::Sweep;
use folder::{Decoded, Folder};
use gauges::Gauges;
use inbox::Item;
use membership::Membership;
use ops::Ops;
use pipeline::Pipeline;
use side_work::SideWork;
use topics::Topics;

pub use blocked::BlockedBy;
pub(crate) use errors::newer;
pub use errors::{Bad, ErrorTimes, LastBad, PastError};
pub use inbox::Limits;
pub(crate) use load::Load;
pub(crate) use parking::Allowance;
pub use status::{PartitionStatus, Snapshot, TaskStatus};

/// What a task is made of.
pub(crate) struct TaskSpec {
    pub(crate) projection: Arc<Projection>,
    pub(crate) decoders: Arc<dyn Decoders>,
    pub(crate) source: Box<dyn Source>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) writer: Arc<dyn Writer>,
    /// For what is parked, and what is wanted of it.
    pub(crate) target: Arc<dyn Target>,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    /// It writes a build: letters wait in its books for the swap.
    pub(crate) outbox: bool,
    pub(crate) metrics: ConnectorMetrics,
    pub(crate) status: TaskStatus,
    pub(crate) origin: Origin,
    pub(crate) on_bad_record: OnBadRecord,
    /// How many events may still be parked.
    pub(crate) allowance: Allowance,
    /// Of a build: events that the live generation has parked since the store refused them.
    pub(crate) asks: Arc<[Place]>,
    pub(crate) limits: Limits,
    /// Bytes for cached states.
    pub(crate) cache_bytes: usize,
    /// The generation that is written, for the mark in the commit metadata.
    pub(crate) generation: u64,
    /// While true, the task keeps its partitions and consumes nothing.
    pub(crate) paused: watch::Receiver<bool>,
    /// Whether the connector is idle: its tasks ask the store for nothing then.
    pub(crate) pace: Arc<Pace>,
    /// Which rows the clock deletes; none where the projection's do not expire.
    pub(crate) expiry: Option<Arc<Expiry>>,
    /// Milliseconds since the epoch; only for latency and lag in time.
    pub(crate) now: fn() -> i64,
}

/// Why a task ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to stop, flushed and left.
    Stopped,
    /// The target has another live generation, or keeps fencing this task: start over.
    Superseded,
}

/// After so long a batch takes no more records, be they slow ones: a revocation waits for it.
const FOLD_SLICE: Duration = Duration::from_millis(500);
/// How long a revocation or a stop waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(10);
/// How often durable positions are committed to the group.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Nothing is due: a look all the same.
const IDLE_EVERY: Duration = Duration::from_secs(10);
/// After so many errors in a row the source is given up for a new one.
const SOURCE_ERRORS_MAX: u32 = 100;

/// Errors in a row, and which of the lines about them are logged.
#[derive(Debug, Default)]
struct Errors {
    count: u32,
    /// The last one came of asking for schemas.
    of_schemas: bool,
    lines: Throttle,
}

impl Errors {
    /// Whether a line about the newest is to be logged.
    fn admit(&mut self) -> bool {
        self.lines.admit(Instant::now().into_std()).is_some()
    }
}

pub(crate) struct Task {
    source: Box<dyn Source>,
    ops: Ops,
    folder: Folder,
    cache: Cache,
    /// Which paths no event ever had.
    watch: Watch,
    held: Assignment,
    pipeline: Pipeline,
    contention: Contention,
    exit: ExitIntent,
    membership: Membership,
    side_work: SideWork,
    /// Rows that the clock deletes.
    sweep: Sweep,
    /// Whether the topics are still the same.
    topics: Topics,
    gauges: Gauges,
    /// Of the source.
    read_errors: Errors,
    /// Writes that left nothing behind.
    write_errors: Errors,
    paused: watch::Receiver<bool>,
    pace: Arc<Pace>,
    /// How often it was woken by that.
    wakings: u64,
}

impl Task {
    pub(crate) fn new(spec: TaskSpec) -> Self {
        Task {
            ops: Ops::new(&spec),
            folder: Folder { slice: Some(FOLD_SLICE), ..Folder::new(&spec) },
            source: spec.source,
            cache: Cache::new(spec.cache_bytes),
            watch: Watch::new(&spec.projection),
            held: Assignment::new(Instant::now() + COMMIT_EVERY),
            pipeline: Pipeline::new(spec.limits),
            contention: Contention::default(),
            exit: ExitIntent::default(),
            membership: Membership::new(spec.generation),
            side_work: SideWork::default(),
            sweep: Sweep::default(),
            topics: Topics::default(),
            gauges: Gauges::new(spec.metrics, spec.status, spec.now),
            read_errors: Errors::default(),
            write_errors: Errors::default(),
            paused: spec.paused,
            wakings: spec.pace.wakings(),
            pace: spec.pace,
        }
    }

    /// Consumes until `cancel`, or until an error that waiting does not cure.
    pub(crate) async fn run(mut self, cancel: CancellationToken) -> Result<Ended> {
        let ended = match self.consume(&cancel).await {
            Err(error) => Err(self.reason(error).await),
            ended => ended,
        };
        if let Err(error) = &ended {
            self.ops.metrics.error("task", error.class().label()).inc();
            self.ops.status.trouble(error);
        }
        self.leave().await;
        match ended {
            Err(error) if error.class() == ErrorClass::Fenced => Ok(Ended::Superseded),
            ended => ended,
        }
    }

    async fn consume(&mut self, cancel: &CancellationToken) -> Result<Ended> {
        loop {
            self.advance()?;
            if let Some(ended) = self.finished()? {
                return Ok(ended);
            }
            let timer = self.timer();
            let wanted = self.wanted();
            let (writing, loading) = self.pipeline.calls();
            let (acquiring, committing) = self.membership.calls();
            tokio::select! {
                biased;
                () = cancel.cancelled(), if !self.exit.is_told() => {
                    self.exit.tell(Instant::now() + DRAIN);
                    self.abandon_inbox();
                }
                end = join(writing) => self.on_written(end?)?,
                acquired = join(acquiring) => self.on_acquired(acquired?)?,
                loaded = join(loading) => self.on_loaded(loaded?),
                committed = join(committing) => self.on_committed(committed),
                same = join(self.topics.call()) => {
                    same?;
                    self.on_same_topics();
                }
                found = join(self.side_work.call()) => self.on_found(found)?,
                found = join(self.sweep.call()) => self.on_expired_found(found)?,
                event = self.source.next(wanted) => match event {
                    Ok(event) => {
                        if std::mem::take(&mut self.read_errors.count) > 0 {
                            self.ops.status.clear_trouble();
                        }
                        self.on_event(event)?;
                    }
                    Err(error) => self.on_source_error(error)?,
                },
                Ok(()) = self.paused.changed() => {}
                () = self.pace.woken(&mut self.wakings) => {
                    self.side_work.look_now(Instant::now());
                    self.sweep.look_now(Instant::now());
                }
                () = tokio::time::sleep_until(timer) => {}
            }
        }
    }

    /// Rebalances always; records only while there is room for them.
    fn wanted(&self) -> Wanted {
        if self.pipeline.inbox.has_room() && !self.exit.is_set() && !*self.paused.borrow() {
            Wanted::All
        } else {
            Wanted::Control
        }
    }

    /// What stands of the parts now.
    fn facts(&self) -> Facts {
        Facts {
            ends: self.exit.is_stopped(),
            stands_back: self.contention.until().is_some(),
            acquires: self.membership.acquires(),
            lost: !self.held.steady(),
            revokes: self.held.is_revoking(),
            unmarked: self.held.unmarked(),
            requested: self.side_work.block(),
            parking_full: self.folder.parking.is_full(),
            loading: self.pipeline.is_loading(),
            folded: self.pipeline.folded(|came| self.topics.confirmed(came)),
            writing: self.pipeline.is_writing(),
            memory_full: self.cache.is_over(),
            delivered: !self.pipeline.inbox.is_empty(),
            log_fails: self.read_errors.count > 0 && !self.read_errors.of_schemas,
            schemas_fail: self.read_errors.count > 0 && self.read_errors.of_schemas,
            paused: *self.paused.borrow(),
        }
    }

    /// Starts whatever can start now.
    fn advance(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.pipeline.take_reads_again() {
            // It is told again, behind what is read again.
            self.exit.forget_broken(None);
            let starts = self.held.restart();
            self.read_on(starts)?;
        }
        self.contention.pass(now);
        // Who takes partitions over writes nothing meanwhile, so that no flush is of an epoch that was just raised.
        if !self.pipeline.is_writing() && !self.membership.acquires() {
            if let Some(partitions) = self.held.take_waiting(now) {
                self.membership.acquire(spawn(self.ops.clone().acquire(partitions)));
            } else {
                self.write_expired();
                if self.facts().write().is_none()
                    && let Some(batch) = self.pipeline.take_folded()
                {
                    self.start_write(batch);
                }
            }
        }
        self.advance_side_work(now);
        self.advance_sweep(now);
        self.start_fold(now);
        self.ask_topics(false, now);
        let facts = self.facts();
        if facts.folded.is_some() && facts.write().is_none() {
            // It was folded just now: while it is written, the next is folded.
            return self.advance();
        }
        self.start_commit(now);
        self.finish_revocation(now)?;
        self.gauges.blocked_by(self.facts().all(), now);
        Ok(())
    }

    fn start_fold(&mut self, now: Instant) {
        if self.facts().fold().is_some() {
            return;
        }
        let Some(items) = self.pipeline.inbox.cut(now) else { return };
        // Before the fold, so that the answer comes beside it.
        self.ask_topics(true, now);
        let mut batch = self.pipeline.open();
        batch.came = self.topics.last();
        let held = &self.held;
        let before = |partition: &TopicPartition| held.folded(partition);
        let (folder, watch, cache) = (&mut self.folder, &mut self.watch, &mut self.cache);
        let decoded = busy(|| folder.decode(watch, batch, items, cache, &before));
        if decoded.missing.is_empty() {
            self.fold(decoded);
            return;
        }
        let (missing, needed) = (decoded.missing.clone(), decoded.needed.clone());
        let room = self.cache.make_room(self.ops.expected(missing.len()));
        self.pipeline.load(decoded, spawn(self.ops.clone().load(missing, needed, room)));
    }

    fn fold(&mut self, decoded: Decoded) {
        let held = &self.held;
        let (folder, cache) = (&mut self.folder, &mut self.cache);
        let (mut batch, items) = busy(|| folder.fold(decoded, cache, &|p| held.folded(p)));
        self.pipeline.keep(&mut batch, items);
        self.set_aside(&mut batch);
        for (partition, (_, to)) in &batch.steps {
            self.held.set_folded(partition, *to);
        }
        if batch.stop.is_some() {
            self.exit.stop(batch.stop.clone());
            self.abandon_inbox();
        }
        Failpoint::AfterFold.reach();
        self.pipeline.fold(batch);
    }

    fn on_loaded(&mut self, loaded: needed::States) {
        let Some(mut decoded) = self.pipeline.loaded() else { return };
        decoded.take(loaded, &mut self.cache);
        self.fold(decoded);
    }

    /// The source gets over a machine problem by itself; it is shown meanwhile.
    fn on_source_error(&mut self, error: Error) -> Result<()> {
        self.ops.metrics.error("source", error.class().label()).inc();
        self.read_errors.count += 1;
        self.read_errors.of_schemas = error.is_of_schemas();
        let errors = self.read_errors.count;
        // One that says nothing else any more is at its end: a new session makes another.
        if reaction(error.class()) != Reaction::Retry || errors > SOURCE_ERRORS_MAX {
            return Err(error);
        }
        let of = if error.is_of_schemas() { "schemas" } else { "read" };
        self.ops.metrics.retry(of).inc();
        self.ops.status.trouble(&error);
        if self.read_errors.admit() {
            tracing::warn!(%error, errors, "the source has trouble and goes on trying");
        }
        Ok(())
    }

    fn on_event(&mut self, event: SourceEvent) -> Result<()> {
        let now = Instant::now();
        match event {
            SourceEvent::Records(records) => {
                self.pace.touch();
                let delivered = records.len() as u64;
                self.gauges.fetched(delivered);
                self.topics.came(self.held.topics_of(&records));
                let strays = if self.exit.is_stopped() {
                    delivered
                } else {
                    let inbox = &mut self.pipeline.inbox;
                    self.held.take_in(records, |record| inbox.push(Item::Record(record), now))
                };
                self.gauges.abandoned(strays);
                self.read_on(Vec::new())?;
                self.gauges.oldest(self.pipeline.oldest());
            }
            SourceEvent::End(partition, position) => {
                if self.held.ended(&partition, position) {
                    self.topics.came(self.held.topic_of(&partition).into_iter().collect());
                    self.pipeline.inbox.push(Item::End(partition, position), now);
                }
                self.show();
            }
            SourceEvent::Broken(partition, at, _) if self.held.is_left_out(&partition, at) => {
                self.read_on(Vec::new())?;
            }
            SourceEvent::Broken(partition, _, error) => {
                tracing::error!(%error, %partition, "what was read before it is folded first");
                self.exit.broken(partition, error);
            }
            SourceEvent::Assigned(partitions) => self.assigned(partitions),
            SourceEvent::Revoked(partitions) => self.revoked(partitions, now),
            SourceEvent::Lost(partitions) => self.lose(&partitions),
        }
        Ok(())
    }

    fn idle(&self) -> bool {
        self.pipeline.is_drained() && !self.membership.acquires()
    }

    fn finished(&mut self) -> Result<Option<Ended>> {
        let (drained, empty) = (self.pipeline.is_drained(), self.pipeline.inbox.is_empty());
        self.exit.finish((self.idle(), drained, empty), Instant::now())
    }

    /// Shows positions and lag.
    fn show(&self) {
        self.gauges.oldest(self.pipeline.oldest());
        self.gauges.positions(self.held.snapshot(&self.source.ends()));
    }

    fn timer(&self) -> Instant {
        let now = Instant::now();
        let mut at = now + IDLE_EVERY;
        let due = self.pipeline.inbox.due().filter(|_| self.facts().fold().is_none());
        let commit = self.held.commit_due().filter(|_| !self.membership.commits());
        let asked = self.side_work.timer().filter(|_| !self.pace.is_idle());
        let held = self.held.timer();
        let sweep = self.sweep.timer().filter(|_| self.pace.looks());
        let others =
            [due, held, commit, asked, sweep, self.exit.deadline(), self.contention.until()];
        for other in others.into_iter().flatten() {
            at = at.min(other);
        }
        // Something due that cannot start yet is started by what it waits for, not by the clock.
        at.max(now + Duration::from_millis(1))
    }
}

#[cfg(test)]
pub(crate) mod simulation;
