//! A batch: what one flush makes durable, and what it was folded from. Its rows are the cache's.

use foldline_api::letters::BadRecord;
use foldline_api::model::Key;
use foldline_api::parked::Place;
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::sink::{
    Advance, Check, Flush, Marks, RowWrite, StoredDecision, StoredVerdict, Version,
};
use foldline_api::source::DeadLetter;

use super::aside::{Aside, Purpose};
use super::cache::{Cache, Entry, Grown};
use super::inbox::Item;
use crate::maps::{HashMap, HashSet};
use crate::metrics::ConnectorMetrics;

/// A batch grows to no more records: a time is kept of each.
const RECORDS_MAX: usize = 1 << 20;
/// What a record takes that is kept, beside its own bytes.
const HELD: usize = 512;

/// How many records ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) applied: u64,
    pub(crate) filtered: u64,
    pub(crate) replayed: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) skipped: u64,
    pub(crate) parked: u64,
}

impl Counts {
    /// Those with which nothing was wrong.
    pub(super) fn good(&self) -> u64 {
        self.applied + self.filtered + self.replayed
    }

    /// All of them.
    pub(crate) fn consumed(&self) -> u64 {
        self.good() + self.dead_lettered + self.skipped + self.parked
    }

    /// Counts them, each with its outcome, so that the outcomes add up to what was consumed.
    pub(super) fn add_to(&self, metrics: &ConnectorMetrics) {
        metrics.applied.inc_by(self.applied);
        metrics.filtered.inc_by(self.filtered);
        metrics.replayed.inc_by(self.replayed);
        metrics.dead_lettered.inc_by(self.dead_lettered);
        metrics.skipped.inc_by(self.skipped);
        metrics.parked.inc_by(self.parked);
        metrics.consumed.inc_by(self.consumed());
    }
}

/// A batch that is folded: what its flush makes durable, and its items in case it must be folded again.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Rises with every batch of the task.
    pub(crate) number: u64,
    /// What of the log had come when it took the last of it in; see `topics`.
    pub(super) came: u64,
    /// What it was folded from; none where that was let go.
    pub(crate) items: Vec<Item>,
    /// It holds more than is kept: to be folded again, its records are read again.
    pub(crate) let_go: bool,
    /// How many records it was folded from.
    pub(crate) records: usize,
    /// Of records that were let go.
    timestamps: Vec<i64>,
    bytes: usize,
    /// Of records that letters and parked events hold.
    held: usize,
    pub(crate) counts: Counts,
    pub(crate) letters: Vec<DeadLetter>,
    /// What the letters are about, in their order, and whether only the store could tell.
    pub(super) bad: Vec<(Place, bool)>,
    /// How many of its records are bad, whatever becomes of them.
    pub(super) bad_records: u64,
    /// The last of them, and why.
    pub(super) last_bad: Option<(Place, String)>,
    /// From where to where each partition goes.
    pub(crate) steps: HashMap<TopicPartition, (Position, Position)>,
    /// Keys of the rows to write, each once, with their prefixes; the rows are the cache's.
    written: Vec<(u64, Key)>,
    pub(super) reads: HashSet<Key>,
    pub(super) verdicts: Vec<StoredVerdict>,
    /// What it sets aside with its key, or does about what is.
    pub(super) aside: Aside,
    /// What it is for, where it is side work: a flush that moves no position.
    pub(super) side: Option<Purpose>,
    /// What became of events of several keys, where that was not simply that all applied.
    pub(crate) decisions: Vec<StoredDecision>,
    /// The record that it was folded for alone, see [`super::asked`].
    pub(super) alone: Option<Place>,
    /// It takes in no more: what comes next is to be written alone, or it was.
    pub(super) closed: bool,
    /// Records delivered a second time, below the position where the batch begins.
    pub(crate) duplicates: u64,
    /// Set by `on_bad_record = "stop"`: what comes behind this batch is not folded.
    pub(crate) stop: Option<String>,
}

impl Batch {
    /// An empty batch.
    pub(crate) fn new(number: u64) -> Self {
        Batch { number, ..Batch::default() }
    }

    /// How many rows it writes.
    pub(crate) fn rows(&self) -> usize {
        self.written.len()
    }

    /// The records' timestamps, in milliseconds since the epoch.
    pub(crate) fn timestamps(&self) -> impl Iterator<Item = i64> {
        self.timestamps.iter().copied().chain(self.items.iter().filter_map(Item::timestamp))
    }

    /// The rows that it writes or looked at.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.written.iter().map(|(_, key)| key).chain(&self.reads)
    }

    /// Takes in what it was folded from. A batch that grew beyond `bytes_max` keeps none of it.
    pub(super) fn keep(&mut self, items: Vec<Item>, bytes_max: usize) {
        self.records += items.iter().filter(|item| item.record().is_some()).count();
        self.bytes += items.iter().filter_map(|item| Some(item.record()?.bytes())).sum::<usize>();
        if !self.let_go && (self.items.is_empty() || self.bytes <= bytes_max) {
            if self.items.is_empty() {
                self.items = items;
            } else {
                self.items.extend(items);
            }
            return;
        }
        self.let_go = true;
        let all = std::mem::take(&mut self.items).into_iter().chain(items);
        self.timestamps.extend(all.filter_map(|item| item.timestamp()));
    }

    /// The flush, with the rows and versions that the cache holds by now: the batch before is durable,
    /// and nothing behind this one is folded.
    pub(crate) fn flush(
        &mut self,
        cache: &Cache,
        epochs: &dyn Fn(&TopicPartition) -> i64,
        outbox: bool,
    ) -> Flush {
        let mut advances: Vec<Advance> = self
            .steps
            .iter()
            .map(|(partition, (from, to))| Advance {
                partition: partition.clone(),
                epoch: epochs(partition),
                from: *from,
                to: *to,
            })
            .collect();
        advances.sort_by(|a, b| a.partition.cmp(&b.partition));
        // By key, so that all writers lock rows in the same order.
        self.written.sort_unstable();
        let mut writes = Vec::with_capacity(self.written.len());
        let mut checks = Vec::new();
        for (_, key) in &self.written {
            // What a batch uses stays until it is durable.
            debug_assert!(cache.get(key).is_some(), "a row to write is not in the cache");
            let Some(entry) = cache.get(key) else { continue };
            let (version, row, marks) =
                (entry.version, entry.row.clone(), Marks::from_iter(entry.marks().iter().cloned()));
            // A row that came and went within the batch leaves nothing to write, where no mark is kept.
            if row.is_none() && version == Version::Absent && marks.is_empty() {
                checks.push(Check { key: key.clone(), version });
                continue;
            }
            writes.push(RowWrite { key: key.clone(), row, version, marks });
        }
        checks.extend(self.reads.iter().filter_map(|key| match cache.get(key) {
            Some(entry) if entry.is_written_in(self.number) || entry.nowhere => None,
            entry => {
                let version = entry.map_or(Version::Absent, |entry| entry.version);
                Some(Check { key: key.clone(), version })
            }
        }));
        checks.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let (verdicts, decisions) = (self.verdicts.clone(), self.decisions.clone());
        let parking = self.aside.changes.clone();
        let bad = self.bad_of_books(outbox);
        Flush { advances, writes, checks, verdicts, bad, decisions, parking }
    }

    /// What the books keep of its bad records; in a build with the letters, which wait for the swap.
    fn bad_of_books(&self, outbox: bool) -> Vec<BadRecord> {
        let each = self.bad.iter().zip(&self.letters);
        let record = |(((partition, offset), by_store), letter): (&(Place, bool), &DeadLetter)| {
            let letter = outbox.then(|| letter.clone());
            BadRecord { partition: partition.clone(), offset: *offset, by_store: *by_store, letter }
        };
        each.map(record).collect()
    }

    /// Writes this row, which was changed by so many bytes, where that is known.
    pub(super) fn write(&mut self, key: &Key, entry: &mut Entry, by: Option<isize>) -> Grown {
        let (news, grown) = entry.changed(key, self.number, by);
        if news {
            self.written.push((key.prefix(), key.clone()));
        }
        grown
    }

    /// A record is kept with it, for a letter or among the parked ones.
    pub(super) fn hold(&mut self, record: &Record) {
        self.held += record.bytes() + HELD;
    }

    /// Whether it may take in more records while another batch is written, for as long as that takes: `bytes_max` of them
    /// may be kept with it.
    pub(super) fn may_grow(&self, bytes_max: usize) -> bool {
        self.held <= bytes_max && self.records < RECORDS_MAX
    }

    /// Bytes of the records that are kept with it.
    pub(super) fn held_bytes(&self) -> usize {
        self.held
    }
}
