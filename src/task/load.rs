//! The load of a generation that is being built: everything up to the goals is folded in memory and
//! written at the end, so that each key is written once. When the states outgrow their budget, what is
//! there is written and forgotten, and a key that comes again is read back. Then the ordinary loop
//! goes on from the store's positions, with the same member of the same group.
//!
//! The group only says which partitions are this task's. They are read beside it, merged by the records'
//! timestamps, so that a key that several of them feed is folded as near to the live order as can be told
//! (rule 16).
//!
//! Whatever goes wrong with a write is left to the ordinary loop too: it starts from the store's
//! positions, where nothing of the lost attempt has moved.

use std::sync::Arc;

use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::hole::Hole;
use foldline_api::parked::Place;
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::sink::{Flush, Written};
use foldline_api::source::{Source, SourceEvent, Stretch, Wanted};
use tokio_util::sync::CancellationToken;

use super::assignment::Outcome;
use super::batch::Batch;
use super::cache::Cache;
use super::coverage::Watch;
use super::folder::Folder;
use super::inbox::Item;
use super::ops::Ops;
use super::status::PartitionStatus;
use super::uncommitted::Uncommitted;
use super::{Ended, Task, TaskSpec};
use crate::maps::HashMap;
use crate::offload::busy;
use crate::policy::backoff;
use crate::replay::Merge;

/// So many records are folded at a time.
const RECORDS_MAX: usize = 2_000;
/// A store that keeps decisions with the positions is not to be given more of them at once.
const DECISIONS_MAX: usize = 2_000;

/// Letters are kept in the books, not in memory, and so are parked events.
const LETTERS_MAX: usize = 500;
const HELD_BYTES_MAX: usize = 4 << 20;

/// One partition that is loaded.
#[derive(Debug)]
struct Held {
    epoch: i64,
    topic_id: Option<String>,
    /// Where the store stands.
    durable: Position,
    folded: Position,
    goal: Position,
    /// What the generation leaves out of it.
    holes: Vec<Hole>,
}

/// How a load ended.
enum End {
    /// Told to stop; what was not durable is folded again.
    Stopped,
    /// All goals are reached, or a write went wrong: the ordinary loop goes on.
    Handed,
}

/// What a loader hears.
enum Heard {
    Event(SourceEvent),
    /// None at the goals.
    Records(Vec<Record>),
}

/// A task that loads first.
pub(crate) struct Load {
    spec: TaskSpec,
    goals: HashMap<TopicPartition, Position>,
    fetched_bytes: usize,
}

impl Load {
    /// `goals` say up to where each partition is folded in memory; one that is not among them is not
    /// loaded. `fetched_bytes` bound what is read ahead.
    pub(crate) fn new(
        spec: TaskSpec,
        goals: &[(TopicPartition, Position)],
        fetched_bytes: usize,
    ) -> Self {
        Load { spec, goals: goals.iter().cloned().collect(), fetched_bytes }
    }

    /// Loads, then runs the ordinary loop, until `cancel` or an error that waiting does not cure.
    pub(crate) async fn run(self, cancel: CancellationToken) -> Result<Ended> {
        let Load { spec, goals, fetched_bytes } = self;
        let (mut loader, rest) = Loader::new(spec, goals, fetched_bytes);
        let loaded = loader.load(&cancel).await;
        // What it holds of the log is not needed beside the ordinary loop's.
        loader.merge = None;
        match loaded {
            Ok(End::Handed) => {
                let assigned: Vec<TopicPartition> = loader.held.keys().cloned().collect();
                let source = Uncommitted { source: loader.source, assigned: Some(assigned) };
                rest(Box::new(source)).run(cancel).await
            }
            Ok(End::Stopped) => {
                loader.source.close().await;
                Ok(Ended::Stopped)
            }
            Err(error) => {
                loader.source.close().await;
                if error.class() == ErrorClass::Fenced { Ok(Ended::Superseded) } else { Err(error) }
            }
        }
    }
}

struct Loader {
    source: Box<dyn Source>,
    ops: Ops,
    folder: Folder,
    watch: Watch,
    cache: Cache,
    goals: HashMap<TopicPartition, Position>,
    held: HashMap<TopicPartition, Held>,
    /// The held partitions' records up to their goals; none before there are partitions.
    merge: Option<Merge>,
    /// Bytes for records read ahead.
    fetched_bytes: usize,
    /// Everything folded and not durable. What it was folded from is let go.
    batch: Batch,
}

impl Loader {
    /// The loader, and what makes the ordinary task of the source when it is done.
    fn new(
        spec: TaskSpec,
        goals: HashMap<TopicPartition, Position>,
        fetched_bytes: usize,
    ) -> (Self, impl FnOnce(Box<dyn Source>) -> Task) {
        let (ops, folder, watch) =
            (Ops::new(&spec), Folder::new(&spec), Watch::new(&spec.projection));
        let TaskSpec { source, cache_bytes, .. } = spec;
        let loader = Loader {
            source,
            ops,
            folder,
            watch,
            cache: Cache::new(cache_bytes),
            goals,
            held: HashMap::default(),
            merge: None,
            fetched_bytes,
            batch: Batch::new(1),
        };
        (loader, move |source| Task::new(TaskSpec { source, ..spec }))
    }

    async fn load(&mut self, cancel: &CancellationToken) -> Result<End> {
        loop {
            let Loader { source, merge, .. } = self;
            let heard = tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(End::Stopped),
                event = source.next(Wanted::Control) => event.map(Heard::Event),
                records = some(merge) => records.map(Heard::Records),
            };
            let going = match heard {
                Ok(Heard::Event(event)) => self.on_event(event).await?,
                Ok(Heard::Records(records)) if records.is_empty() => {
                    let ends = self.held.iter().filter(|(_, held)| held.folded < held.goal);
                    let ends = ends.map(|(of, held)| Item::End(of.clone(), held.goal)).collect();
                    if self.fold(ends).await? {
                        self.flush().await?;
                    }
                    false
                }
                Ok(Heard::Records(records)) => {
                    self.ops.status.clear_trouble();
                    self.fold(records.into_iter().map(Item::Record).collect()).await?
                }
                Err(error) if error.class() == ErrorClass::Retriable => {
                    self.ops.status.trouble(&error);
                    true
                }
                Err(error) => return Err(error),
            };
            if !going {
                return Ok(End::Handed);
            }
        }
    }

    /// Whether the load goes on.
    async fn on_event(&mut self, event: SourceEvent) -> Result<bool> {
        match event {
            // Nothing was started.
            SourceEvent::Records(_) | SourceEvent::End(..) => Ok(true),
            SourceEvent::Broken(_, _, error) => Err(error),
            SourceEvent::Assigned(partitions) => {
                self.take(partitions).await?;
                Ok(true)
            }
            SourceEvent::Revoked(partitions) => {
                let written = self.flush().await?.is_durable();
                self.held.retain(|held, _| !partitions.contains(held));
                partitions.iter().for_each(|p| self.folder.parking.release(p));
                self.source.release(&partitions)?;
                self.read_from_here()?;
                Ok(written)
            }
            SourceEvent::Lost(partitions) => {
                self.forget();
                self.held.retain(|held, _| !partitions.contains(held));
                partitions.iter().for_each(|p| self.folder.parking.release(p));
                let rest: Vec<TopicPartition> = self.held.keys().cloned().collect();
                self.merge = None;
                self.take(rest).await?;
                Ok(true)
            }
        }
    }

    /// Reads the held partitions from where each is folded.
    fn read_from_here(&mut self) -> Result<()> {
        let stretch = |(partition, held): (&TopicPartition, &Held)| Stretch {
            partition: partition.clone(),
            from: held.folded,
            to: held.goal,
        };
        let mut stretches: Vec<Stretch> = self.held.iter().map(stretch).collect();
        stretches.sort_unstable_by(|a, b| a.partition.cmp(&b.partition));
        self.merge = None;
        if !stretches.is_empty() {
            let mut merge = Merge::new(self.ops.log.reader()?, self.fetched_bytes);
            let holes: Vec<Hole> =
                self.held.values().flat_map(|held| held.holes.iter().cloned()).collect();
            merge.leave_out(&holes);
            merge.extend(&stretches);
            self.merge = Some(merge);
        }
        Ok(())
    }

    async fn take(&mut self, partitions: Vec<TopicPartition>) -> Result<()> {
        if partitions.is_empty() {
            return Ok(());
        }
        let taken = self.ops.clone().acquire(partitions).await?;
        self.folder.recall(&taken.acquired, &taken.ends);
        self.cache.set_complete(taken.acquired.empty);
        for (lease, topic_id) in taken.acquired.leases.into_iter().zip(taken.topic_ids) {
            let goal = self.goals.get(&lease.partition).copied().unwrap_or_default();
            let (epoch, at) = (lease.epoch, lease.position);
            let of_it =
                taken.acquired.holes.iter().filter(|hole| hole.partition == lease.partition);
            let holes = of_it.cloned().collect();
            let held = Held { epoch, topic_id, durable: at, folded: at, goal, holes };
            self.held.insert(lease.partition, held);
        }
        self.read_from_here()?;
        self.show();
        Ok(())
    }

    /// Folds what came; whether the load goes on.
    async fn fold(&mut self, mut items: Vec<Item>) -> Result<bool> {
        while !items.is_empty() {
            let (folded, rest) = self.fold_some(items).await?;
            items = rest;
            if self.batch.alone.is_some() {
                // The store is asked about this record alone.
                match self.flush().await? {
                    Wrote::Durable => {}
                    Wrote::Refused(place, error) => {
                        self.folder.blame(place, &error);
                        items = folded.into_iter().chain(items).collect();
                    }
                    Wrote::Not => return Ok(false),
                }
            } else if (self.batch.closed
                || std::mem::take(&mut self.batch.aside.tight)
                || self.cache.is_over()
                || self.batch.letters.len() > LETTERS_MAX
                || self.batch.held_bytes() > HELD_BYTES_MAX
                || self.batch.decisions.len() > DECISIONS_MAX)
                && !self.flush().await?.is_durable()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Folds what comes before a record that is to be written alone, or that one: what was folded, and the rest.
    async fn fold_some(&mut self, items: Vec<Item>) -> Result<(Vec<Item>, Vec<Item>)> {
        let batch = std::mem::take(&mut self.batch);
        let held = &self.held;
        let folded = |p: &TopicPartition| held.get(p).map_or(Position(0), |held| held.folded);
        let mut decoded =
            busy(|| self.folder.decode(&mut self.watch, batch, items, &mut self.cache, &folded));
        if !decoded.missing.is_empty() {
            let (missing, needed) = (decoded.missing.clone(), decoded.needed.clone());
            let room = self.cache.make_room(self.ops.expected(missing.len()));
            let states = self.ops.clone().load(missing, needed, room).await?;
            decoded.take(states, &mut self.cache);
        }
        let (mut batch, items) = busy(|| self.folder.fold(decoded, &mut self.cache, &folded));
        let rest = std::mem::take(&mut batch.aside.rest);
        if let Some(stop) = &batch.stop {
            return Err(Error::record(stop.clone()));
        }
        if batch.aside.full {
            return Err(Error::record(self.folder.full()));
        }
        for (partition, (_, to)) in &batch.steps {
            if let Some(held) = self.held.get_mut(partition) {
                held.folded = *to;
            }
        }
        // Counts as folded: of a build nobody asks how often, only how much.
        std::mem::take(&mut batch.counts).add_to(&self.ops.metrics);
        self.batch = batch;
        self.show();
        Ok((items, rest))
    }

    /// Makes everything folded durable and forgets the states. Where it could not be written as it is, nothing has
    /// moved, and all of it is forgotten.
    async fn flush(&mut self) -> Result<Wrote> {
        let held = &self.held;
        let epoch = |partition: &TopicPartition| held.get(partition).map_or(0, |held| held.epoch);
        let flush = self.batch.flush(&self.cache, &epoch, self.ops.outbox);
        let written = if flush.advances.is_empty() {
            Wrote::Durable
        } else {
            let of = flush.advances.iter().map(|advance| &advance.partition);
            let id = |of: &TopicPartition| self.held.get(of)?.topic_id.clone();
            let known = of.filter_map(|of| Some((Arc::clone(&of.topic), id(of)?))).collect();
            self.ops.clone().same_topics(known).await?;
            write(&self.ops, &flush, self.batch.alone.take()).await?
        };
        if written.is_durable() {
            for advance in &flush.advances {
                if let Some(held) = self.held.get_mut(&advance.partition) {
                    held.durable = advance.to;
                }
                self.folder.decisions.settle(&advance.partition, advance.to);
            }
            self.folder.parking.durable(self.batch.number);
            self.cache.let_all_go();
            self.begin_anew();
        } else {
            self.forget();
        }
        Ok(written)
    }

    /// Forgets what is not durable.
    fn forget(&mut self) {
        self.cache.clear();
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        self.folder.parking.forget(None);
        self.batch = Batch::new(self.batch.number + 1);
        for held in self.held.values_mut() {
            held.folded = held.durable;
        }
    }

    fn show(&self) {
        let partitions = self.held.iter().map(|(partition, held)| PartitionStatus {
            partition: partition.clone(),
            position: held.folded,
            end: Some(held.goal),
        });
        let partitions = partitions.collect();
        self.ops.status.update(|status| status.partitions = partitions);
    }
}

/// The next records of a merge; for ever nothing where there is none. Cancel-safe.
async fn some(merge: &mut Option<Merge>) -> Result<Vec<Record>> {
    match merge {
        Some(merge) => merge.some(RECORDS_MAX).await,
        None => std::future::pending().await,
    }
}

/// What became of a load's flush.
enum Wrote {
    Durable,
    /// The store refuses the one record that it is about.
    Refused(Place, Error),
    /// It cannot be written as it is.
    Not,
}

impl Wrote {
    fn is_durable(&self) -> bool {
        matches!(self, Wrote::Durable)
    }
}

/// Writes a flush, again and again where nothing of it is there. `alone` is the record that it is about, if it is
/// about one.
async fn write(ops: &Ops, flush: &Flush, alone: Option<Place>) -> Result<Wrote> {
    let mut attempt = 0;
    loop {
        let too_much = match ops.writer.write(flush).await {
            Ok(Written::Durable(_)) => {
                ops.status.written();
                ops.metrics.upserts.inc_by(flush.writes.len() as u64);
                return Ok(Wrote::Durable);
            }
            Ok(Written::Rejected(error)) => {
                return Ok(alone.map_or(Wrote::Not, |place| Wrote::Refused(place, error)));
            }
            Ok(Written::Conflict { .. } | Written::Fenced) => return Ok(Wrote::Not),
            Err(error) if error.class() == ErrorClass::Fenced => return Ok(Wrote::Not),
            Err(error) if error.class() == ErrorClass::Retriable => {
                attempt += 1;
                ops.status.write_fails(&error, attempt);
                tracing::warn!(%error, "writing the load failed, asking what became of it");
                tokio::time::sleep(backoff(attempt - 1)).await;
                // The ordinary loop writes less at once.
                error.is_too_much()
            }
            Err(error) => return Err(error),
        };
        match outcome(ops, flush).await? {
            Some(true) => return Ok(Wrote::Durable),
            Some(false) => return Ok(Wrote::Not),
            None if too_much => return Ok(Wrote::Not),
            None => {}
        }
    }
}

/// What became of a write whose reply was lost; none where nothing of it is there.
async fn outcome(ops: &Ops, flush: &Flush) -> Result<Option<bool>> {
    let partitions: Vec<TopicPartition> =
        flush.advances.iter().map(|advance| advance.partition.clone()).collect();
    let stored = ops.stored(&partitions).await?;
    Ok(match Outcome::of(&flush.advances, &stored) {
        Outcome::Durable => Some(true),
        Outcome::NotApplied => None,
        // Rows without positions are there where the store has no transactions: they are at another
        // version now, which the ordinary loop finds out.
        Outcome::Moved => Some(false),
    })
}
