//! The task loop: one consuming member of a connector's group. It owns the assignment, the cache and
//! everything in flight; what does I/O runs beside it ([`ops`]) and hands results back.
//!
//! A record's way: delivered → inbox → decoded → (states loaded) → folded → written → durable →
//! committed. Reading, folding and writing overlap: while one batch is written, the next is folded and
//! the one after gathers in the inbox.

mod assignment;
mod batch;
mod cache;
mod inbox;
mod ops;
mod status;

use std::sync::Arc;
use std::time::Duration;

use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::model::Key;
use foldline_api::record::TopicPartition;
use foldline_api::sink::{Loaded, StoredVerdict, Versions, Writer, Written};
use foldline_api::source::{DeadLetters, Log, Source, SourceEvent, Wanted};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::dead_letter::Origin;
use crate::metrics::ConnectorMetrics;
use crate::policy::{OnBadRecord, Reaction, backoff, reaction};
use crate::projection::Projection;
use assignment::Assignment;
use batch::{Batch, Decoded, Folder, Verdict};
use cache::Cache;
use inbox::{Inbox, Item};
use ops::{Ops, Taken, WriteEnd};

pub(crate) use batch::Decoders;
pub use inbox::Limits;
pub(crate) use ops::recreated;
pub use status::{PartitionStatus, Snapshot, TaskStatus};

/// What a task is made of.
pub(crate) struct TaskSpec {
    pub(crate) projection: Arc<Projection>,
    pub(crate) decoders: Arc<dyn Decoders>,
    pub(crate) source: Box<dyn Source>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) writer: Arc<dyn Writer>,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    pub(crate) metrics: ConnectorMetrics,
    pub(crate) status: TaskStatus,
    pub(crate) origin: Origin,
    pub(crate) on_bad_record: OnBadRecord,
    pub(crate) limits: Limits,
    /// Bytes for cached states.
    pub(crate) cache_bytes: usize,
    /// The generation that is written, for the mark in the commit metadata.
    pub(crate) generation: u64,
    /// While true, the task keeps its partitions and consumes nothing.
    pub(crate) paused: watch::Receiver<bool>,
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

/// How long a revocation or a stop waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(10);
/// How often durable positions are committed to the group.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// After so many errors in a row the source is given up for a new one.
const SOURCE_ERRORS_MAX: u32 = 100;
/// After so many fences in a row the member leaves its group, so that the partition can move.
const FENCES_MAX: u32 = 8;

/// Keys with their states as the store has them.
type States = Vec<(Key, Loaded)>;

struct Writing {
    batch: Batch,
    keys: Vec<(Key, bool)>,
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
    held: Assignment,
    loading: Option<Loading>,
    folded: Option<Batch>,
    writing: Option<Writing>,
    acquiring: Option<AbortOnDropHandle<Result<Taken>>>,
    committing: Option<AbortOnDropHandle<Result<()>>>,
    batches: u64,
    fences: u32,
    collisions: u32,
    /// Errors of the source in a row.
    source_errors: u32,
    /// The record that the store refused alone, once: refused again from fresh states, it is to blame.
    suspect: Option<(TopicPartition, i64)>,
    /// The reason to end once everything folded is durable.
    stop: Option<String>,
    stopping: Option<Instant>,
    generation: u64,
    /// This task's part of the gauge.
    shown_assigned: i64,
    paused: watch::Receiver<bool>,
    now: fn() -> i64,
}

impl Task {
    pub(crate) fn new(spec: TaskSpec) -> Self {
        let folder = Folder {
            projection: spec.projection,
            decoders: spec.decoders,
            on_bad_record: spec.on_bad_record,
            keeps_marks: spec.writer.keeps_marks(),
            verdicts: hashbrown::HashMap::new(),
            origin: Arc::new(spec.origin),
        };
        let ops = Ops {
            writer: spec.writer,
            log: spec.log,
            dead_letters: spec.dead_letters,
            metrics: spec.metrics,
            status: spec.status,
        };
        Task {
            source: spec.source,
            ops,
            folder,
            cache: Cache::new(spec.cache_bytes),
            inbox: Inbox::new(spec.limits),
            held: Assignment::new(Instant::now() + COMMIT_EVERY),
            loading: None,
            folded: None,
            writing: None,
            acquiring: None,
            committing: None,
            batches: 0,
            fences: 0,
            collisions: 0,
            source_errors: 0,
            suspect: None,
            stop: None,
            stopping: None,
            generation: spec.generation,
            shown_assigned: 0,
            paused: spec.paused,
            now: spec.now,
        }
    }

    /// Consumes until `cancel`, or until an error that waiting does not cure.
    pub(crate) async fn run(mut self, cancel: CancellationToken) -> Result<Ended> {
        let ended = self.consume(&cancel).await;
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
                event = self.source.next(wanted) => match event {
                    Ok(event) => {
                        self.source_errors = 0;
                        self.on_event(event)?;
                    }
                    Err(error) => self.on_source_error(error)?,
                },
                Ok(()) = self.paused.changed() => {}
                () = tokio::time::sleep_until(timer) => {}
            }
        }
    }

    /// Rebalances always; records only while there is room for them.
    fn wanted(&self) -> Wanted {
        let ending = self.stopping.is_some() || self.stop.is_some();
        if self.inbox.has_room() && !ending && !*self.paused.borrow() {
            Wanted::All
        } else {
            Wanted::Control
        }
    }

    /// Starts whatever can start now.
    fn advance(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.writing.is_none() && self.acquiring.is_none() {
            if let Some(partitions) = self.held.take_waiting(now) {
                self.acquiring = Some(spawn(self.ops.clone().acquire(partitions)));
            } else if let Some(batch) = self.folded.take() {
                self.start_write(batch);
            }
        }
        self.start_fold(now);
        if self.writing.is_none() && self.acquiring.is_none() && self.folded.is_some() {
            return self.advance();
        }
        if self.committing.is_none()
            && let Some(commits) = self.held.take_commits(now, self.generation)
        {
            self.held.next_commit(now + COMMIT_EVERY);
            let committer = self.source.committer();
            self.committing = Some(spawn(async move { committer.commit(&commits).await }));
        }
        self.finish_revocation(now)
    }

    fn start_fold(&mut self, now: Instant) {
        if self.loading.is_none()
            && self.folded.is_none()
            && self.stop.is_none()
            && self.held.steady()
        {
            let Some(items) = self.inbox.cut(now) else { return };
            self.batches += 1;
            let decoded = self.folder.decode(self.batches, items, &mut self.cache);
            let handle = if self.cache.is_complete() || decoded.missing.is_empty() {
                None
            } else {
                Some(spawn(self.ops.clone().load(decoded.missing.clone())))
            };
            self.loading = Some(Loading { decoded, handle });
        }
        if let Some(Loading { handle: None, .. }) = &self.loading
            && let Some(Loading { decoded, .. }) = self.loading.take()
        {
            let absent = Loaded {
                row: None,
                version: foldline_api::sink::Version::Absent,
                marks: foldline_api::sink::Marks::new(),
            };
            for key in &decoded.missing {
                self.cache.insert(key.clone(), absent.clone(), decoded.number);
            }
            self.fold(decoded);
        }
    }

    fn fold(&mut self, decoded: Decoded) {
        let held = &self.held;
        let batch = self.folder.fold(decoded, &mut self.cache, &|p| held.folded(p));
        for (partition, (_, to)) in &batch.steps {
            self.held.set_folded(partition, *to);
        }
        if batch.stop.is_some() {
            self.stop.clone_from(&batch.stop);
            self.abandon_inbox();
        }
        self.folded = Some(batch);
    }

    fn on_loaded(&mut self, loaded: Vec<(Key, Loaded)>) {
        let Some(Loading { decoded, .. }) = self.loading.take() else { return };
        for (key, state) in loaded {
            self.cache.insert(key, state, decoded.number);
        }
        self.fold(decoded);
    }

    fn start_write(&mut self, mut batch: Batch) {
        let held = &self.held;
        let flush = batch.flush(&self.cache, &|partition| held.epoch(partition));
        let keys = flush.writes.iter().map(|w| (w.key.clone(), w.row.is_some())).collect();
        let letters = std::mem::take(&mut batch.letters);
        let handle = spawn(self.ops.clone().write(letters, flush));
        self.writing =
            Some(Writing { batch, keys, started: Instant::now(), forgotten: false, handle });
    }

    fn on_written(&mut self, end: WriteEnd) -> Result<()> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        match end {
            WriteEnd::Known(Written::Durable(versions)) => self.durable(writing, &versions),
            WriteEnd::Known(Written::Conflict) => {
                self.ops.metrics.conflicts.inc();
                self.collisions += 1;
                let records = writing.batch.records();
                self.fold_again(Some(writing.batch));
                if self.collisions > 2 {
                    self.inbox.narrow(records);
                }
            }
            WriteEnd::Known(Written::Rejected(error)) => self.rejected(writing.batch, &error),
            WriteEnd::Known(Written::Fenced) => return self.fenced(writing.batch),
            WriteEnd::Unknown(positions) => {
                match self.held.compare(&writing.batch.steps, &positions) {
                    assignment::Outcome::Durable => self.durable(writing, &Versions::Unknown),
                    assignment::Outcome::NotApplied => self.fold_again(Some(writing.batch)),
                    assignment::Outcome::Moved => return self.fenced(writing.batch),
                }
            }
        }
        Ok(())
    }

    fn durable(&mut self, writing: Writing, versions: &Versions) {
        use foldline_api::sink::Version;
        let Writing { batch, keys, started, forgotten, .. } = writing;
        for (partition, (_, to)) in &batch.steps {
            self.held.set_durable(partition, *to);
        }
        match versions {
            // What is folded on top of unknown versions could not be written: fold it again.
            Versions::Unknown => self.fold_again(None),
            _ if forgotten => {}
            Versions::All(version) => {
                for (key, present) in &keys {
                    self.cache.written(key, if *present { *version } else { Version::Absent });
                }
            }
            Versions::Each(each) => {
                for ((key, _), version) in keys.iter().zip(each) {
                    self.cache.written(key, *version);
                }
            }
        }
        for item in &batch.items {
            if let Item::Record(record) = item
                && !self.folder.verdicts.is_empty()
            {
                self.folder.verdicts.remove(&(record.topic_partition(), record.offset));
            }
        }
        self.cache.shrink(batch.number);
        self.inbox.widen();
        (self.fences, self.collisions) = (0, 0);
        self.account(&batch, &keys, started);
    }

    fn account(&self, batch: &Batch, keys: &[(Key, bool)], started: Instant) {
        let metrics = &self.ops.metrics;
        let counts = &batch.counts;
        metrics.applied.inc_by(counts.applied);
        metrics.filtered.inc_by(counts.filtered);
        metrics.replayed.inc_by(counts.replayed);
        metrics.dead_lettered.inc_by(counts.dead_lettered);
        metrics.skipped.inc_by(counts.skipped);
        metrics.consumed.inc_by(counts.consumed());
        self.count_abandoned(batch.duplicates);
        metrics.inflight.sub(counts.consumed() as i64);
        let upserts = keys.iter().filter(|(_, present)| *present).count() as u64;
        metrics.upserts.inc_by(upserts);
        metrics.deletes.inc_by(keys.len() as u64 - upserts);
        metrics.batch_rows.observe(keys.len() as f64);
        metrics.flush_seconds.observe(started.elapsed().as_secs_f64());
        let now = (self.now)();
        let latency = metrics.latency_seconds.local();
        let mut newest = None;
        for timestamp in batch.timestamps() {
            latency.observe((now - timestamp).max(0) as f64 / 1_000.0);
            newest = newest.max(Some(timestamp));
        }
        latency.flush();
        self.ops.status.update(|s| {
            s.consumed += counts.consumed();
            s.newest = s.newest.max(newest);
        });
        self.show();
    }

    /// Shows positions and lag.
    fn show(&self) {
        let partitions = self.held.snapshot(&self.source.ends());
        for status in &partitions {
            let tp = &status.partition;
            self.ops.metrics.lag(&tp.topic, tp.partition).set(status.lag());
        }
        self.ops.status.update(|s| s.partitions = partitions);
    }

    /// Everything that is folded and not durable, and `batch` before it, goes back to be folded anew
    /// from states that are read anew.
    fn fold_again(&mut self, batch: Option<Batch>) {
        let now = Instant::now();
        self.cache.clear();
        if let Some(writing) = &mut self.writing {
            writing.forgotten = true;
        }
        if let Some(loading) = self.loading.take() {
            self.inbox.put_back(loading.decoded.items, now);
        }
        if let Some(folded) = self.folded.take() {
            self.inbox.put_back(folded.items, now);
        }
        if let Some(batch) = batch {
            self.inbox.put_back(batch.items, now);
        }
        self.held.fold_from_durable(self.writing.as_ref().map(|writing| &writing.batch.steps));
    }

    /// The store refused the data: halve until the record to blame is alone.
    fn rejected(&mut self, batch: Batch, error: &Error) {
        self.ops.metrics.error("write", error.class().label()).inc();
        let records = batch.records();
        let alone = batch.items.iter().find_map(|item| match item {
            Item::Record(record) if records == 1 => Some((record.topic_partition(), record.offset)),
            Item::Record(_) | Item::End(..) => None,
        });
        if let Some(alone) = alone {
            if self.suspect.as_ref() == Some(&alone) {
                let verdict = Verdict { reason: error.to_string(), stored: false };
                self.folder.verdicts.insert(alone, verdict);
            } else {
                // A constraint may fire before a stale state shows: once more from fresh states.
                self.suspect = Some(alone);
            }
        }
        self.fold_again(Some(batch));
        self.inbox.narrow(records);
    }

    /// Another writer holds what this task thought it held: let everything go and acquire again.
    fn fenced(&mut self, batch: Batch) -> Result<()> {
        self.ops.metrics.fenced.inc();
        self.fences += 1;
        tracing::warn!(fences = self.fences, "fenced: another writer moved this task's positions");
        self.fold_again(Some(batch));
        self.abandon_inbox();
        if self.fences > FENCES_MAX {
            return Err(Error::fenced("fenced again and again: leaving the group"));
        }
        // The first fence may be one's own forgotten commit; later ones give the other side room.
        let wait = if self.fences == 1 { Duration::ZERO } else { backoff(self.fences) };
        self.held.acquire_all(Instant::now() + wait);
        Ok(())
    }

    fn abandon_inbox(&mut self) {
        let abandoned = self.inbox.drop_partitions(None);
        self.count_abandoned(abandoned);
    }

    fn count_abandoned(&self, records: u64) {
        self.ops.metrics.abandoned.inc_by(records);
        self.ops.metrics.inflight.sub(records as i64);
    }

    fn on_acquired(&mut self, taken: Taken) -> Result<()> {
        self.acquiring = None;
        let Taken { acquired, topic_ids } = taken;
        for StoredVerdict { partition, offset, reason } in acquired.verdicts {
            self.folder.verdicts.insert((partition, offset), Verdict { reason, stored: true });
        }
        let fresh = self.held.is_fresh();
        let starts = self.held.acquired(&acquired.leases, &topic_ids);
        // Only while no state was read before, and only a hint: inserts are guarded.
        if !acquired.empty {
            self.cache.set_complete(false);
        } else if fresh && self.fences == 0 {
            self.cache.set_complete(true);
        }
        self.source.start(&starts)?;
        self.show_assigned(self.held.len());
        self.show();
        Ok(())
    }

    fn on_committed(&mut self, committed: Result<()>) {
        self.committing = None;
        match committed {
            Ok(()) => {
                self.held.committed();
                self.ops.metrics.commits.inc();
            }
            Err(error) => {
                // Nothing is lost: the sink's positions win, and the next commit tries again.
                self.held.commit_failed();
                self.ops.metrics.commit_failures.inc();
                tracing::debug!(%error, "offset commit refused");
            }
        }
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
        tracing::warn!(%error, "the source has trouble and goes on trying");
        Ok(())
    }

    fn on_event(&mut self, event: SourceEvent) -> Result<()> {
        let now = Instant::now();
        match event {
            SourceEvent::Records(records) => {
                let delivered = records.len() as u64;
                self.ops.metrics.fetched.inc_by(delivered);
                self.ops.metrics.inflight.add(delivered as i64);
                let mut strays = 0;
                for record in records {
                    if self.stop.is_none() && self.held.expects(&record) {
                        self.inbox.push(Item::Record(record), now);
                    } else {
                        strays += 1;
                    }
                }
                self.count_abandoned(strays);
            }
            SourceEvent::End(partition, position) => {
                if self.held.ended(&partition, position) {
                    self.inbox.push(Item::End(partition, position), now);
                }
                self.show();
            }
            SourceEvent::Assigned(partitions) => {
                self.ops.metrics.rebalances.inc();
                tracing::info!(count = partitions.len(), "partitions assigned");
                let again: Vec<TopicPartition> =
                    partitions.iter().filter(|p| self.held.holds(p)).cloned().collect();
                if !again.is_empty() {
                    // Lost and given back before this task heard of it.
                    self.lose(&again);
                }
                self.held.assigned(partitions);
            }
            SourceEvent::Revoked(partitions) => {
                self.ops.metrics.rebalances.inc();
                tracing::info!(count = partitions.len(), "partitions revoked, draining");
                let abandoned =
                    self.inbox.drop_partitions(Some(&self.held.revoking(partitions, now + DRAIN)));
                self.count_abandoned(abandoned);
            }
            SourceEvent::Lost(partitions) => self.lose(&partitions),
        }
        Ok(())
    }

    /// These partitions are someone else's already: nothing of them may count as ours.
    fn lose(&mut self, partitions: &[TopicPartition]) {
        self.ops.metrics.rebalances.inc();
        tracing::warn!(count = partitions.len(), "partitions lost");
        // A write under way is fenced by the new owner or was in time; either way it is not asked again.
        let batch = self.writing.take().map(|writing| writing.batch);
        self.fold_again(batch);
        let gone = partitions.iter().cloned().collect();
        let abandoned = self.inbox.drop_partitions(Some(&gone));
        self.count_abandoned(abandoned);
        self.drop_partitions(partitions);
        // What was written together with them has an unknown outcome.
        self.abandon_inbox();
        self.held.acquire_all(Instant::now());
    }

    /// The gauge belongs to all tasks of the connector: each adds and takes away its own part.
    fn show_assigned(&mut self, held: usize) {
        let held = i64::try_from(held).unwrap_or(i64::MAX);
        self.ops.metrics.assigned.add(held - self.shown_assigned);
        self.shown_assigned = held;
    }

    fn drop_partitions(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.held.remove(partition);
            self.ops.metrics.forget_lag(&partition.topic, partition.partition);
        }
        self.show_assigned(self.held.len());
        self.show();
    }

    fn idle(&self) -> bool {
        self.writing.is_none()
            && self.folded.is_none()
            && self.loading.is_none()
            && self.acquiring.is_none()
    }

    /// Gives revoked partitions back once nothing of them is in flight and their positions are
    /// committed, or when the time is up.
    fn finish_revocation(&mut self, now: Instant) -> Result<()> {
        let Some((partitions, deadline)) = self.held.revocation() else { return Ok(()) };
        let drained =
            self.idle() && self.committing.is_none() && !self.held.uncommitted(&partitions);
        if !drained && now < deadline {
            if self.idle() {
                self.held.next_commit(now);
            }
            return Ok(());
        }
        self.fold_again(None);
        let gone = partitions.iter().cloned().collect();
        let abandoned = self.inbox.drop_partitions(Some(&gone));
        self.count_abandoned(abandoned);
        self.drop_partitions(&partitions);
        self.source.release(&partitions)
    }

    fn finished(&mut self) -> Result<Option<Ended>> {
        if let Some(reason) = &self.stop
            && self.idle()
        {
            return Err(Error::record(reason.clone()));
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
        let mut at = now + COMMIT_EVERY;
        let due = self.inbox.due().filter(|_| self.loading.is_none() && self.folded.is_none());
        for other in [due, self.held.timer(), self.stopping].into_iter().flatten() {
            at = at.min(other);
        }
        // Something due that cannot start yet is started by what it waits for, not by the clock.
        at.max(now + Duration::from_millis(1))
    }

    /// Commits what is durable and leaves the group, each within a bound.
    async fn leave(mut self) {
        self.abandon_rest();
        if let Some(commits) = self.held.all_durable(self.generation) {
            let committer = self.source.committer();
            let commit = tokio::time::timeout(Duration::from_secs(5), committer.commit(&commits));
            match commit.await {
                Ok(Ok(())) => self.ops.metrics.commits.inc(),
                Ok(Err(_)) | Err(_) => self.ops.metrics.commit_failures.inc(),
            }
        }
        let held: Vec<TopicPartition> = self.held.partitions();
        for partition in &held {
            self.ops.metrics.forget_lag(&partition.topic, partition.partition);
        }
        self.show_assigned(0);
        let closed = tokio::time::timeout(DRAIN, self.source.close()).await;
        if closed.is_err() {
            tracing::warn!("the consumer did not leave its group in time");
        }
    }

    fn abandon_rest(&mut self) {
        let batch = self.writing.take().map(|writing| writing.batch);
        self.fold_again(batch);
        self.abandon_inbox();
    }
}

fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(future))
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
mod simulation;
