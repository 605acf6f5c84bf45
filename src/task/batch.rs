//! The fold of one batch: decode, name the keys, then apply event by event to cached states. Pure but
//! for the cache, which its task owns.

use std::sync::Arc;

use foldline_api::model::{Key, Row};
use foldline_api::parked::DROPPED;
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::sink::{
    Acquired, Advance, Check, Flush, Marks, RowWrite, StoredDecision, StoredVerdict, Version,
};
use foldline_api::source::DeadLetter;
use hashbrown::{HashMap, HashSet};

use super::TaskSpec;
use super::cache::{Cache, Entry};
use super::coverage::Watch;
use super::decisions::Decisions;
use super::inbox::Item;
use super::parking::{Aside, Parking};
use crate::converter::Decoder;
use crate::dead_letter::Reason;
use crate::event::Event;
use crate::policy::OnBadRecord;
use crate::projection::{BadRecord, Effects, Prepared, Projection, StateRef, States};

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
    /// All of them.
    pub(crate) fn consumed(&self) -> u64 {
        let good = self.applied + self.filtered + self.replayed;
        good + self.dead_lettered + self.skipped + self.parked
    }
}

/// A batch that is folded: what its flush makes durable, and its items in case it must be folded again.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Rises with every batch of the task.
    pub(crate) number: u64,
    pub(crate) items: Vec<Item>,
    pub(crate) counts: Counts,
    pub(crate) letters: Vec<DeadLetter>,
    /// From where to where each partition goes.
    pub(crate) steps: HashMap<TopicPartition, (Position, Position)>,
    writes: HashMap<Key, (Option<Row>, Marks)>,
    reads: HashSet<Key>,
    pub(super) verdicts: Vec<StoredVerdict>,
    /// What it sets aside with its key, or does about what is.
    pub(super) aside: Aside,
    /// What became of events of several keys, where that was not simply that all applied.
    pub(crate) decisions: Vec<StoredDecision>,
    /// Records delivered a second time, below the position where the batch begins.
    pub(crate) duplicates: u64,
    /// Set by `on_bad_record = "stop"`: what comes behind this batch is not folded.
    pub(crate) stop: Option<String>,
}

impl Batch {
    /// An empty batch of this number.
    pub(super) fn new(number: u64) -> Self {
        Batch { number, ..Batch::default() }
    }

    /// Takes a later batch in: one flush makes both durable. Items and dead letters are let go.
    pub(crate) fn absorb(&mut self, later: Batch) {
        for (partition, (from, to)) in later.steps {
            self.steps.entry(partition).and_modify(|step| step.1 = to).or_insert((from, to));
        }
        self.writes.extend(later.writes);
        self.reads.extend(later.reads);
        self.verdicts.extend(later.verdicts);
        self.decisions.extend(later.decisions);
        self.aside.absorb(later.aside);
    }

    /// How many records.
    pub(crate) fn records(&self) -> usize {
        self.items.iter().filter(|item| matches!(item, Item::Record(_))).count()
    }

    /// The records' timestamps, in milliseconds since the epoch.
    pub(crate) fn timestamps(&self) -> impl Iterator<Item = i64> {
        self.items.iter().filter_map(|item| match item {
            Item::Record(record) => record.timestamp,
            Item::End(..) => None,
        })
    }

    /// The flush, with the versions that the cache holds by now: the one before is durable.
    pub(crate) fn flush(&self, cache: &Cache, epochs: &dyn Fn(&TopicPartition) -> i64) -> Flush {
        let version = |key: &Key| cache.get(key).map_or(Version::Absent, |entry| entry.version);
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
        let mut writes = Vec::with_capacity(self.writes.len());
        let mut checks = Vec::new();
        for (key, (row, marks)) in &self.writes {
            let version = version(key);
            // A row that came and went within the batch leaves nothing to write, where no mark is kept.
            if row.is_none() && version == Version::Absent && marks.is_empty() {
                checks.push(Check { key: key.clone(), version });
                continue;
            }
            writes.push(RowWrite {
                key: key.clone(),
                row: row.clone(),
                version,
                marks: marks.clone(),
            });
        }
        writes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let only_read = self.reads.iter().filter(|key| !self.writes.contains_key(*key));
        checks.extend(only_read.map(|key| Check { key: key.clone(), version: version(key) }));
        checks.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let (verdicts, decisions) = (self.verdicts.clone(), self.decisions.clone());
        let parking = self.aside.changes.clone();
        Flush { advances, writes, checks, verdicts, decisions, parking }
    }

    /// The row and the marks that the flush gave a key.
    pub(crate) fn written(&self, key: &Key) -> Option<(Option<Row>, Marks)> {
        self.writes.get(key).cloned()
    }
}

/// A batch that is decoded and knows its keys, waiting for the states of those not in the cache.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) number: u64,
    pub(crate) items: Vec<Item>,
    events: Vec<Option<Result<(Event, Prepared), BadRecord>>>,
    /// Keys whose states are not in the cache.
    pub(crate) missing: Vec<Key>,
}

/// What the fold of a task needs besides the states.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) projection: Arc<Projection>,
    pub(crate) decoders: Arc<dyn Decoders>,
    pub(crate) on_bad_record: OnBadRecord,
    /// The sink keeps marks in its rows, so an event may be in some rows already.
    pub(crate) keeps_marks: bool,
    /// Records that the store refused before: bad, whatever the fold says.
    pub(crate) verdicts: HashMap<(TopicPartition, i64), Verdict>,
    /// What events of several keys did before, while some of their rows may hold them.
    pub(crate) decisions: Decisions,
    /// Keys whose events wait.
    pub(super) parking: Parking,
    /// Which paths no event ever had.
    pub(crate) watch: Watch,
    /// Who we are, for the headers of dead letters.
    pub(crate) origin: Arc<crate::dead_letter::Origin>,
}

/// A refusal by the store, and whether the store knows of it already.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) reason: String,
    pub(crate) stored: bool,
}

/// Which decoder a topic takes.
pub(crate) trait Decoders: Send + Sync + std::fmt::Debug {
    /// The decoder of `topic`.
    fn of(&self, topic: &Arc<str>) -> &Decoder;
}

struct Cached<'a>(&'a Cache);

impl States for Cached<'_> {
    fn get(&self, key: &Key) -> Option<StateRef<'_>> {
        self.0.get(key).map(|entry| StateRef { row: entry.row.as_ref() })
    }
}

/// All that can be said of a record before states are known.
pub(crate) fn decode(
    projection: &Projection,
    decoders: &dyn Decoders,
    record: &Record,
) -> Result<(Event, Prepared), BadRecord> {
    let decoder = decoders.of(&record.topic);
    let event = decoder.decode(record).map_err(|error| BadRecord {
        stage: if error.part == "key" { "key_converter" } else { "value_converter" },
        reason: error.to_string(),
        read: Vec::new(),
    })?;
    let prepared = projection.prepare(&event)?;
    Ok((event, prepared))
}

impl Folder {
    pub(crate) fn new(spec: &TaskSpec) -> Self {
        Folder {
            projection: Arc::clone(&spec.projection),
            decoders: Arc::clone(&spec.decoders),
            on_bad_record: spec.on_bad_record,
            keeps_marks: spec.writer.keeps_marks(),
            verdicts: HashMap::new(),
            decisions: Decisions::default(),
            parking: Parking::new(spec.allowance.clone()),
            watch: Watch::new(&spec.projection),
            origin: Arc::new(spec.origin.clone()),
        }
    }

    /// Takes in what the store kept of the partitions that were just acquired.
    pub(crate) fn recall(&mut self, acquired: &Acquired) {
        for lease in &acquired.leases {
            self.decisions.forget(&lease.partition);
        }
        self.decisions.keep(&acquired.decisions);
        self.parking.learn(acquired);
        for StoredVerdict { partition, offset, reason } in &acquired.verdicts {
            let verdict = Verdict { reason: reason.clone(), stored: true };
            self.verdicts.insert((partition.clone(), *offset), verdict);
        }
    }

    /// Decodes, and names the keys that the cache lacks.
    pub(crate) fn decode(&mut self, number: u64, items: Vec<Item>, cache: &mut Cache) -> Decoded {
        let mut missing = HashSet::new();
        let mut events = Vec::with_capacity(items.len());
        for item in &items {
            let Item::Record(record) = item else {
                events.push(None);
                continue;
            };
            let decoded = decode(&self.projection, &*self.decoders, record);
            if let Ok((event, prepared)) = &decoded {
                self.watch.observe(&self.projection, event, prepared);
                for key in prepared.keys() {
                    // Touched, so that it is still there when the batch is folded.
                    if cache.touch(key, number).is_none() {
                        missing.insert(key.clone());
                    }
                }
            }
            events.push(Some(decoded));
        }
        let mut missing: Vec<Key> = missing.into_iter().collect();
        missing.sort_unstable();
        Decoded { number, items, events, missing }
    }

    /// Applies a decoded batch to the cache; every key of it is there by now. `folded` is where each
    /// partition stands before it.
    pub(crate) fn fold(
        &self,
        decoded: Decoded,
        cache: &mut Cache,
        folded: &dyn Fn(&TopicPartition) -> Position,
    ) -> Batch {
        let Decoded { number, items, events, .. } = decoded;
        let mut batch = Batch::new(number);
        let mut kept = Vec::with_capacity(items.len());
        let mut last: Option<(Arc<str>, TopicPartition)> = None;
        let mut items = items.into_iter().zip(events);
        while let Some((item, event)) = items.next() {
            let partition = match (&item, &last) {
                // Neighbours share their partition, and mostly the very same name.
                (Item::Record(r), Some((topic, at)))
                    if Arc::ptr_eq(topic, &r.topic) && at.partition == r.partition =>
                {
                    at.clone()
                }
                (Item::Record(r), _) => r.topic_partition(),
                (Item::End(partition, _), _) => partition.clone(),
            };
            let step = batch.steps.entry(partition.clone());
            let step = step.or_insert_with_key(|partition| {
                let from = folded(partition);
                (from, from)
            });
            let reached = step.1;
            let next = match (&item, event) {
                (Item::Record(record), _) if record.next() <= reached => {
                    // Positions only go forward: what lies below is folded already.
                    batch.duplicates += 1;
                    continue;
                }
                (Item::Record(record), Some(event)) => {
                    last = Some((Arc::clone(&record.topic), partition.clone()));
                    let goes_on = self.fold_record(record, &partition, event, cache, &mut batch);
                    goes_on.then(|| record.next())
                }
                (Item::End(_, position), _) => Some(*position),
                (Item::Record(record), None) => Some(record.next()),
            };
            let Some(next) = next else {
                batch.aside.rest =
                    std::iter::once(item).chain(items.map(|(item, _)| item)).collect();
                break;
            };
            if let Some(step) = batch.steps.get_mut(&partition) {
                step.1 = step.1.max(next);
            }
            kept.push(item);
        }
        batch.items = kept;
        batch
    }

    /// Returns whether the batch goes on behind this record.
    fn fold_record(
        &self,
        record: &Record,
        partition: &TopicPartition,
        event: Result<(Event, Prepared), BadRecord>,
        cache: &mut Cache,
        batch: &mut Batch,
    ) -> bool {
        let verdict = self.verdicts.get(&(partition.clone(), record.offset));
        if verdict.is_some_and(|verdict| verdict.reason == DROPPED) {
            batch.counts.skipped += 1;
            return true;
        }
        if let Ok((_, prepared)) = &event
            && self.waits(partition, prepared.keys(), batch)
        {
            return self.park(record, prepared.keys(), None, batch);
        }
        let parks = self.on_bad_record == OnBadRecord::Park;
        let keys = match &event {
            Ok((_, prepared)) if parks => prepared.keys().to_vec(),
            _ => Vec::new(),
        };
        let outcome = match (verdict, event) {
            (Some(verdict), event) => {
                // A parked event is its own verdict.
                if !verdict.stored && !parks {
                    batch.verdicts.push(StoredVerdict {
                        partition: partition.clone(),
                        offset: record.offset,
                        reason: verdict.reason.clone(),
                    });
                }
                // The verdict was about the states that the record met.
                let read = event.map(|(_, prepared)| prepared.keys().to_vec()).unwrap_or_default();
                Err(BadRecord { stage: "sink", reason: verdict.reason.clone(), read })
            }
            (None, Ok((event, prepared))) => self.apply(partition, &event, prepared, cache, batch),
            (None, Err(bad)) => Err(bad),
        };
        match outcome {
            Ok(()) => true,
            Err(bad) => self.set_aside(record, keys, bad, batch),
        }
    }

    pub(super) fn apply(
        &self,
        partition: &TopicPartition,
        event: &Event,
        mut prepared: Prepared,
        cache: &mut Cache,
        batch: &mut Batch,
    ) -> Result<(), BadRecord> {
        let mut replayed = false;
        let mut refused = Vec::new();
        if self.keeps_marks {
            let has = |key: &Key| cache.get(key).is_some_and(|e| e.has(partition, event.offset));
            let old: Vec<Key> = prepared.keys().iter().filter(|key| has(key)).cloned().collect();
            replayed = !old.is_empty();
            for key in &old {
                prove(key, cache, batch);
            }
            if old.len() == prepared.keys().len() && replayed {
                batch.counts.replayed += 1;
                return Ok(());
            }
            // The event may be in some of its rows already: the others want what it did then.
            if let Some(known) = self.decisions.get(partition, event.offset) {
                if let Some(reason) = &known.bad {
                    batch.decisions.push(known.clone());
                    return Err(BadRecord {
                        stage: "replay",
                        reason: reason.clone(),
                        read: Vec::new(),
                    });
                }
                refused.clone_from(&known.refused);
            }
            prepared.bind(&old, &refused);
            refused.clear();
        }
        let effects = self.projection.apply_noting(event, &prepared, &Cached(cache), &mut refused);
        let bad = effects.as_ref().err().map(|bad| bad.reason.clone());
        if self.keeps_marks && prepared.keys().len() > 1 && (bad.is_some() || !refused.is_empty()) {
            let (partition, offset) = (partition.clone(), event.offset);
            batch.decisions.push(StoredDecision { partition, offset, refused, bad });
        }
        match effects? {
            Effects::Filtered { read } => {
                batch.reads.extend(read);
                batch.counts.filtered += u64::from(!replayed);
                batch.counts.replayed += u64::from(replayed);
            }
            Effects::Applied { writes, reads } => {
                batch.reads.extend(reads);
                for (key, row) in writes {
                    self.take_row((partition, event.offset), key, row, cache, batch);
                }
                batch.counts.applied += 1;
            }
        }
        Ok(())
    }

    fn take_row(
        &self,
        (partition, offset): (&TopicPartition, i64),
        key: Key,
        row: Option<Row>,
        cache: &mut Cache,
        batch: &mut Batch,
    ) {
        cache.set_row(&key, row.clone(), batch.number);
        let mut marks = Marks::new();
        if self.keeps_marks
            && let Some(entry) = cache.touch(&key, batch.number)
        {
            entry.mark(partition, offset);
            marks.clone_from(&entry.marks);
        }
        batch.writes.insert(key, (row, marks));
    }

    /// Returns whether the batch goes on behind the bad record.
    fn set_aside(
        &self,
        record: &Record,
        mut keys: Vec<Key>,
        bad: BadRecord,
        batch: &mut Batch,
    ) -> bool {
        batch.reads.extend(bad.read);
        let reason = Reason { stage: bad.stage, message: bad.reason };
        if self.on_bad_record == OnBadRecord::Park && keys.is_empty() {
            keys = self.keys_of_bad(record);
        }
        match self.on_bad_record {
            OnBadRecord::Park if !keys.is_empty() => {
                let why = format!("{}: {}", reason.stage, reason.message);
                self.park(record, &keys, Some(why), batch)
            }
            // Where nobody can tell whose event it is, nobody can tell which events would have to wait.
            OnBadRecord::DeadLetter | OnBadRecord::Park => {
                batch.letters.push(crate::dead_letter::letter(record, &reason, &self.origin));
                batch.counts.dead_lettered += 1;
                true
            }
            OnBadRecord::Skip => {
                batch.counts.skipped += 1;
                true
            }
            OnBadRecord::Stop => {
                batch.stop = Some(format!(
                    "record {}-{} at offset {} is bad ({}: {}) and on_bad_record is \"stop\"",
                    record.topic, record.partition, record.offset, reason.stage, reason.message
                ));
                false
            }
        }
    }
}

/// A mark that was only read proves nothing (an isolated primary answers with writes that will be
/// lost): the row is written once more, guarded by the version just read, before the position moves.
fn prove(key: &Key, cache: &mut Cache, batch: &mut Batch) {
    let number = batch.number;
    if let Some(entry) = cache.touch(key, number)
        && !entry.proven
        && !batch.writes.contains_key(key)
    {
        let Entry { row, marks, .. } = &*entry;
        batch.writes.insert(key.clone(), (row.clone(), marks.clone()));
    }
}
