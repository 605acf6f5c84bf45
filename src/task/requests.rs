//! What the operator wants of parked keys, carried out by the owner of their partition.
//!
//! Events that share keys stand and fall together: all of a retry applies, in order, or nothing of it, and
//! then the books say why. Nothing else is folded or written meanwhile, so that the books, read at the
//! beginning, are all there is to know.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::model::Key;
use foldline_api::parked::{DROPPED, Parked, Place, Request, Which, groups};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::sink::{StoredDecision, StoredVerdict};
use foldline_language::event::Event;
use foldline_language::projection::{BadRecord, Prepared};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::batch::{Batch, Counts};
use super::cache::Cache;
use super::folder::{Folder, decode};
use super::ops::Ops;
use super::{Task, spawn};
use crate::maps::{HashMap, HashSet};
use crate::offload::busy;
use crate::prepared::prepare;
use crate::retry::{Attempts, retry};

/// How often the books are asked for requests while keys are parked, but where the connector is idle.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where it stands with requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// When the books are looked at next.
    due: Option<Instant>,
    /// Someone wants something: folding waits until it is done.
    wanted: bool,
    looking: Option<AbortOnDropHandle<Result<Looked>>>,
}

impl Requests {
    /// Whether the fold has to wait.
    pub(super) fn block(&self) -> bool {
        self.wanted
    }

    /// When the books are looked at next.
    pub(super) fn timer(&self) -> Option<Instant> {
        self.due.filter(|_| !self.wanted && self.looking.is_none())
    }

    /// Someone may want something.
    pub(super) fn look_now(&mut self, now: Instant) {
        self.due = self.due.map(|_| now);
    }

    pub(super) fn call(&mut self) -> Option<&mut AbortOnDropHandle<Result<Looked>>> {
        self.looking.as_mut()
    }

    /// Lets go of a call, as partitions are about to move; what is wanted is found again.
    pub(super) fn cancel(&mut self) {
        (self.looking, self.wanted) = (None, false);
    }
}

/// What a look into the books found.
#[derive(Debug)]
pub(super) enum Looked {
    /// Whether someone wants something.
    Asked(bool),
    /// All that is parked in these partitions, and what came of the first request.
    Parked(Vec<TopicPartition>, Vec<Parked>, Option<Box<CarriedOut>>),
}

/// What a parked record decodes to.
type Decoded = Result<(Event, Prepared), BadRecord>;

/// A request that was carried out, but for its flush.
#[derive(Debug)]
pub(super) struct CarriedOut {
    /// Of the events that the request is about.
    partition: TopicPartition,
    at: Position,
    batch: Batch,
    /// The rows that the batch writes.
    cache: Cache,
}

/// What a request is carried out with, beside the task: its records and states come one after the other, so that not all of
/// them are in memory.
pub(super) struct Apart {
    folder: Folder,
    cache: Cache,
    number: u64,
    /// Where each partition stands.
    at: HashMap<TopicPartition, Position>,
}

/// Parked records are read by about so many bytes.
const READ_BYTES: usize = 1 << 20;

impl Task {
    /// Looks for requests now and then; once there is one, as soon as nothing is in flight.
    pub(super) fn advance_requests(&mut self, now: Instant) {
        if self.requests.looking.is_some() {
            return;
        }
        let partitions = self.folder.parking.partitions();
        let ending = self.exit.is_told() || self.exit.is_stopped();
        if ending || (partitions.is_empty() && !self.requests.wanted) {
            (self.requests.wanted, self.requests.due) = (false, None);
            return;
        }
        if self.requests.wanted {
            let quiet = self.idle() && self.held.steady() && !self.held.is_revoking();
            if quiet && self.contention.until().is_none() {
                let partitions = self.held.partitions();
                let number = self.pipeline.number();
                let at = |of: &TopicPartition| (of.clone(), self.held.folded(of));
                let apart = Apart {
                    folder: self.folder.apart(),
                    // What is cached is as the store has it; what a retry that fails leaves behind is not.
                    cache: self.cache.another(),
                    number,
                    at: partitions.iter().map(at).collect(),
                };
                self.requests.looking = Some(spawn(self.ops.clone().group(partitions, apart)));
            }
        } else if *self.requests.due.get_or_insert(now + LOOK_EVERY) <= now && !self.pace.is_idle()
        {
            self.requests.due = Some(now + LOOK_EVERY);
            self.requests.looking = Some(spawn(self.ops.clone().asked(partitions)));
        }
    }

    /// The books were looked at.
    pub(super) fn on_looked(&mut self, looked: Result<Looked>) -> Result<()> {
        self.requests.looking = None;
        let (partitions, parked, done) = match looked {
            Ok(Looked::Parked(partitions, parked, done)) => (partitions, parked, done),
            Ok(Looked::Asked(asked)) => {
                self.requests.wanted = asked;
                if asked {
                    self.pace.touch();
                }
                return Ok(());
            }
            Err(error) if matches!(error.class(), ErrorClass::Retriable | ErrorClass::Record) => {
                self.requests.wanted = false;
                self.ops.failed("parked", &error);
                tracing::warn!(%error, "a request on parked events cannot be followed yet");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // Partitions came or moved meanwhile: once more, when all is quiet.
        if !self.idle() || !self.held.steady() || self.held.is_revoking() {
            return Ok(());
        }
        self.requests.wanted = false;
        self.folder.parking.relearn(&partitions, &parked);
        self.show_parked();
        let Some(CarriedOut { partition, at, batch, cache }) = done.map(|done| *done) else {
            return Ok(());
        };
        self.cache.clear();
        self.cache.adopt(cache);
        self.pipeline.fold(with_fence(batch, partition, at));
        Ok(())
    }

    /// A flush that carries out a request is over, whatever came of it: the books say what is parked now,
    /// and whether there is more to do.
    pub(super) fn carried_out(&mut self, batch: &Batch) {
        if batch.aside.attempt.is_some() {
            self.requests.wanted = true;
        }
    }

    /// The store refused what a retry gives: its events stay parked, for this reason.
    pub(super) fn retry_refused(&mut self, group: &[Parked], error: &Error) {
        self.ops.metrics.error("write", error.class().label()).inc();
        self.fold_again(None);
        let Some(first) = group.first() else { return };
        let mut batch = Batch::new(self.pipeline.number());
        let (at, partition) = (self.held.folded(&first.partition), first.partition.clone());
        keep(&mut batch, group, first.offset, &format!("sink: {error}"));
        self.pipeline.fold(with_fence(batch, partition, at));
    }
}

/// A flush that moves no position, under the fence of its partition.
fn with_fence(mut batch: Batch, partition: TopicPartition, at: Position) -> Batch {
    batch.steps.insert(partition, (at, at));
    batch
}

/// What a request does with an event of its group.
fn leaves(request: Request, event: &Parked) -> bool {
    match request {
        Request::Retry => false,
        Request::Drop => true,
        Request::Skip => event.reason.is_some(),
    }
}

impl Folder {
    /// Does what is asked of some of a group's events: the first that is still bad, and why.
    fn carry_out(
        &self,
        request: Request,
        events: Vec<(&Parked, Decoded)>,
        cache: &mut Cache,
        batch: &mut Batch,
    ) -> Result<(), (i64, BadRecord)> {
        for (event, decoded) in events {
            if leaves(request, event) {
                let (partition, offset) = event.place();
                batch.verdicts.push(StoredVerdict::new(partition, offset, DROPPED, None));
                continue;
            }
            let applied = decoded.and_then(|(record, mut prepared)| {
                self.apply(&event.partition, &record, &mut prepared, cache, batch)
            });
            applied.map_err(|bad| (event.offset, bad))?;
        }
        Ok(())
    }

    /// What the rows decided that hold some of these events already binds; the rest is decided anew.
    fn recall_decisions(&mut self, parked: &[Parked], at: Position) {
        for event in parked {
            self.decisions.settle(&event.partition, at);
        }
        let decided = parked.iter().filter(|event| !event.refused.is_empty());
        let decided = decided.map(|event| StoredDecision {
            partition: event.partition.clone(),
            offset: event.offset,
            refused: event.refused.clone(),
            bad: None,
        });
        self.decisions.keep(&decided.collect::<Vec<_>>());
    }
}

/// Notes why a group stays, at the event at `offset`; its requests are done with.
fn keep(batch: &mut Batch, group: &[Parked], offset: i64, reason: &str) {
    for event in group {
        let failed = event.offset == offset;
        if failed || event.request.is_some() {
            let why = failed.then(|| reason.to_owned());
            batch.aside.changes.keep.push((event.place(), why));
        }
    }
    batch.aside.attempt = Some(group.to_vec());
}

impl Ops {
    /// Whether someone wants something of what is parked in these partitions.
    async fn asked(self, partitions: Vec<TopicPartition>) -> Result<Looked> {
        let which = Which { partitions: Some(partitions), asked: true };
        Ok(Looked::Asked(!self.parked(&which).await?.is_empty()))
    }

    async fn parked(&self, which: &Which) -> Result<Vec<Parked>> {
        let parking = self.target.parking();
        retry(self, "parked", || parking.parked(self.generation, which)).await
    }

    /// All that is parked in these partitions, and what comes of the first request.
    async fn group(self, partitions: Vec<TopicPartition>, apart: Apart) -> Result<Looked> {
        let which = Which { partitions: Some(partitions.clone()), asked: false };
        let parked = self.parked(&which).await?;
        let asked = |group: &Vec<Parked>| group.iter().any(|event| event.request.is_some());
        let Some(group) = groups(parked.clone()).into_iter().find(asked) else {
            return Ok(Looked::Parked(partitions, parked, None));
        };
        let done = self.carry_out(group, apart).await?;
        Ok(Looked::Parked(partitions, parked, done.map(Box::new)))
    }

    /// Does what is asked of a group of parked events, all of them or none. They lie before where their partition stands.
    async fn carry_out(&self, group: Vec<Parked>, mut apart: Apart) -> Result<Option<CarriedOut>> {
        let Some(partition) = group.first().map(|event| event.partition.clone()) else {
            return Ok(None);
        };
        let at = apart.at.get(&partition).copied().unwrap_or_default();
        apart.folder.recall_decisions(&group, at);
        let request = group.iter().find_map(|event| event.request).unwrap_or(Request::Retry);
        let mut batch = Batch::new(apart.number);
        let (mut rest, mut few) = (&*group, 1);
        while !rest.is_empty() {
            let (some, behind) = rest.split_at(rest.len().min(few));
            let records = self.parked_records(some).await?;
            let bytes: usize = records.iter().map(Record::bytes).sum();
            few = (READ_BYTES / (bytes / some.len()).max(1)).clamp(1, few * 4);
            let (projection, decoders) =
                (Arc::clone(&apart.folder.projection), Arc::clone(&apart.folder.decoders));
            // No retry here: the live events go on meanwhile, and it is looked at again.
            prepare(&*decoders, &records).await?;
            let decoded: Vec<_> =
                busy(|| records.iter().map(|r| decode(&projection, &*decoders, r)).collect());
            drop(records);
            self.bring(&decoded, &mut apart).await?;
            let Apart { folder, cache, .. } = &mut apart;
            let events = some.iter().zip(decoded).collect();
            if let Err((offset, bad)) =
                busy(|| folder.carry_out(request, events, cache, &mut batch))
            {
                tracing::info!(%partition, offset, "parked events stay: one of them is still bad");
                // What the events before it did is undone with the states that it was done to.
                cache.clear();
                let mut batch = Batch::new(apart.number);
                keep(&mut batch, &group, offset, &format!("{}: {}", bad.stage, bad.reason));
                return Ok(Some(CarriedOut { partition, at, batch, cache: apart.cache }));
            }
            rest = behind;
        }
        let (events, first) = (group.len(), group.first().map(Parked::id));
        tracing::info!(events, first, request = request.name(), "parked events freed");
        // They were counted when they were parked.
        batch.counts = Counts::default();
        batch.aside.changes.free = group.iter().map(Parked::place).collect();
        batch.aside.attempt = Some(group);
        Ok(Some(CarriedOut { partition, at, batch, cache: apart.cache }))
    }

    async fn parked_records(&self, events: &[Parked]) -> Result<Vec<Record>> {
        let places: Vec<Place> = events.iter().map(Parked::place).collect();
        let parking = self.target.parking();
        let records: Vec<Record> =
            retry(self, "parked", || parking.records(self.generation, &places)).await?;
        let same = records.len() == places.len()
            && records
                .iter()
                .zip(&places)
                .all(|(record, place)| (record.topic_partition(), record.offset) == *place);
        if !same {
            return Err(Error::retriable("what is parked changed while it was read"));
        }
        Ok(records)
    }

    /// Reads the states of these events' keys that are not there yet.
    async fn bring(&self, events: &[Decoded], apart: &mut Apart) -> Result<()> {
        let keys = events.iter().flatten().flat_map(|(_, prepared)| prepared.keys());
        let keys: HashSet<&Key> = keys.filter(|key| apart.cache.get(key).is_none()).collect();
        let mut keys: Vec<Key> = keys.into_iter().cloned().collect();
        keys.sort_unstable();
        if !keys.is_empty() {
            let all = keys.len();
            let states = self.clone().load(keys, all, 0).await?;
            apart.cache.take(states, apart.number);
        }
        Ok(())
    }
}
