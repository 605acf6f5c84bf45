//! A sink in memory: PostgreSQL-like (rows and positions together), or Elasticsearch-like (rows one
//! by one with marks, positions last). Any number of targets and writers share one store.

mod target;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldline_api::binding::Found;
use foldline_api::expiry::Horizon;
use foldline_api::hole::Hole;
use foldline_api::letters::BadRecord;
use foldline_api::lifecycle::{Act, Change, Record as Lifecycle};
use foldline_api::model::{Key, Row};
use foldline_api::parked::{DROPPED, Parked, Which};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::sink::{
    Beginning, Marks, Opened, StoredDecision, StoredPosition, StoredVerdict, TargetSpec, Version,
};

use crate::joins::Note;
pub use target::MemoryTarget;

/// A user's constraint: the reason why the store refuses a row, or none.
pub type Constraint = Arc<dyn Fn(&Row) -> Option<String> + Send + Sync>;

/// The keys that a store cannot even name: the reason, or none.
pub type Spelling = Arc<dyn Fn(&Key) -> Option<String> + Send + Sync>;

/// What a table keeps of a key. In marks mode a deleted row stays as a tombstone.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) row: Option<Row>,
    pub(crate) version: u64,
    pub(crate) marks: Marks,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) physical: u64,
    pub(crate) rows: BTreeMap<Key, Kept>,
}

/// What the store knows of one target name. The books outlive the table.
#[derive(Clone, Default)]
pub(crate) struct Entry {
    pub(crate) table: Option<Table>,
    pub(crate) record: Option<Lifecycle>,
    /// The tables of generations that are not live, by number.
    pub(crate) tables: BTreeMap<u64, Table>,
    /// Where each partition ended when a build began, by its number.
    pub(crate) goals: BTreeMap<u64, Vec<(TopicPartition, Position)>>,
    pub(crate) positions: BTreeMap<(u64, TopicPartition), StoredPosition>,
    /// By generation, partition and offset: the verdict, and whether it is one of the generation before.
    pub(crate) verdicts: BTreeMap<(u64, TopicPartition, i64), (StoredVerdict, bool)>,
    /// By generation, partition and offset.
    pub(crate) bad: BTreeMap<(u64, TopicPartition, i64), BadRecord>,
    /// By generation, partition and offset.
    pub(crate) decisions: BTreeMap<(u64, TopicPartition, i64), StoredDecision>,
    /// By generation, partition and offset.
    pub(crate) parked: BTreeMap<(u64, TopicPartition, i64), (Parked, Record)>,
    /// By generation.
    pub(crate) holes: Vec<(u64, Hole)>,
    /// By generation and looked-up target: the life of that one that the rows were looked at for.
    pub(crate) lookups: BTreeMap<(u64, String), String>,
    /// What has still to be shown, in the order of the notes.
    pub(crate) notes: BTreeMap<u64, Note>,
    /// By registry and id.
    pub(crate) schemas: BTreeMap<(String, String), String>,
    /// By rule.
    pub(crate) horizons: BTreeMap<String, Horizon>,
    pub(crate) constraint: Option<Constraint>,
    /// What the constraint is called; none where it is as a trigger, which nobody can tell the next one from.
    pub(crate) definition: Option<String>,
    pub(crate) spelling: Option<Spelling>,
    /// At most so many rows can be read or written at once.
    pub(crate) rows_max: Option<usize>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("record", &self.record).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) entries: BTreeMap<String, Entry>,
    /// PostgreSQL's transaction ids, Elasticsearch's sequence numbers, and physical ids.
    pub(crate) counter: u64,
}

impl State {
    pub(crate) fn tick(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

/// The store; clones share it.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    keeps_marks: bool,
    /// Its own clock, in milliseconds since the epoch: the latest of all until it is set.
    pub(crate) clock: Arc<AtomicI64>,
}

impl MemoryStore {
    /// A store with transactions, as PostgreSQL.
    #[must_use]
    pub fn transactional() -> Self {
        MemoryStore::of(false)
    }

    /// A store that writes row by row and keeps marks, as Elasticsearch.
    #[must_use]
    pub fn with_marks() -> Self {
        MemoryStore::of(true)
    }

    fn of(keeps_marks: bool) -> Self {
        MemoryStore {
            state: Arc::default(),
            keeps_marks,
            clock: Arc::new(AtomicI64::new(i64::MAX)),
        }
    }

    /// Sets its clock, in milliseconds since the epoch.
    pub fn set_clock(&self, now: i64) {
        self.clock.store(now, Ordering::Relaxed);
    }

    /// A connector's target in this store.
    #[must_use]
    pub fn target(&self, spec: TargetSpec) -> Arc<MemoryTarget> {
        Arc::new(MemoryTarget { store: self.clone(), spec: Arc::new(spec) })
    }

    /// The rows of a target as a reader sees them, tombstones left out.
    #[must_use]
    pub fn rows(&self, target: &str) -> BTreeMap<Key, Row> {
        let state = self.lock();
        let table = state.entries.get(target).and_then(|entry| entry.table.as_ref());
        let rows = table.into_iter().flat_map(|table| table.rows.iter());
        rows.filter_map(|(key, kept)| Some((key.clone(), kept.row.clone()?))).collect()
    }

    /// How far a reader sees each key of a target folded, tombstones too; nothing where the store keeps no marks.
    #[must_use]
    pub fn marks(&self, target: &str) -> BTreeMap<Key, Marks> {
        let state = self.lock();
        let table = state.entries.get(target).and_then(|entry| entry.table.as_ref());
        let rows = table.into_iter().flat_map(|table| table.rows.iter());
        rows.filter(|_| self.keeps_marks)
            .map(|(key, kept)| (key.clone(), kept.marks.clone()))
            .collect()
    }

    /// The positions of a target's live generation.
    #[must_use]
    pub fn positions(&self, target: &str) -> Vec<StoredPosition> {
        self.lock().entries.get(target).map(Entry::live_positions).unwrap_or_default()
    }

    /// The verdicts of a target's live generation.
    #[must_use]
    pub fn verdicts(&self, target: &str) -> Vec<StoredVerdict> {
        let state = self.lock();
        let entry = state.entries.get(target);
        entry.map(|entry| entry.verdicts(entry.generation())).unwrap_or_default()
    }

    /// Drops the table behind the books' back, as someone with a shell may.
    pub fn drop_table(&self, target: &str) {
        if let Some(entry) = self.lock().entries.get_mut(target) {
            entry.table = None;
        }
    }

    /// Puts a copy in the table's place behind the books' back, as a restore does: of all generations.
    pub fn copy_table(&self, target: &str) {
        let mut state = self.lock();
        let physical = state.tick();
        let entry = state.entries.entry(target.to_owned()).or_default();
        let tables = entry.table.iter_mut().chain(entry.tables.values_mut());
        tables.for_each(|table| table.physical = physical);
    }

    /// Writes a row as someone with a shell may; none deletes it. Its version rises.
    pub fn edit(&self, target: &str, key: &Key, row: Option<Row>) {
        let mut state = self.lock();
        let version = state.tick();
        let entry = state.entries.entry(target.to_owned()).or_default();
        let table =
            entry.table.get_or_insert_with(|| Table { physical: version, ..Table::default() });
        let marks = table.rows.get(key).map(|kept| kept.marks.clone()).unwrap_or_default();
        if row.is_none() && !self.keeps_marks {
            table.rows.remove(key);
        } else {
            table.rows.insert(key.clone(), Kept { row, version, marks });
        }
    }

    /// Writes a row's own values again, so that only its version rises. Nothing where there is none.
    pub fn touch(&self, target: &str, key: &Key) {
        let mut state = self.lock();
        let version = state.tick();
        let table = state.entries.get_mut(target).and_then(|entry| entry.table.as_mut());
        if let Some(kept) = table.and_then(|table| table.rows.get_mut(key)) {
            kept.version = version;
        }
    }

    /// Sets a constraint on a target's rows, or takes it away. Nobody can tell it from another.
    pub fn constrain(&self, target: &str, constraint: Option<Constraint>) {
        let mut state = self.lock();
        let entry = state.entries.entry(target.to_owned()).or_default();
        (entry.constraint, entry.definition) = (constraint, None);
    }

    /// Sets a constraint that can be told from others, as a CHECK can.
    pub fn define(&self, target: &str, definition: &str, constraint: Constraint) {
        let mut state = self.lock();
        let entry = state.entries.entry(target.to_owned()).or_default();
        (entry.constraint, entry.definition) = (Some(constraint), Some(definition.to_owned()));
    }

    /// From now on nothing can be said to the store of a target's keys that have a reason.
    pub fn misspell(&self, target: &str, spelling: Spelling) {
        self.lock().entries.entry(target.to_owned()).or_default().spelling = Some(spelling);
    }

    /// From now on more rows at once take too long.
    pub fn limit(&self, target: &str, rows_max: usize) {
        self.lock().entries.entry(target.to_owned()).or_default().rows_max = Some(rows_max);
    }

    /// Takes the whole store back to an earlier moment: a failover to an older replica.
    pub fn restore(&self, snapshot: &Snapshot) {
        self.lock().entries.clone_from(&snapshot.0);
    }

    /// The store as it is now, for [`MemoryStore::restore`].
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.lock().entries.clone())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keeps_marks(&self) -> bool {
        self.keeps_marks
    }
}

/// A moment of a store.
#[derive(Clone, Debug)]
pub struct Snapshot(BTreeMap<String, Entry>);

impl Entry {
    pub(crate) fn generation(&self) -> u64 {
        self.record.as_ref().map_or(0, |record| record.binding.generation)
    }

    /// What stands under the name.
    fn found(&self) -> Option<Found> {
        self.table.as_ref().map(|table| Found {
            physical: table.physical.to_string(),
            has_rows: table.rows.values().any(|kept| kept.row.is_some()),
        })
    }

    pub(crate) fn is_continued(&self) -> bool {
        let binding = self.record.as_ref().map(|record| &record.binding);
        binding.is_some_and(|binding| binding.continued.contains(&binding.generation))
    }

    pub(crate) fn live_positions(&self) -> Vec<StoredPosition> {
        let live = self.generation();
        let mine = self.positions.iter().filter(|((generation, _), _)| *generation == live);
        mine.map(|(_, stored)| stored.clone()).collect()
    }

    /// A definition as verdicts keep it.
    pub(crate) fn defined(&self, fingerprint: &str) -> Option<String> {
        Some(format!("{fingerprint} {}", self.definition.as_ref()?))
    }

    fn judged(&self, verdict: &StoredVerdict, fingerprint: &str) -> StoredVerdict {
        let now = self.defined(fingerprint);
        verdict.clone().judged(|definition| now.as_deref() == Some(definition))
    }

    /// The records that a generation leaves out.
    pub(crate) fn verdicts(&self, generation: u64) -> Vec<StoredVerdict> {
        let kept = self.verdicts.iter().filter(|((of, ..), (_, open))| *of == generation && !open);
        let fingerprint = self.record.as_ref().map_or("", |record| &record.binding.fingerprint);
        kept.map(|(_, (verdict, _))| self.judged(verdict, fingerprint)).collect()
    }

    /// What a generation has still to decide at or after its position: what the one before left out, and what an
    /// operator dropped in any of this topic id.
    pub(crate) fn open_verdicts(
        &self,
        stored: &StoredPosition,
        (generation, fingerprint): (u64, &str),
    ) -> Vec<StoredVerdict> {
        let id_in = |of: u64| {
            let position = self.positions.get(&(of, stored.partition.clone()));
            position.map(|position| position.topic_id.clone())
        };
        let counts = |(of, partition, offset): &(u64, TopicPartition, i64),
                      verdict: &StoredVerdict| {
            let dropped = verdict.reason == DROPPED && id_in(*of) == Some(stored.topic_id.clone());
            *partition == stored.partition
                && *offset >= stored.position.0
                && (*of == generation || dropped)
        };
        let kept = self.verdicts.iter().filter(|(key, (verdict, _))| counts(key, verdict));
        let mut found: Vec<StoredVerdict> =
            kept.map(|(_, (verdict, _))| self.judged(verdict, fingerprint)).collect();
        // The first of a place is the operator's.
        found.sort_by_key(|verdict| (verdict.offset, verdict.reason != DROPPED));
        found.dedup_by_key(|verdict| verdict.offset);
        found
    }

    /// Takes the verdicts of one generation over into the next, for topics of the same id.
    pub(crate) fn take_over_verdicts(&mut self, from: u64, to: u64) {
        let id = |generation, partition: &TopicPartition| {
            let position = self.positions.get(&(generation, partition.clone()));
            position.map(|stored| stored.topic_id.clone())
        };
        let ahead = |partition: &TopicPartition, offset: i64| {
            let position = self.positions.get(&(from, partition.clone()));
            position.is_some_and(|stored| offset >= stored.position.0)
        };
        let kept = self.verdicts.iter().filter(|((of, partition, offset), (_, open))| {
            let counts = !open || ahead(partition, *offset);
            *of == from && counts && id(from, partition) == id(to, partition)
        });
        let taken: Vec<_> = kept
            .map(|((_, partition, offset), (verdict, _))| {
                ((to, partition.clone(), *offset), (verdict.clone(), true))
            })
            .collect();
        self.verdicts.extend(taken);
    }

    /// What is parked in a generation, with the steps that were refused of events that some rows hold.
    pub(crate) fn parked(&self, generation: u64, which: &Which) -> Vec<Parked> {
        let mine = self.parked.iter().filter(|((of, _, _), _)| *of == generation);
        let told = mine.map(|(key, (parked, _))| {
            let refused = self.decisions.get(key).map(|decision| decision.refused.clone());
            Parked { refused: refused.unwrap_or_default(), ..parked.clone() }
        });
        told.filter(|parked| which.has(parked)).collect()
    }

    /// Carries a change out, as one step: nobody sees a part of it.
    pub(crate) fn carry_out(&mut self, change: &Change, fresh: u64) {
        for fenced in &change.fences {
            self.raise_epochs(*fenced);
        }
        let mut record = change.record.clone();
        for act in &change.steps {
            match *act {
                Act::Create | Act::Adopt => {
                    self.table.get_or_insert_with(|| Table { physical: fresh, ..Table::default() });
                }
                Act::Empty => {
                    let physical = self.table.as_ref().map_or(fresh, |table| table.physical);
                    self.table = Some(Table { physical, ..Table::default() });
                }
                Act::Make(number) => {
                    self.tables.insert(number, Table { physical: fresh, ..Table::default() });
                }
                Act::Exchange { from, to } => {
                    self.end_lookups(from);
                    if let Some(next) = self.tables.remove(&to)
                        && let Some(live) = self.table.replace(next)
                    {
                        self.tables.insert(from, live);
                    }
                }
                Act::Drop(number) => self.forget(number),
                Act::Take | Act::Check | Act::Extend | Act::Finish(_) => {}
            }
        }
        let made =
            |act: &Act| matches!(act, Act::Create | Act::Adopt | Act::Empty | Act::Exchange { .. });
        if let Some(table) = self.table.as_ref().filter(|_| change.steps.iter().any(made)) {
            record.binding.physical = table.physical.to_string();
        }
        self.record = Some(record);
    }

    /// The beginnings of the generation that takes the place of the live one.
    fn fold_beginnings(&self, spec: &TargetSpec, given: Option<&[Beginning]>) -> Vec<Beginning> {
        let same_log = self.record.as_ref().is_some_and(|record| record.binding.log == spec.log);
        match given {
            Some(given) => given.to_vec(),
            None if same_log => self.live_positions().into_iter().map(beginning_of).collect(),
            // Another log's offsets mean nothing here.
            None => Vec::new(),
        }
    }

    /// The next generation in the place of the live one.
    fn renew(
        &mut self,
        spec: &TargetSpec,
        change: &Change,
        fresh: u64,
        beginnings: Option<&[Beginning]>,
    ) {
        let beginnings = self.fold_beginnings(spec, beginnings);
        let live = self.generation();
        self.carry_out(change, fresh);
        self.end_lookups(live);
        // What is bad is decided anew.
        self.parked.retain(|(generation, _, _), _| *generation >= change.answer);
        for beginning in &beginnings {
            self.insert_position(change.answer, beginning);
        }
        self.take_over_verdicts(live, change.answer);
        self.take_over_holes((live, change.answer));
        self.take_over_sent((live, change.answer));
    }

    pub(crate) fn insert_position(&mut self, generation: u64, beginning: &Beginning) {
        let key = (generation, beginning.partition.clone());
        self.positions.entry(key).or_insert_with(|| StoredPosition {
            partition: beginning.partition.clone(),
            topic_id: beginning.topic_id.clone(),
            beginning: beginning.position,
            position: beginning.position,
            epoch: 0,
        });
    }

    fn opened(&self, notices: Vec<String>) -> Opened {
        Opened {
            generation: self.generation(),
            positions: self.live_positions(),
            desired: self.record.as_ref().map(|record| record.desired).unwrap_or_default(),
            waits: None,
            notices,
        }
    }
}

fn beginning_of(stored: StoredPosition) -> Beginning {
    Beginning {
        partition: stored.partition,
        topic_id: stored.topic_id,
        position: Position(stored.beginning.0),
    }
}

/// A version as the contract spells it.
pub(crate) fn version_of(kept: Option<&Kept>) -> Version {
    kept.map_or(Version::Absent, |kept| Version::At(kept.version, 0))
}
