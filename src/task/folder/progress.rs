//! A batch while it is folded: where its partitions stand, and which states are still to be loaded for it.

use std::sync::Arc;

use foldline_api::model::Key;
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_language::projection::Prepared;

use super::{Folder, Went};
use crate::decoding::Decoded;
use crate::maps::HashSet;
use crate::task::batch::Batch;
use crate::task::cache::Cache;
use crate::task::inbox::Item;
use crate::task::needed::Needed;

/// Keys whose states are to be loaded, each once.
#[derive(Default)]
pub(super) struct Missing {
    pub(super) keys: Vec<Key>,
    known: HashSet<Key>,
}

impl Missing {
    /// Those of an item.
    pub(super) fn add<'k>(&mut self, keys: impl Iterator<Item = &'k Key>) {
        let news = keys.filter(|key| self.known.insert((*key).clone()));
        self.keys.extend(news.cloned());
    }
}

/// A partition that the batch has records of.
struct Lane {
    partition: TopicPartition,
    /// Where the partition stands.
    reached: Position,
}

/// A batch being folded: applies items one by one.
pub(super) struct Progress<'a> {
    folder: &'a Folder,
    cache: &'a mut Cache,
    /// Where each partition stands before the batch.
    before: &'a dyn Fn(&TopicPartition) -> Position,
    batch: Batch,
    /// The partitions so far, and which of them the last item was of.
    lanes: Vec<Lane>,
    last: usize,
}

impl<'a> Progress<'a> {
    pub(super) fn new(
        folder: &'a Folder,
        cache: &'a mut Cache,
        before: &'a dyn Fn(&TopicPartition) -> Position,
        batch: Batch,
    ) -> Self {
        Progress { folder, cache, before, batch, lanes: Vec::new(), last: 0 }
    }

    /// Finds the lane of an item.
    fn turn_to(&mut self, topic: &Arc<str>, partition: i32) {
        // Neighbours share their partition, and those of one partition mostly the very same name.
        let is_of = |lane: &Lane| {
            lane.partition.partition == partition && Arc::ptr_eq(&lane.partition.topic, topic)
        };
        if self.lanes.get(self.last).is_some_and(is_of) {
            return;
        }
        let known = self.lanes.iter().position(|lane| {
            lane.partition.partition == partition && lane.partition.topic == *topic
        });
        self.last = known.unwrap_or_else(|| {
            let partition = TopicPartition { topic: Arc::clone(topic), partition };
            let from = || (self.before)(&partition);
            let reached = self.batch.steps.get(&partition).map_or_else(from, |step| step.1);
            self.batch.steps.entry(partition.clone()).or_insert((reached, reached));
            self.lanes.push(Lane { partition, reached });
            self.lanes.len() - 1
        });
    }

    /// Applies an item, once the states that it needs are there.
    pub(super) fn apply(&mut self, item: &Item, outcome: &mut Option<Decoded>) -> Went {
        let (topic, partition) = match item {
            Item::Record(record) => (&record.topic, record.partition),
            Item::End(partition, _) => (&partition.topic, partition.partition),
        };
        self.turn_to(topic, partition);
        let fresh = self.folder.asked.is_idle() || self.is_fresh();
        let Progress { folder, cache, batch, lanes, last, .. } = self;
        // It was just found.
        let Some(lane) = lanes.get_mut(*last) else { return Went::Stopped };
        let mut went = Went::On;
        match (item, outcome) {
            // Positions only go forward: what lies below is folded already.
            (Item::Record(record), _) if record.next() <= lane.reached => batch.duplicates += 1,
            (Item::Record(record), Some(outcome)) => {
                let keys = outcome.as_ref().map_or(&[][..], |(_, prepared)| prepared.keys());
                let alone = folder.asked.wants_alone(&lane.partition, record.offset, keys);
                if batch.closed || (alone && !fresh) {
                    batch.closed = true;
                    return Went::Stopped;
                }
                went = folder.fold_record(record, &lane.partition, outcome, cache, batch);
                if went == Went::On {
                    lane.reached = record.next();
                    if alone {
                        batch.alone = Some((lane.partition.clone(), record.offset));
                        batch.closed = true;
                    }
                }
            }
            (Item::Record(record), None) => lane.reached = record.next(),
            (Item::End(_, position), _) => lane.reached = lane.reached.max(*position),
        }
        went
    }

    /// Whether the state of `key` is in the cache; if so it stays until the batch is durable.
    pub(super) fn touch(&mut self, key: &Key) -> bool {
        self.cache.touch(key, self.batch.number).is_some()
    }

    /// What a record needs beside what the cache has.
    pub(super) fn needed(&self, record: &Record, prepared: &Prepared) -> Needed {
        let place = (record.topic_partition(), record.offset);
        Needed::of(prepared, place, self.cache, self.folder.keeps_marks)
    }

    /// See [`Folder::has_expired`].
    pub(super) fn has_expired(&self, prepared: &Prepared) -> bool {
        self.folder.has_expired(prepared)
    }

    /// Whether nothing was folded into the batch yet.
    fn is_fresh(&self) -> bool {
        let begun = |lane: &Lane| {
            let step = self.batch.steps.get(&lane.partition);
            step.is_some_and(|(from, _)| *from != lane.reached)
        };
        self.batch.steps.values().all(|(from, to)| from == to) && !self.lanes.iter().any(begun)
    }

    /// Whether nothing more fits beside what it holds: its rows, with what other batches in flight hold, fill the cache. A
    /// single item is taken whatever its rows take, since all of its effects are one.
    pub(super) fn is_full(&mut self) -> bool {
        !self.cache.has_room(self.batch.number) && !self.is_fresh()
    }

    pub(super) fn finish(mut self) -> Batch {
        for lane in self.lanes {
            if let Some(step) = self.batch.steps.get_mut(&lane.partition) {
                step.1 = step.1.max(lane.reached);
            }
        }
        self.batch
    }
}
