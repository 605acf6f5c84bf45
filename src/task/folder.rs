//! The fold of a batch: decode, name the keys, then apply event by event to cached states, in place. Pure but
//! for the cache, which its task owns.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::model::Key;
use foldline_api::parked::{DROPPED, Place};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::sink::{Acquired, StoredDecision};
use foldline_language::converter::Decoder;
use foldline_language::event::Event;
use foldline_language::projection::{
    BadRecord, Effects, Prepared, Projection, StateRef, States, Touched,
};

use tokio::time::Instant;

use self::progress::{Missing, Progress};
use super::TaskSpec;
use super::asked::{Asked, Verdict};
use super::batch::Batch;
use super::cache::{Cache, Entry};
use super::coverage::Watch;
use super::decisions::Decisions;
use super::inbox::Item;
use super::needed::{self, Needed};
use super::parking::{Allowance, Parking};
use crate::decoding::{self, Decoders, decode_with};
use crate::expiry::Expiry;
use crate::maps::HashMap;
use crate::policy::OnBadRecord;

mod bad;
mod progress;
mod verdicts;

/// Where an item leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// The batch goes on behind it.
    On,
    /// The batch ends before it.
    Stopped,
    /// Nowhere yet: it needs a state that is not in the cache, or for which there is no room.
    Missing,
}

/// Why an event was not applied.
enum Halt {
    Bad(BadRecord),
    Missing,
}

impl From<BadRecord> for Halt {
    fn from(bad: BadRecord) -> Self {
        Halt::Bad(bad)
    }
}

/// A batch on its way: folded up to the first event whose state is not in the cache, decoded from there.
#[derive(Debug)]
pub(crate) struct Decoded {
    batch: Batch,
    /// What the batch grows by.
    items: Vec<Item>,
    /// What the items from `folded` on decode to.
    rest: Vec<Option<decoding::Decoded>>,
    folded: usize,
    /// Keys whose states are not in the cache, in the order in which they are needed.
    pub(crate) missing: Vec<Key>,
    /// What the first item needs of them: without that nothing can be folded.
    pub(super) needed: Needed,
}

impl Decoded {
    /// Timestamps of the records that it is made of.
    pub(super) fn timestamps(&self) -> impl Iterator<Item = i64> {
        let items = self.items.iter().chain(&self.batch.aside.rest);
        self.batch.timestamps().chain(items.filter_map(Item::timestamp))
    }

    /// The batch's number.
    pub(crate) fn number(&self) -> u64 {
        self.batch.number
    }

    /// See `Batch`.
    pub(crate) fn came(&self) -> u64 {
        self.batch.came
    }

    /// Takes the states in that came for it.
    pub(super) fn take(&mut self, states: needed::States, cache: &mut Cache) {
        if let Some(Some(Ok((_, prepared)))) = self.rest.first_mut()
            && states.over
        {
            prepared.exceed();
        }
        cache.take(states, self.number());
    }

    /// The batch, to be folded again.
    pub(crate) fn into_batch(self, bytes_max: usize) -> Batch {
        let Decoded { mut batch, mut items, .. } = self;
        // With what it was known to take none of.
        items.append(&mut batch.aside.rest);
        batch.keep(items, bytes_max);
        batch
    }
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
    pub(crate) verdicts: HashMap<Place, Verdict>,
    /// Records that it refused before, and is asked about again.
    pub(super) asked: Asked,
    /// What events of several keys did before, while some of their rows may hold them.
    pub(crate) decisions: Decisions,
    /// Keys whose events wait.
    pub(super) parking: Parking,
    /// How long one batch may be folded before it ends where it is; none where it must take all it is given.
    pub(super) slice: Option<Duration>,
    /// So many bytes of decoded records wait for their states at most, but for one record.
    pub(super) decoded_max: usize,
    /// Which rows the clock deletes.
    pub(crate) expiry: Option<Arc<Expiry>>,
    /// Who we are, for the headers of dead letters.
    pub(crate) origin: Arc<crate::dead_letter::Origin>,
}

struct Cached<'a>(&'a Cache);

impl States for Cached<'_> {
    fn get(&self, key: &Key) -> Option<StateRef<'_>> {
        self.0.get(key).map(|entry| StateRef { row: entry.row.as_ref() })
    }
}

/// Of the memory for states, what decoded records may take that wait for theirs.
const DECODED: usize = 8;

impl Folder {
    pub(crate) fn new(spec: &TaskSpec) -> Self {
        Folder {
            projection: Arc::clone(&spec.projection),
            decoders: Arc::clone(&spec.decoders),
            on_bad_record: spec.on_bad_record,
            keeps_marks: spec.writer.keeps_marks(),
            verdicts: HashMap::default(),
            asked: Asked::new(Arc::clone(&spec.asks)),
            decisions: Decisions::default(),
            parking: Parking::new(spec.allowance.clone()),
            slice: None,
            decoded_max: spec.cache_bytes / DECODED,
            expiry: spec.expiry.clone(),
            origin: Arc::new(spec.origin.clone()),
        }
    }

    /// One that folds by the same rules, and knows nothing yet.
    pub(super) fn apart(&self) -> Self {
        Folder {
            projection: Arc::clone(&self.projection),
            decoders: Arc::clone(&self.decoders),
            on_bad_record: self.on_bad_record,
            keeps_marks: self.keeps_marks,
            verdicts: HashMap::default(),
            asked: Asked::default(),
            decisions: Decisions::default(),
            parking: Parking::new(Allowance::new(0)),
            slice: self.slice,
            decoded_max: self.decoded_max,
            expiry: self.expiry.clone(),
            origin: Arc::clone(&self.origin),
        }
    }

    /// Takes in what the store kept of the partitions that were just acquired.
    pub(crate) fn recall(&mut self, acquired: &Acquired, ends: &[(TopicPartition, Position)]) {
        for lease in &acquired.leases {
            self.decisions.forget(&lease.partition);
        }
        self.decisions.keep(&acquired.decisions);
        self.parking.learn(acquired);
        self.recall_verdicts(acquired, ends);
    }

    /// Lets `batch` grow by `items`: decodes, and folds as long as the states are there. `before` is where
    /// each partition stands before the batch.
    pub(crate) fn decode(
        &mut self,
        watch: &mut Watch,
        batch: Batch,
        mut items: Vec<Item>,
        cache: &mut Cache,
        before: &dyn Fn(&TopicPartition) -> Position,
    ) -> Decoded {
        let mut progress = Progress::new(self, cache, before, batch);
        let (mut missing, mut rest, mut folded) = (Missing::default(), Vec::new(), 0);
        let (mut decoded, mut tight, mut needed) = (0, false, Needed::default());
        let mut decoder: Option<(&Arc<str>, &Decoder)> = None;
        let begun = Instant::now();
        for item in &items {
            tight = rest.is_empty() && progress.is_full();
            let ends = if rest.is_empty() {
                tight || self.is_long(folded, begun)
            } else {
                decoded > self.decoded_max
            };
            if ends {
                break;
            }
            let mut outcome = match item {
                Item::Record(record) => {
                    // Neighbours share their topic's name.
                    let known = decoder.filter(|(topic, _)| Arc::ptr_eq(topic, &record.topic));
                    let of = known.map_or_else(|| self.decoders.of(&record.topic), |(_, of)| of);
                    decoder = Some((&record.topic, of));
                    Some(decode_with(&self.projection, of, record))
                }
                Item::End(..) => None,
            };
            if let Some(Ok((event, prepared))) = &outcome {
                watch.observe(&self.projection, event, prepared);
            }
            if rest.is_empty() {
                match progress.apply(item, &mut outcome) {
                    Went::On => {
                        folded += 1;
                        continue;
                    }
                    Went::Stopped => break,
                    Went::Missing => {}
                }
            }
            if let Some(Ok((event, prepared))) = &outcome {
                if !progress.has_expired(prepared) {
                    // Touched, so that it is still there when the batch is folded.
                    missing.add(prepared.keys().iter().filter(|key| !progress.touch(key)));
                }
                if let (Item::Record(record), true) = (item, rest.is_empty()) {
                    needed = progress.needed(record, prepared);
                }
                decoded += event.left.made();
            }
            rest.push(outcome);
        }
        let mut batch = progress.finish();
        batch.aside.tight |= tight;
        // Behind what is folded are those that need a state, or else those that the batch ends before.
        let batch = self.close(batch, &mut items, folded + rest.len());
        Decoded { batch, items, rest, folded, missing: missing.keys, needed }
    }

    /// Folds the rest of a batch, as far as its states were loaded and there is room. The batch, and what it grew by.
    pub(crate) fn fold(
        &mut self,
        decoded: Decoded,
        cache: &mut Cache,
        before: &dyn Fn(&TopicPartition) -> Position,
    ) -> (Batch, Vec<Item>) {
        let Decoded { batch, mut items, rest, mut folded, .. } = decoded;
        let (begun, first, mut tight) = (Instant::now(), folded, false);
        let mut progress = Progress::new(self, cache, before, batch);
        for (item, mut outcome) in items.iter().skip(folded).zip(rest) {
            if self.is_long(folded - first, begun) {
                break;
            }
            tight = progress.is_full();
            if tight {
                break;
            }
            let went = progress.apply(item, &mut outcome);
            tight = went == Went::Missing;
            if went != Went::On {
                break;
            }
            folded += 1;
        }
        let mut batch = progress.finish();
        batch.aside.tight |= tight;
        (self.close(batch, &mut items, folded), items)
    }

    /// Whether a batch that began then has taken long enough. Only records that take a hundred times what others do come
    /// to that; what is left of the batch is folded in the next.
    fn is_long(&self, folded: usize, begun: Instant) -> bool {
        // The clock is not asked for each.
        folded > 0
            && folded.is_multiple_of(4)
            && self.slice.is_some_and(|slice| begun.elapsed() >= slice)
    }

    /// The batch has grown by the items before `end`, and takes none behind.
    fn close(&mut self, mut batch: Batch, items: &mut Vec<Item>, end: usize) -> Batch {
        // Before what it was already known to take none of.
        batch.aside.rest.splice(0..0, items.drain(end..));
        self.parking.folded(&mut batch);
        self.note_asked(&batch);
        batch
    }

    fn fold_record(
        &self,
        record: &Record,
        partition: &TopicPartition,
        outcome: &mut decoding::Decoded,
        cache: &mut Cache,
        batch: &mut Batch,
    ) -> Went {
        let verdict = if self.verdicts.is_empty() {
            None
        } else {
            self.verdicts.get(&(partition.clone(), record.offset))
        };
        if let Some(verdict) = verdict.filter(|verdict| verdict.reason == DROPPED) {
            batch.verdicts.extend(verdict.to_keep(partition, record.offset));
            batch.counts.skipped += 1;
            return Went::On;
        }
        if let Ok((_, prepared)) = outcome
            && self.has_expired(prepared)
        {
            batch.counts.filtered += 1;
            return Went::On;
        }
        if let Ok((_, prepared)) = outcome
            && self.waits(partition, prepared.keys(), batch)
        {
            return self.park(record, prepared.keys(), None, batch);
        }
        let applied = match (verdict, &mut *outcome) {
            (Some(verdict), outcome) => self.refuse(record, verdict, outcome, cache, batch),
            (None, Ok((event, prepared))) => match prepared.single() {
                Some(key) => self.apply_single(partition, (&*event, &*prepared), key, cache, batch),
                None if self.can_apply(
                    (partition, event.offset),
                    prepared,
                    cache,
                    batch.number,
                ) =>
                {
                    self.apply(partition, event, prepared, cache, batch).map_err(Halt::Bad)
                }
                None => Err(Halt::Missing),
            },
            (None, Err(bad)) => Err(Halt::Bad(bad.clone())),
        };
        match applied {
            Ok(()) => Went::On,
            Err(Halt::Missing) => Went::Missing,
            Err(Halt::Bad(bad)) => {
                let keys = outcome.as_ref().map_or(&[][..], |(_, prepared)| prepared.keys());
                self.set_aside(record, keys, bad, batch)
            }
        }
    }

    /// Whether the horizon has passed the rows of an event, all of which have the same moment: it is left alone.
    pub(super) fn has_expired(&self, prepared: &Prepared) -> bool {
        let Some(expiry) = &self.expiry else { return false };
        prepared.keys().first().is_some_and(|key| expiry.has_passed(key))
    }

    /// As [`Folder::apply`], for an event that runs one handler on one key: its state is looked up once.
    fn apply_single(
        &self,
        partition: &TopicPartition,
        (event, prepared): (&Event, &Prepared),
        key: &Key,
        cache: &mut Cache,
        batch: &mut Batch,
    ) -> Result<(), Halt> {
        let Some(entry) = cache.touch(key, batch.number) else { return Err(Halt::Missing) };
        if self.keeps_marks && entry.has(partition, event.offset) {
            prove(key, entry, batch);
            batch.counts.replayed += 1;
            return Ok(());
        }
        match self.projection.apply_single(event, prepared, &mut entry.row)? {
            Touched::Written(by) => {
                if self.keeps_marks {
                    entry.mark(partition, event.offset);
                }
                let grown = batch.write(key, entry, by);
                cache.grow(grown);
                batch.counts.applied += 1;
            }
            Touched::Read => {
                batch.reads.insert(key.clone());
                batch.counts.filtered += 1;
            }
            Touched::No => batch.counts.filtered += 1,
        }
        Ok(())
    }

    pub(super) fn apply(
        &self,
        partition: &TopicPartition,
        event: &Event,
        prepared: &mut Prepared,
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
                if let Some(entry) = cache.touch(key, batch.number) {
                    prove(key, entry, batch);
                }
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
        let effects = self.projection.apply_noting(event, prepared, &Cached(cache), &mut refused);
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
                    let Some(entry) = cache.touch(&key, batch.number) else { continue };
                    let by = entry.grown_to(row.as_ref());
                    entry.row = row;
                    if self.keeps_marks {
                        entry.mark(partition, event.offset);
                    }
                    let grown = batch.write(&key, entry, by);
                    cache.grow(grown);
                }
                batch.counts.applied += 1;
            }
        }
        Ok(())
    }
}

/// Whether the states of all keys are in the cache; those that are stay until the batch is durable.
fn touch_all(prepared: &Prepared, cache: &mut Cache, batch: u64) -> bool {
    prepared.keys().iter().all(|key| cache.touch(key, batch).is_some())
}

/// A mark that was only read proves nothing (an isolated primary answers with writes that will be
/// lost): the row is written once more, guarded by the version just read, before the position moves.
fn prove(key: &Key, entry: &mut Entry, batch: &mut Batch) {
    if !entry.proven {
        let _ = batch.write(key, entry, None);
    }
}

#[cfg(test)]
mod tests;
