//! A target in memory.

use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::binding::check_owner;
use foldline_api::expiry::Horizons;
use foldline_api::hole::Holes;
use foldline_api::lifecycle::{Command, Facts, LogNow, Outcome, transition};
use foldline_api::parked::{Parked, Parking, Place, Request, Which};
use foldline_api::query::Queries;
use foldline_api::rebuild::Rebuilds;
use foldline_api::record::Record;
use foldline_api::removal::{Keep, Removed, generations};
use foldline_api::schemas::KeptSchemas;
use foldline_api::sink::{Adopted, Beginning, DesiredState, Opened, Target, TargetSpec, Writer};
use foldline_api::{Error, Result};

use super::{Entry, MemoryStore, State};
use crate::snapshot::MemorySnapshot;
use crate::writer::MemoryWriter;

/// One connector's target in a [`MemoryStore`].
#[derive(Debug)]
pub struct MemoryTarget {
    pub(crate) store: MemoryStore,
    pub(crate) spec: Arc<TargetSpec>,
}

impl MemoryTarget {
    pub(crate) fn unknown(&self) -> Error {
        Error::fenced(format!("{:?} has not been opened", self.spec.target))
    }

    /// The target's entry: this connector's, or nothing is done.
    pub(crate) fn owned<'s>(&self, state: &'s State) -> Result<&'s Entry> {
        let entry = state.entries.get(&self.spec.target);
        let bound = entry.and_then(|entry| Some((entry, entry.record.as_ref()?)));
        let (entry, record) = bound.ok_or_else(|| self.unknown())?;
        check_owner(&record.binding, &self.spec)?;
        Ok(entry)
    }

    /// The same, to be changed.
    pub(crate) fn owned_mut<'s>(&self, state: &'s mut State) -> Result<&'s mut Entry> {
        self.owned(state)?;
        state.entries.get_mut(&self.spec.target).ok_or_else(|| self.unknown())
    }

    /// What a command leads to, with the entry that it changes.
    pub(crate) fn decide<'s>(
        &self,
        state: &'s mut State,
        facts: &Facts,
        command: Command,
    ) -> Result<(&'s mut Entry, Outcome)> {
        let entry = self.owned_mut(state)?;
        let outcome = transition(entry.record.as_ref(), &self.spec, facts, command)?;
        Ok((entry, outcome))
    }
}

#[async_trait]
impl Target for MemoryTarget {
    async fn open(&self) -> Result<Opened> {
        let mut state = self.store.lock();
        let fresh = state.tick();
        let entry = state.entries.entry(self.spec.target.clone()).or_default();
        let facts = Facts { found: entry.found(), ..Facts::default() };
        let change = match transition(entry.record.as_ref(), &self.spec, &facts, Command::Open)? {
            Outcome::Changes(change) => change,
            Outcome::Waits(waits) => {
                return Ok(Opened { waits: Some(waits), ..entry.opened(Vec::new()) });
            }
            Outcome::Stands(_) | Outcome::NotYet(_) => return Ok(entry.opened(Vec::new())),
        };
        let mut notices = change.notices.clone();
        if entry.record.is_some() && change.answer != entry.generation() {
            notices.push("the table was dropped: it is built anew".to_owned());
            entry.renew(&self.spec, &change, fresh, None);
        } else {
            entry.carry_out(&change, fresh);
        }
        Ok(entry.opened(notices))
    }

    async fn check(&self) -> Result<()> {
        let state = self.store.lock();
        let entry = state.entries.get(&self.spec.target);
        let facts = Facts { found: entry.and_then(|entry| entry.found()), ..Facts::default() };
        let record = entry.and_then(|entry| entry.record.as_ref());
        transition(record, &self.spec, &facts, Command::Open).map(drop)
    }

    async fn adopt(&self, log: &LogNow) -> Result<Adopted> {
        let mut state = self.store.lock();
        let entry = state.entries.entry(self.spec.target.clone()).or_default();
        let facts = Facts {
            found: entry.found(),
            copies: entry
                .tables
                .iter()
                .map(|(of, table)| (*of, table.physical.to_string()))
                .collect(),
            positions: entry.live_positions(),
            log: log.clone(),
            ..Facts::default()
        };
        let outcome = transition(entry.record.as_ref(), &self.spec, &facts, Command::Adopt)?;
        let (Some(record), Outcome::Changes(change)) = (&entry.record, outcome) else {
            return Err(Error::retriable("there is nothing to adopt"));
        };
        let adopted = Adopted::of(&change, facts.found.as_ref(), &record.binding.physical);
        entry.carry_out(&change, 0);
        Ok(adopted)
    }

    async fn remove(&self, keep: Keep) -> Result<Removed> {
        let mut state = self.store.lock();
        let Some(entry) = state.entries.get_mut(&self.spec.target) else {
            return Ok(Removed::default());
        };
        let stands = |number: u64, physical: &str| match entry.tables.get(&number) {
            // Nobody else's can stand there.
            Some(_) => Some(true),
            None => entry.table.as_ref().map(|table| table.physical.to_string() == physical),
        };
        let mut removed = Removed::default();
        for (number, physical) in generations(entry.record.as_ref(), &self.spec, keep)? {
            let name = format!("{} {number}", self.spec.target);
            match stands(number, &physical) {
                Some(true) => removed.dropped.push(name),
                Some(false) => removed.strangers.push(name),
                None => {}
            }
        }
        // What the tests gave the table stays with its name.
        let stays = keep == Keep::Live || !removed.strangers.is_empty();
        let stranger = entry.table.take().filter(|_| stays);
        *entry = Entry { table: stranger, ..Entry::default() };
        Ok(removed)
    }

    async fn begin(&self, generation: u64, beginnings: &[Beginning]) -> Result<()> {
        let mut state = self.store.lock();
        let (entry, _) = self.decide(&mut state, &Facts::default(), Command::Begin(generation))?;
        for beginning in beginnings {
            entry.insert_position(generation, beginning);
        }
        Ok(())
    }

    async fn rebuild(&self, generation: u64, beginnings: Option<&[Beginning]>) -> Result<u64> {
        let mut state = self.store.lock();
        let fresh = state.tick();
        let (entry, outcome) =
            self.decide(&mut state, &Facts::default(), Command::Empty(generation))?;
        if let Outcome::Changes(change) = outcome {
            entry.renew(&self.spec, &change, fresh, beginnings);
        }
        Ok(entry.generation())
    }

    async fn status(&self) -> Result<Opened> {
        let state = self.store.lock();
        Ok(self.owned(&state)?.opened(Vec::new()))
    }

    async fn set_desired(&self, desired: DesiredState) -> Result<()> {
        let mut state = self.store.lock();
        let (entry, outcome) =
            self.decide(&mut state, &Facts::default(), Command::Desire(desired))?;
        if let Outcome::Changes(change) = outcome {
            entry.carry_out(&change, 0);
        }
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

    fn horizons(&self) -> Option<&dyn Horizons> {
        Some(self)
    }

    fn queries(&self) -> Option<&dyn Queries> {
        Some(self)
    }

    async fn snapshot(&self) -> Result<Box<dyn foldline_api::sink::Snapshot>> {
        let state = self.store.lock();
        Ok(Box::new(MemorySnapshot::of(self.owned(&state)?, &state, &self.spec)))
    }

    fn parking(&self) -> &dyn Parking {
        self
    }

    fn holes(&self) -> &dyn Holes {
        self
    }

    fn schemas(&self) -> &dyn KeptSchemas {
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
