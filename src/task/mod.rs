//! The task loop: one consuming member of a connector's group. It owns the assignment, the cache and
//! everything in flight; what does I/O runs beside it ([`ops`]) and hands results back.
//!
//! A record's way: delivered → inbox → decoded → (states loaded) → folded → written → durable →
//! committed. Reading, folding and writing overlap: while one batch is written, the next is folded and
//! the one after gathers in the inbox.
//!
//! In reading order: this file (the loop and the fold's turn in it), `inbox`, `folder`, `batch`, `cache`, `let_go` (its keys of before),
//! `writing` (what each end of a flush leads to), `membership` (partitions that come and go), `parking` (keys set aside) and
//! `requests` (what the operator wants of them), `assignment` (positions), `accounting`, `status` and `ops` (the
//! calls), `letters` (which of them are sent), `topics` (whether a topic was made anew); `load` comes before the loop where a
//! generation is built.

mod accounting;
mod asked;
mod assignment;
mod batch;
mod cache;
mod coverage;
mod decisions;
mod folder;
mod inbox;
mod let_go;
mod letters;
mod load;
mod membership;
mod ops;
mod parking;
mod requests;
mod status;
mod topics;
mod writing;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::failpoint::Failpoint;
use foldline_api::model::Key;
use foldline_api::parked::Place;
use foldline_api::record::TopicPartition;
use foldline_api::sink::{Flush, Loaded, Target, Writer};
use foldline_api::source::{DeadLetters, Log, Source, SourceEvent, Wanted};
use foldline_api::throttle::Throttle;
use foldline_language::projection::Projection;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::connector::pace::Pace;
use crate::dead_letter::Origin;
use crate::metrics::ConnectorMetrics;
use crate::offload::busy;
use crate::policy::{OnBadRecord, Reaction, reaction};
use assignment::Assignment;
use batch::Batch;
use cache::Cache;
use coverage::Watch;
use folder::{Decoded, Folder};
use inbox::{Inbox, Item};
use ops::{Ops, Taken, WriteEnd};
use requests::Requests;
use topics::Topics;

pub(crate) use folder::{Decoders, UNPREPARED, decode};
pub use inbox::Limits;
pub(crate) use load::Load;
pub(crate) use parking::Allowance;
pub use status::{PartitionStatus, Snapshot, TaskStatus};
pub(crate) use topics::{recreated, same_topics};

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

/// Keys with their states as the store has them.
#[derive(Debug, Default)]
struct States {
    loaded: Vec<(Key, Loaded)>,
    /// Those of them that the store cannot even name: absent, and so they stay.
    nowhere: Vec<Key>,
}

struct Writing {
    batch: Batch,
    flush: Arc<Flush>,
    started: Instant,
    /// The states were forgotten meanwhile: the cache must not take the versions in.
    forgotten: bool,
    handle: AbortOnDropHandle<Result<WriteEnd>>,
}

struct Loading {
    decoded: Decoded,
    handle: Option<AbortOnDropHandle<Result<States>>>,
}

pub(crate) struct Task {
    source: Box<dyn Source>,
    ops: Ops,
    folder: Folder,
    cache: Cache,
    inbox: Inbox,
    /// Which paths no event ever had.
    watch: Watch,
    /// At most so many bytes of records are kept to be folded again; those of a batch that grew beyond are
    /// read again.
    kept_bytes_max: usize,
    held: Assignment,
    loading: Option<Loading>,
    folded: Option<Batch>,
    writing: Option<Writing>,
    /// What is to be folded again was let go: the source is to deliver it again.
    reads_again: bool,
    acquiring: Option<AbortOnDropHandle<Result<Taken>>>,
    committing: Option<AbortOnDropHandle<Result<()>>>,
    /// What the operator wants of parked keys.
    requests: Requests,
    /// Whether the topics are still the same.
    topics: Topics,
    batches: u64,
    fences: u32,
    /// Conflicts in a row.
    collisions: u32,
    /// So many flushes more leave room for other writers of the same rows.
    contended: u32,
    /// Until then nothing is folded or written, so that another writer gets its turn.
    yield_until: Option<Instant>,
    /// Errors of the source in a row.
    source_errors: u32,
    /// Of lines about the source, and about writes.
    reading_trouble: Throttle,
    writing_trouble: Throttle,
    /// Writes in a row that left nothing behind.
    write_failures: u32,
    /// The reason to end once everything folded is durable.
    stop: Option<String>,
    /// What cannot be read: the reason to end once all before it is durable.
    broken: Option<(TopicPartition, Error)>,
    stopping: Option<Instant>,
    generation: u64,
    /// This task's part of the gauges.
    shown_assigned: i64,
    shown_parked: i64,
    paused: watch::Receiver<bool>,
    pace: Arc<Pace>,
    /// How often it was woken by that.
    wakings: u64,
    now: fn() -> i64,
}

impl Task {
    pub(crate) fn new(spec: TaskSpec) -> Self {
        Task {
            ops: Ops::new(&spec),
            folder: Folder { slice: Some(FOLD_SLICE), ..Folder::new(&spec) },
            source: spec.source,
            cache: Cache::new(spec.cache_bytes),
            inbox: Inbox::new(spec.limits),
            watch: Watch::new(&spec.projection),
            kept_bytes_max: spec.limits.bytes,
            held: Assignment::new(Instant::now() + COMMIT_EVERY),
            loading: None,
            folded: None,
            writing: None,
            reads_again: false,
            acquiring: None,
            committing: None,
            requests: Requests::default(),
            topics: Topics::default(),
            batches: 0,
            fences: 0,
            collisions: 0,
            contended: 0,
            yield_until: None,
            source_errors: 0,
            reading_trouble: Throttle::default(),
            writing_trouble: Throttle::default(),
            write_failures: 0,
            stop: None,
            broken: None,
            stopping: None,
            generation: spec.generation,
            shown_assigned: 0,
            shown_parked: 0,
            paused: spec.paused,
            wakings: spec.pace.wakings(),
            pace: spec.pace,
            now: spec.now,
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
            self.ops.status.update(|s| s.last_error = Some(error.to_string()));
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
            tokio::select! {
                biased;
                () = cancel.cancelled(), if self.stopping.is_none() => {
                    self.stopping = Some(Instant::now() + DRAIN);
                    self.abandon_inbox();
                }
                end = join(self.writing.as_mut().map(|w| &mut w.handle)) => self.on_written(end?)?,
                acquired = join(self.acquiring.as_mut()) => self.on_acquired(acquired?)?,
                loaded = join(self.loading.as_mut().and_then(|l| l.handle.as_mut())) => {
                    self.on_loaded(loaded?);
                }
                committed = join(self.committing.as_mut()) => self.on_committed(committed),
                same = join(self.topics.call()) => {
                    same?;
                    self.on_same_topics();
                }
                looked = join(self.requests.call()) => self.on_looked(looked)?,
                event = self.source.next(wanted) => match event {
                    Ok(event) => {
                        self.source_errors = 0;
                        self.on_event(event);
                    }
                    Err(error) => self.on_source_error(error)?,
                },
                Ok(()) = self.paused.changed() => {}
                () = self.pace.woken(&mut self.wakings) => self.requests.look_now(Instant::now()),
                () = tokio::time::sleep_until(timer) => {}
            }
        }
    }

    /// Rebalances always; records only while there is room for them.
    fn wanted(&self) -> Wanted {
        let ending = self.stopping.is_some() || self.stop.is_some() || self.broken.is_some();
        if self.inbox.has_room() && !ending && !*self.paused.borrow() {
            Wanted::All
        } else {
            Wanted::Control
        }
    }

    /// Starts whatever can start now.
    fn advance(&mut self) -> Result<()> {
        let now = Instant::now();
        if std::mem::take(&mut self.reads_again) {
            // It is told again, behind what is read again.
            self.broken = None;
            self.source.start(&self.held.restart())?;
        }
        self.yield_until = self.yield_until.filter(|until| *until > now);
        // The first flush of a generation waits for the group to know it (rule 12).
        let may_write = self.yield_until.is_none() && !self.held.unmarked();
        if self.writing.is_none() && self.acquiring.is_none() {
            if let Some(partitions) = self.held.take_waiting(now) {
                self.acquiring = Some(spawn(self.ops.clone().acquire(partitions)));
            } else if let Some(batch) =
                self.folded.take_if(|batch| may_write && self.topics.confirmed(batch.came))
            {
                self.start_write(batch);
            }
        }
        self.advance_requests(now);
        self.start_fold(now);
        self.ask_topics(false, now);
        let confirmed = |batch: &Batch| self.topics.confirmed(batch.came);
        if self.writing.is_none()
            && self.acquiring.is_none()
            && self.folded.as_ref().is_some_and(confirmed)
            && may_write
        {
            return self.advance();
        }
        if self.committing.is_none()
            && let Some(commits) = self.held.take_commits(now, self.generation)
        {
            self.held.next_commit(now + COMMIT_EVERY);
            let committer = self.source.committer();
            self.committing = Some(spawn(async move {
                Failpoint::BeforeCommit.reach();
                committer.commit(&commits).await?;
                Failpoint::AfterCommit.reach();
                Ok(())
            }));
        }
        self.finish_revocation(now)
    }

    /// Whether something more may be folded: into a new batch, or into one that waits for its write.
    fn may_fold(&self) -> bool {
        let grows = |batch: &Batch| {
            // A request on parked events is a flush of its own.
            batch.aside.attempt.is_none()
                && !batch.closed
                && self.writing.is_some()
                && self.inbox.lets_grow(batch.rows())
                && batch.may_grow(self.kept_bytes_max)
        };
        // What is written makes room for the next batch, and what is acquired for nothing.
        let fits = self.writing.is_none() || !self.cache.is_over();
        fits && self.loading.is_none()
            && self.stop.is_none()
            && self.yield_until.is_none()
            && self.held.steady()
            && !self.requests.block()
            && !self.folder.parking.is_full()
            // What is folded now would hold the revocation up.
            && self.held.revocation().is_none()
            && self.folded.as_ref().is_none_or(grows)
    }

    fn start_fold(&mut self, now: Instant) {
        if self.may_fold() {
            let Some(items) = self.inbox.cut(now) else { return };
            // Before the fold, so that the answer comes beside it.
            self.ask_topics(true, now);
            let mut batch = self.folded.take().unwrap_or_else(|| {
                self.batches += 1;
                Batch::new(self.batches)
            });
            batch.came = self.topics.last();
            let held = &self.held;
            let before = |partition: &TopicPartition| held.folded(partition);
            let (folder, watch, cache) = (&mut self.folder, &mut self.watch, &mut self.cache);
            let decoded = busy(|| folder.decode(watch, batch, items, cache, &before));
            let handle = (!decoded.missing.is_empty()).then(|| {
                let (missing, first) = (decoded.missing.clone(), decoded.first);
                let room = self.cache.make_room(self.ops.expected(missing.len()));
                spawn(self.ops.clone().load(missing, first, room))
            });
            self.loading = Some(Loading { decoded, handle });
        }
        if let Some(Loading { handle: None, .. }) = &self.loading
            && let Some(Loading { decoded, .. }) = self.loading.take()
        {
            self.fold(decoded);
        }
    }

    fn fold(&mut self, decoded: Decoded) {
        let held = &self.held;
        let (folder, cache) = (&mut self.folder, &mut self.cache);
        let (mut batch, items) = busy(|| folder.fold(decoded, cache, &|p| held.folded(p)));
        batch.keep(items, self.kept_bytes_max);
        self.set_aside(&mut batch);
        for (partition, (_, to)) in &batch.steps {
            self.held.set_folded(partition, *to);
        }
        if batch.stop.is_some() {
            self.stop.clone_from(&batch.stop);
            self.abandon_inbox();
        }
        Failpoint::AfterFold.reach();
        self.folded = Some(batch);
    }

    fn on_loaded(&mut self, loaded: States) {
        let Some(Loading { decoded, .. }) = self.loading.take() else { return };
        self.cache.take(loaded, decoded.number());
        self.fold(decoded);
    }

    /// The source gets over a machine problem by itself; it is shown meanwhile.
    fn on_source_error(&mut self, error: Error) -> Result<()> {
        self.ops.metrics.error("source", error.class().label()).inc();
        self.source_errors += 1;
        // One that says nothing else any more is at its end: a new session makes another.
        if reaction(error.class()) != Reaction::Retry || self.source_errors > SOURCE_ERRORS_MAX {
            return Err(error);
        }
        self.ops.metrics.retry("read").inc();
        self.ops.status.trouble(&error);
        if self.reading_trouble.admit(Instant::now().into_std()).is_some() {
            let errors = self.source_errors;
            tracing::warn!(%error, errors, "the source has trouble and goes on trying");
        }
        Ok(())
    }

    fn on_event(&mut self, event: SourceEvent) {
        let now = Instant::now();
        match event {
            SourceEvent::Records(records) => {
                self.pace.touch();
                let delivered = records.len() as u64;
                self.ops.metrics.fetched.inc_by(delivered);
                self.ops.metrics.inflight.add(delivered as i64);
                self.topics.came(self.held.topics_of(&records));
                let strays = if self.stop.is_some() {
                    delivered
                } else {
                    let inbox = &mut self.inbox;
                    self.held.take_in(records, |record| inbox.push(Item::Record(record), now))
                };
                self.count_abandoned(strays);
            }
            SourceEvent::End(partition, position) => {
                if self.held.ended(&partition, position) {
                    self.topics.came(self.held.topic_of(&partition).into_iter().collect());
                    self.inbox.push(Item::End(partition, position), now);
                }
                self.show();
            }
            SourceEvent::Broken(partition, error) => {
                tracing::error!(%error, %partition, "what was read before it is folded first");
                self.broken = Some((partition, error));
            }
            SourceEvent::Assigned(partitions) => self.assigned(partitions),
            SourceEvent::Revoked(partitions) => self.revoked(partitions, now),
            SourceEvent::Lost(partitions) => self.lose(&partitions),
        }
    }

    fn idle(&self) -> bool {
        self.writing.is_none()
            && self.folded.is_none()
            && self.loading.is_none()
            && self.acquiring.is_none()
    }

    fn finished(&mut self) -> Result<Option<Ended>> {
        if let Some(reason) = &self.stop
            && self.idle()
        {
            return Err(Error::record(reason.clone()));
        }
        if self.idle()
            && self.inbox.is_empty()
            && let Some((_, error)) = self.broken.take()
        {
            return Err(error);
        }
        let Some(deadline) = self.stopping else { return Ok(None) };
        if (self.writing.is_none() && self.folded.is_none() && self.loading.is_none())
            || Instant::now() >= deadline
        {
            return Ok(Some(Ended::Stopped));
        }
        Ok(None)
    }

    fn timer(&self) -> Instant {
        let now = Instant::now();
        let mut at = now + IDLE_EVERY;
        let due = self.inbox.due().filter(|_| self.may_fold());
        let commit = self.held.commit_due().filter(|_| self.committing.is_none());
        let asked = self.requests.timer().filter(|_| !self.pace.is_idle());
        let held = self.held.timer();
        let others = [due, held, commit, asked, self.stopping, self.yield_until];
        for other in others.into_iter().flatten() {
            at = at.min(other);
        }
        // Something due that cannot start yet is started by what it waits for, not by the clock.
        at.max(now + Duration::from_millis(1))
    }
}

fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(future.in_current_span()))
}

/// The same for a call that is to leave before the spawner goes on: what is spawned begins when the spawner waits.
fn spawn_at_once<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    let mut future = Box::pin(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => spawn(std::future::ready(done)),
        Poll::Pending => spawn(future),
    }
}

/// Waits for a call that may not be under way; never ends if it is not.
async fn join<T>(handle: Option<&mut AbortOnDropHandle<Result<T>>>) -> Result<T> {
    match handle {
        Some(handle) => match handle.await {
            Ok(result) => result,
            Err(error) => Err(Error::retriable("a call of the task broke off").with_source(error)),
        },
        None => std::future::pending().await,
    }
}

#[cfg(test)]
pub(crate) mod simulation;
