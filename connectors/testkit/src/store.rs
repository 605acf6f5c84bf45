//! A sink in memory: PostgreSQL-like (rows and positions together), or Elasticsearch-like (rows one
//! by one with marks, positions last). Any number of targets and writers share one store.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use foldline_api::binding::{Binding, Decision, Found, check_owner, decide};
use foldline_api::model::{Key, Row};
use foldline_api::parked::{Parked, Parking, Place, Request, Which};
use foldline_api::rebuild::Rebuilds;
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::sink::{
    Beginning, DesiredState, Marks, OnChange, Opened, StoredDecision, StoredPosition,
    StoredVerdict, Target, TargetSpec, Version, Writer,
};
use foldline_api::{Error, Result};

use crate::rebuild::Beside;
use crate::snapshot::MemorySnapshot;
use crate::writer::MemoryWriter;

/// A user's constraint: the reason why the store refuses a row, or none.
pub type Constraint = Arc<dyn Fn(&Row) -> Option<String> + Send + Sync>;

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
    pub(crate) binding: Option<Binding>,
    /// The generations that are not live, by number.
    pub(crate) beside: BTreeMap<u64, Beside>,
    pub(crate) positions: BTreeMap<(u64, TopicPartition), StoredPosition>,
    pub(crate) verdicts: BTreeMap<(TopicPartition, i64), (Option<String>, String)>,
    /// By generation, partition and offset.
    pub(crate) decisions: BTreeMap<(u64, TopicPartition, i64), StoredDecision>,
    /// By generation, partition and offset.
    pub(crate) parked: BTreeMap<(u64, TopicPartition, i64), (Parked, Record)>,
    pub(crate) desired: DesiredState,
    pub(crate) constraint: Option<Constraint>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("binding", &self.binding).finish_non_exhaustive()
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
}

impl MemoryStore {
    /// A store with transactions, as PostgreSQL.
    #[must_use]
    pub fn transactional() -> Self {
        MemoryStore { state: Arc::default(), keeps_marks: false }
    }

    /// A store that writes row by row and keeps marks, as Elasticsearch.
    #[must_use]
    pub fn with_marks() -> Self {
        MemoryStore { state: Arc::default(), keeps_marks: true }
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

    /// The positions of a target's live generation.
    #[must_use]
    pub fn positions(&self, target: &str) -> Vec<StoredPosition> {
        self.lock().entries.get(target).map(Entry::live_positions).unwrap_or_default()
    }

    /// All verdicts of a target, whatever the topic's life.
    #[must_use]
    pub fn verdicts(&self, target: &str) -> Vec<StoredVerdict> {
        let state = self.lock();
        let entry = state.entries.get(target);
        entry.map(|entry| entry.verdicts(|_, _, _| true)).unwrap_or_default()
    }

    /// Drops the table behind the books' back, as someone with a shell may.
    pub fn drop_table(&self, target: &str) {
        if let Some(entry) = self.lock().entries.get_mut(target) {
            entry.table = None;
        }
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

    /// Sets a constraint on a target's rows, or takes it away.
    pub fn constrain(&self, target: &str, constraint: Option<Constraint>) {
        self.lock().entries.entry(target.to_owned()).or_default().constraint = constraint;
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
        self.binding.as_ref().map_or(0, |binding| binding.generation)
    }

    pub(crate) fn is_continued(&self) -> bool {
        self.binding.as_ref().is_some_and(|b| b.continued.contains(&b.generation))
    }

    pub(crate) fn live_positions(&self) -> Vec<StoredPosition> {
        let live = self.generation();
        let mine = self.positions.iter().filter(|((generation, _), _)| *generation == live);
        mine.map(|(_, stored)| stored.clone()).collect()
    }

    pub(crate) fn verdicts(
        &self,
        keep: impl Fn(&TopicPartition, i64, Option<&String>) -> bool,
    ) -> Vec<StoredVerdict> {
        let kept = self.verdicts.iter().filter(|((p, o), (id, _))| keep(p, *o, id.as_ref()));
        let stored =
            |((partition, offset), (_, reason)): (&(TopicPartition, i64), &(_, String))| {
                StoredVerdict {
                    partition: partition.clone(),
                    offset: *offset,
                    reason: reason.clone(),
                }
            };
        kept.map(stored).collect()
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

    /// The next generation's number, with the positions of its fold's beginnings.
    fn renew(&mut self, spec: &TargetSpec, physical: u64, beginnings: Option<&[Beginning]>) -> u64 {
        let same_log = self.binding.as_ref().is_some_and(|binding| binding.log == spec.log);
        let beginnings = match beginnings {
            Some(given) => given.to_vec(),
            None if same_log => self.live_positions().into_iter().map(beginning_of).collect(),
            None => Vec::new(),
        };
        // What is built beside it was to follow another life of the target.
        let next = self.next_number();
        self.drop_build();
        self.bind(spec, physical, next);
        // What is bad is decided anew.
        self.parked.retain(|(generation, _, _), _| *generation >= next);
        // Who still writes to the old generation finds itself fenced.
        self.positions.values_mut().for_each(|stored| stored.epoch += 1);
        for beginning in &beginnings {
            self.insert_position(next, beginning);
        }
        next
    }

    fn bind(&mut self, spec: &TargetSpec, physical: u64, generation: u64) {
        let (mut superseded, mut continued) = (Vec::new(), Vec::new());
        if let Some(old) = self.binding.take() {
            continued = old.continued;
            if old.generation == generation && old.fingerprint != spec.fingerprint {
                continued.push(generation);
            }
            superseded = old.superseded;
            superseded.push(old.fingerprint);
            superseded.retain(|fingerprint| *fingerprint != spec.fingerprint);
        }
        self.binding = Some(Binding {
            worker: spec.worker.clone(),
            connector: spec.connector.clone(),
            group: spec.group.clone(),
            log: spec.log.clone(),
            physical: physical.to_string(),
            generation,
            fingerprint: spec.fingerprint.clone(),
            superseded,
            projection: spec.projection.clone(),
            continued,
        });
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
            desired: self.desired,
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

/// One connector's target in a [`MemoryStore`].
#[derive(Debug)]
pub struct MemoryTarget {
    pub(crate) store: MemoryStore,
    pub(crate) spec: Arc<TargetSpec>,
}

impl MemoryTarget {
    fn unknown(&self) -> Error {
        Error::fenced(format!("{:?} has not been opened", self.spec.target))
    }

    /// The target's entry: this connector's, or nothing is done.
    pub(crate) fn owned<'s>(&self, state: &'s State) -> Result<&'s Entry> {
        let entry = state.entries.get(&self.spec.target);
        let bound = entry.and_then(|entry| Some((entry, entry.binding.as_ref()?)));
        let (entry, binding) = bound.ok_or_else(|| self.unknown())?;
        check_owner(binding, &self.spec)?;
        Ok(entry)
    }

    /// The same, to be changed.
    pub(crate) fn owned_mut<'s>(&self, state: &'s mut State) -> Result<&'s mut Entry> {
        self.owned(state)?;
        state.entries.get_mut(&self.spec.target).ok_or_else(|| self.unknown())
    }
}

#[async_trait]
impl Target for MemoryTarget {
    async fn open(&self) -> Result<Opened> {
        let mut state = self.store.lock();
        let fresh = state.tick();
        let entry = state.entries.entry(self.spec.target.clone()).or_default();
        let found = entry.table.as_ref().map(|table| Found {
            physical: table.physical.to_string(),
            has_rows: table.rows.values().any(|kept| kept.row.is_some()),
        });
        let mut spec = TargetSpec::clone(&self.spec);
        let build = entry.build().and_then(|(number, _)| entry.folds(number, true));
        if build == Some(&spec.fingerprint) {
            // Someone has asked for a rebuild with this projection already, whatever the config says.
            spec.on_change = OnChange::Rebuild;
        }
        let decision = decide(entry.binding.as_ref(), found.as_ref(), &spec)?;
        let physical = entry.table.as_ref().map_or(fresh, |table| table.physical);
        if entry.table.is_none() {
            entry.table = Some(Table { physical, ..Table::default() });
        }
        let (mut notices, mut waits) = (Vec::new(), None);
        match decision {
            Decision::Create | Decision::Adopt => entry.bind(&self.spec, physical, 1),
            Decision::Resume => {}
            Decision::Renew { .. } => {
                entry.renew(&self.spec, physical, None);
                notices.push("the table was dropped: it is built anew".to_owned());
            }
            Decision::Extend => {
                let live = entry.generation();
                entry.bind(&self.spec, physical, live);
                // Tasks that fold by the old model must come back, and are refused then.
                entry.positions.values_mut().for_each(|stored| stored.epoch += 1);
            }
            Decision::Rebuild => {
                waits = Some("another projection built the live generation".to_owned());
            }
        }
        Ok(Opened { waits, ..entry.opened(notices) })
    }

    async fn begin(&self, generation: u64, beginnings: &[Beginning]) -> Result<()> {
        let mut state = self.store.lock();
        let entry = self.owned_mut(&mut state)?;
        if entry.generation() != generation {
            return Err(Error::fenced("the generation is no longer live"));
        }
        for beginning in beginnings {
            entry.insert_position(generation, beginning);
        }
        Ok(())
    }

    async fn rebuild(&self, generation: u64, beginnings: Option<&[Beginning]>) -> Result<u64> {
        let mut state = self.store.lock();
        let fresh = state.tick();
        let entry = self.owned_mut(&mut state)?;
        if entry.generation() != generation {
            return Ok(entry.generation());
        }
        let physical = entry.table.as_ref().map_or(fresh, |table| table.physical);
        entry.table = Some(Table { physical, ..Table::default() });
        Ok(entry.renew(&self.spec, physical, beginnings))
    }

    async fn status(&self) -> Result<Opened> {
        let state = self.store.lock();
        Ok(self.owned(&state)?.opened(Vec::new()))
    }

    async fn set_desired(&self, desired: DesiredState) -> Result<()> {
        let mut state = self.store.lock();
        let entry = self.owned_mut(&mut state)?;
        entry.desired = desired;
        Ok(())
    }

    async fn writer(&self, generation: u64) -> Result<Arc<dyn Writer>> {
        let build = self.owned(&self.store.lock())?.build();
        let place = (generation, build.is_some_and(|(number, _)| number == generation));
        Ok(Arc::new(MemoryWriter::new(self.store.clone(), Arc::clone(&self.spec), place)))
    }

    fn rebuilds(&self) -> &dyn Rebuilds {
        self
    }

    async fn snapshot(&self) -> Result<Box<dyn foldline_api::sink::Snapshot>> {
        let state = self.store.lock();
        Ok(Box::new(MemorySnapshot::of(self.owned(&state)?)))
    }

    fn parking(&self) -> &dyn Parking {
        self
    }
}

#[async_trait]
impl Parking for MemoryTarget {
    async fn parked(&self, generation: u64, which: &Which) -> Result<Vec<Parked>> {
        let state = self.store.lock();
        Ok(self.owned(&state)?.parked(generation, which))
    }

    async fn records(&self, generation: u64, places: &[Place]) -> Result<Vec<Record>> {
        let state = self.store.lock();
        let entry = self.owned(&state)?;
        let record = |(partition, offset): &Place| {
            let (_, record) = entry.parked.get(&(generation, partition.clone(), *offset))?;
            Some(record.clone())
        };
        Ok(places.iter().filter_map(record).collect())
    }

    async fn ask(&self, generation: u64, place: &Place, request: Request) -> Result<bool> {
        let mut state = self.store.lock();
        let entry = self.owned_mut(&mut state)?;
        let key = (generation, place.0.clone(), place.1);
        let found = entry.parked.get_mut(&key);
        Ok(found.map(|(parked, _)| parked.request = Some(request)).is_some())
    }
}
