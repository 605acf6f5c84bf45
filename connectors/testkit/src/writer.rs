//! The writer of the store in memory, in both of its ways to write.

use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::binding::check_owner;
use foldline_api::expiry::Horizon;
use foldline_api::model::Key;
use foldline_api::parked::{Changes, Place, Which};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{
    Acquired, Beginning, Flush, Lease, Loaded, Refreshed, RowWrite, StoredPosition, TargetSpec,
    Version, Versions, Writer, Written,
};
use foldline_api::{Error, Result};

use crate::store::{Entry, Kept, MemoryStore, State, Table, version_of};

/// A task's hold on a target of a [`MemoryStore`].
#[derive(Debug)]
pub(crate) struct MemoryWriter {
    store: MemoryStore,
    spec: Arc<TargetSpec>,
    generation: u64,
    /// Whether that is built beside the live one.
    building: bool,
}

impl MemoryWriter {
    pub(crate) fn new(
        store: MemoryStore,
        spec: Arc<TargetSpec>,
        (generation, building): (u64, bool),
    ) -> Self {
        MemoryWriter { store, spec, generation, building }
    }

    /// The entry, whose live table is there.
    fn entry<'s>(&self, state: &'s mut State) -> Result<&'s mut Entry> {
        let entry = state.entries.get_mut(&self.spec.target);
        entry
            .filter(|entry| entry.table.is_some())
            .ok_or_else(|| Error::config(format!("{:?} does not exist", self.spec.target)))
    }

    fn is_fenced(&self, entry: &Entry, flush: &Flush) -> bool {
        entry.folds(self.generation, self.building).is_none()
            || self.is_held(entry)
            || !flush.advances.iter().all(|advance| {
                let key = (self.generation, advance.partition.clone());
                entry.positions.get(&key).is_some_and(|stored| {
                    stored.epoch == advance.epoch && stored.position == advance.from
                })
            })
    }

    fn is_held(&self, entry: &Entry) -> bool {
        !self.building && entry.is_held()
    }

    /// The positions and verdicts of a flush that is not fenced.
    fn keep_books(&self, entry: &mut Entry, flush: &Flush) {
        for advance in &flush.advances {
            let key = (self.generation, advance.partition.clone());
            if let Some(stored) = entry.positions.get_mut(&key) {
                stored.position = advance.to;
            }
        }
        for verdict in &flush.verdicts {
            let key = (self.generation, verdict.partition.clone(), verdict.offset);
            entry.verdicts.insert(key, (verdict.clone(), false));
        }
        for bad in &flush.bad {
            let key = (self.generation, bad.partition.clone(), bad.offset);
            entry.bad.insert(key, bad.clone());
        }
        self.change_parked(entry, &flush.parking);
        // What is past its partition's position, and not parked, is durable in all its rows.
        let parked = &entry.parked;
        let positions = &entry.positions;
        entry.decisions.retain(|key, decision| {
            let position = positions.get(&(key.0, key.1.clone())).map(|stored| stored.position);
            let waits = decision.bad.is_none() && parked.contains_key(key);
            waits || position.is_none_or(|position| position.0 <= key.2)
        });
    }

    fn change_parked(&self, entry: &mut Entry, changes: &Changes) {
        let key = |(partition, offset): &Place| (self.generation, partition.clone(), *offset);
        for event in &changes.park {
            let kept = (event.parked(), event.record.clone());
            entry.parked.insert(key(&event.place()), kept);
        }
        for place in &changes.free {
            entry.parked.remove(&key(place));
        }
        for (place, reason) in &changes.keep {
            if let Some((parked, _)) = entry.parked.get_mut(&key(place)) {
                parked.request = None;
                parked.reason = reason.clone().or(parked.reason.take());
            }
        }
    }

    /// Decisions of this flush, beside those of an earlier and longer one that was not finished.
    fn keep_decisions(&self, entry: &mut Entry, flush: &Flush) {
        for decision in &flush.decisions {
            let key = (self.generation, decision.partition.clone(), decision.offset);
            entry.decisions.insert(key, decision.clone());
        }
    }

    fn write_together(&self, state: &mut State, flush: &Flush) -> Result<Written> {
        let version = state.tick();
        let flush = &state.joined(&self.spec, flush);
        let entry = self.entry(state)?;
        if self.is_fenced(entry, flush) {
            return Ok(Written::Fenced);
        }
        let constraint = entry.constraint.clone();
        let Some(table) = entry.table_of(self.generation, self.building) else {
            return Ok(Written::Fenced);
        };
        if !expected(table, flush).all(|seen| seen) {
            return Ok(Written::Conflict { written: Vec::new() });
        }
        let refused = |write: &RowWrite| constraint.as_ref()?(write.row.as_ref()?);
        if let Some(reason) = flush.writes.iter().find_map(refused) {
            let definition = entry.defined(&self.spec.fingerprint);
            return Ok(Written::Rejected(Error::record(reason).with_definition(definition)));
        }
        for write in &flush.writes {
            match &write.row {
                Some(row) => {
                    let kept = Kept { row: Some(row.clone()), version, marks: write.marks.clone() };
                    table.rows.insert(write.key.clone(), kept);
                }
                None => {
                    table.rows.remove(&write.key);
                }
            }
        }
        self.keep_books(entry, flush);
        if !self.building {
            state.note_followers(&self.spec.target, flush);
        }
        Ok(Written::Durable(Versions::All(Version::At(version, 0))))
    }

    /// Decisions first, under the fence; each row by itself, guarded by its version; then the checks; then the positions. What was
    /// written before a conflict, a refusal or the fence stays written.
    fn write_one_by_one(&self, state: &mut State, flush: &Flush) -> Result<Written> {
        let entry = self.entry(state)?;
        if !flush.decisions.is_empty() {
            if self.is_fenced(entry, flush) {
                return Ok(Written::Fenced);
            }
            self.keep_decisions(entry, flush);
        }
        let mut versions = Vec::with_capacity(flush.writes.len());
        let (mut conflict, mut refused) = (false, None);
        for write in &flush.writes {
            let version = state.tick();
            let entry = self.entry(state)?;
            if self.is_held(entry) {
                return Ok(Written::Fenced);
            }
            let constraint = entry.constraint.clone();
            let Some(table) = entry.table_of(self.generation, self.building) else {
                return Ok(Written::Fenced);
            };
            if version_of(table.rows.get(&write.key)) != write.version {
                conflict = true;
                versions.push(None);
                continue;
            }
            let reason = write.row.as_ref().and_then(|row| constraint.as_ref()?(row));
            if reason.is_some() {
                refused = reason;
                versions.push(None);
                continue;
            }
            let kept = Kept { row: write.row.clone(), version, marks: write.marks.clone() };
            table.rows.insert(write.key.clone(), kept);
            versions.push(Some(Version::At(version, 0)));
        }
        let entry = self.entry(state)?;
        let Some(table) = entry.table_of(self.generation, self.building) else {
            return Ok(Written::Fenced);
        };
        let unseen = flush
            .checks
            .iter()
            .any(|check| version_of(table.rows.get(&check.key)) != check.version);
        if conflict || unseen {
            return Ok(Written::Conflict { written: versions });
        }
        if let Some(reason) = refused {
            let definition = entry.defined(&self.spec.fingerprint);
            return Ok(Written::Rejected(Error::record(reason).with_definition(definition)));
        }
        if self.is_fenced(entry, flush) {
            return Ok(Written::Fenced);
        }
        self.keep_books(entry, flush);
        Ok(Written::Durable(Versions::Each(versions.into_iter().flatten().collect())))
    }
}

impl Entry {
    fn within(&self, rows: usize) -> Result<()> {
        if self.rows_max.is_some_and(|max| rows > max) {
            return Err(Error::retriable("more rows than it has time for").too_much());
        }
        Ok(())
    }

    fn spelled<'k>(&self, mut keys: impl Iterator<Item = &'k Key>) -> Result<()> {
        let reason = self.spelling.as_ref().and_then(|spelling| keys.find_map(|key| spelling(key)));
        reason.map_or(Ok(()), |reason| Err(Error::record(reason)))
    }
}

/// For each write and check of a flush, whether its key is at the version it was folded from.
fn expected<'t>(table: &'t Table, flush: &'t Flush) -> impl Iterator<Item = bool> + 't {
    let writes = flush.writes.iter().map(|write| (&write.key, write.version));
    let checks = flush.checks.iter().map(|check| (&check.key, check.version));
    writes.chain(checks).map(|(key, version)| version_of(table.rows.get(key)) == version)
}

#[async_trait]
impl Writer for MemoryWriter {
    async fn acquire(&self, claims: &[Beginning]) -> Result<Acquired> {
        let mut state = self.store.lock();
        let entry = self.entry(&mut state)?;
        if let Some(record) = &entry.record {
            check_owner(&record.binding, &self.spec)?;
        }
        if entry.folds(self.generation, self.building) != Some(&self.spec.fingerprint) {
            return Err(Error::fenced("another generation or model is live"));
        }
        if self.is_held(entry) {
            return Err(Error::retriable("the live generation is held for a swap"));
        }
        state.observe(&self.spec, self.generation, true);
        let entry = self.entry(&mut state)?;
        let mut acquired = Acquired::default();
        for claim in claims {
            entry.insert_position(self.generation, claim);
            let key = (self.generation, claim.partition.clone());
            let Some(stored) = entry.positions.get_mut(&key) else { continue };
            stored.epoch += 1;
            let stored = stored.clone();
            let StoredPosition { epoch, position, .. } = stored;
            acquired.leases.push(Lease { partition: claim.partition.clone(), epoch, position });
            acquired.holes.extend(entry.holes_of(self.generation, &claim.partition));
            let decided = entry.decisions.iter().filter(|((generation, partition, offset), _)| {
                *generation == self.generation
                    && *partition == claim.partition
                    && Position(*offset) >= position
            });
            acquired.decisions.extend(decided.map(|(_, decision)| decision.clone()));
            acquired
                .verdicts
                .extend(entry.open_verdicts(&stored, (self.generation, &self.spec.fingerprint)));
        }
        let partitions = claims.iter().map(|claim| claim.partition.clone()).collect();
        let which = Which { partitions: Some(partitions), asked: false };
        acquired.parked = entry.parked(self.generation, &which);
        acquired.empty = entry
            .table_of(self.generation, self.building)
            .is_none_or(|table| table.rows.is_empty());
        Ok(acquired)
    }

    async fn load_some(&self, keys: &[Key], bytes_max: usize) -> Result<Vec<Loaded>> {
        let mut state = self.store.lock();
        let entry = self.entry(&mut state)?;
        // For one there is always time.
        entry.within(keys.len().saturating_sub(1))?;
        entry.spelled(keys.iter())?;
        let Some(table) = entry.table_of(self.generation, self.building) else {
            return Err(Error::fenced("another generation is live"));
        };
        let load = |key| {
            let kept = table.rows.get(key);
            let mut row = kept.and_then(|kept| kept.row.clone());
            if let (Some(row), Some(joins)) = (&mut row, &self.spec.joins) {
                joins.strip(row);
            }
            Loaded {
                row,
                version: version_of(kept),
                marks: kept.map(|kept| kept.marks.clone()).unwrap_or_default(),
            }
        };
        let (mut loaded, mut bytes) = (Vec::new(), 0_usize);
        for key in keys {
            let state: Loaded = load(key);
            bytes = bytes.saturating_add(state.heap_bytes());
            if bytes > bytes_max && !loaded.is_empty() {
                break;
            }
            loaded.push(state);
        }
        Ok(loaded)
    }

    async fn write(&self, flush: &Flush) -> Result<Written> {
        let mut state = self.store.lock();
        let entry = self.entry(&mut state)?;
        entry.within(flush.writes.len())?;
        let checked = flush.checks.iter().map(|check| &check.key);
        let keys = flush.writes.iter().map(|write| &write.key).chain(checked);
        if !self.is_fenced(entry, flush)
            && let Err(error) = entry.spelled(keys)
        {
            return Ok(Written::Rejected(error));
        }
        if self.store.keeps_marks() {
            self.write_one_by_one(&mut state, flush)
        } else {
            self.write_together(&mut state, flush)
        }
    }

    async fn expired(&self, horizon: Horizon, max: usize) -> Result<Vec<RowWrite>> {
        let mut state = self.store.lock();
        let entry = self.entry(&mut state)?;
        let table = entry.table_of(self.generation, self.building);
        let table = table.ok_or_else(|| Error::fenced("another generation is live"))?;
        let past = self.spec.expire.as_ref().map(|rule| table.expired(rule, horizon, max));
        Ok(past.unwrap_or_default())
    }

    async fn positions(&self, partitions: &[TopicPartition]) -> Result<Vec<StoredPosition>> {
        let state = self.store.lock();
        let entry = state.entries.get(&self.spec.target);
        let find = |partition: &TopicPartition| {
            entry?.positions.get(&(self.generation, partition.clone())).cloned()
        };
        Ok(partitions.iter().filter_map(find).collect())
    }

    fn keeps_marks(&self) -> bool {
        self.store.keeps_marks()
    }

    async fn refresh(&self, rows_max: usize) -> Result<Refreshed> {
        let mut state = self.store.lock();
        let entry = self.entry(&mut state)?;
        if entry.folds(self.generation, self.building) != Some(&self.spec.fingerprint) {
            return Err(Error::fenced("another generation or model is live"));
        }
        entry.within(rows_max)?;
        Ok(state.refresh(&self.spec, (self.generation, self.building), rows_max))
    }
}
