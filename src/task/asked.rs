//! Records that the store refused in another generation, and is asked about again: what refused them is gone, has
//! changed, or is more than a row can tell (rule 8).
//!
//! A load writes what a key comes to in the end, and a batch what it comes to by its last event, so neither would
//! show the store the row that it refused then. Such a record is therefore written alone, and so is every later event
//! of the rows that it touches, up to where the log ended when its partition was taken over.

use std::sync::Arc;

use foldline_api::error::Error;
use foldline_api::model::Key;
use foldline_api::parked::Place;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Acquired, Lease, StoredVerdict};

use super::batch::Batch;
use super::folder::{Folder, Verdict};
use crate::maps::{HashMap, HashSet};

/// What a task has to ask.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    places: HashSet<Place>,
    /// What the live generation has parked since the store refused it, where this one is built.
    parked: Arc<[Place]>,
    /// Rows that an asked record touches.
    keys: HashSet<Key>,
    /// Up to there the events of these rows are written one by one.
    ends: HashMap<TopicPartition, Position>,
    /// The record that the store refused alone, once, and by which definition.
    suspect: Option<(Place, Option<String>)>,
}

impl Asked {
    pub(super) fn new(parked: Arc<[Place]>) -> Self {
        Asked { parked, ..Asked::default() }
    }

    /// Whether there is nothing to ask.
    pub(super) fn is_idle(&self) -> bool {
        self.places.is_empty() && self.keys.is_empty()
    }

    /// Whether an event with these keys is to be written alone.
    pub(super) fn wants_alone(
        &self,
        partition: &TopicPartition,
        offset: i64,
        keys: &[Key],
    ) -> bool {
        if self.is_idle() {
            return false;
        }
        let before_end = self.ends.get(partition).is_some_and(|end| offset < end.0);
        let follows = before_end && keys.iter().any(|key| self.keys.contains(key));
        follows || self.places.contains(&(partition.clone(), offset))
    }

    fn ask(&mut self, place: Place, ends: &[(TopicPartition, Position)]) {
        let end = ends.iter().find(|(of, _)| *of == place.0).map(|(_, end)| *end);
        self.ends.insert(place.0.clone(), end.unwrap_or_default());
        self.places.insert(place);
    }

    /// What lies before the positions is answered.
    pub(super) fn durable(&mut self, steps: &HashMap<TopicPartition, (Position, Position)>) {
        if self.is_idle() {
            return;
        }
        let done = |of: &TopicPartition| steps.get(of).map_or(0, |(_, to)| to.0);
        self.places.retain(|(partition, offset)| *offset >= done(partition));
        self.ends.retain(|partition, end| end.0 > done(partition));
        if self.ends.is_empty() {
            self.keys.clear();
        }
    }
}

impl Verdict {
    /// What a flush keeps of it, where the store does not have it yet.
    pub(super) fn to_keep(&self, partition: &TopicPartition, offset: i64) -> Option<StoredVerdict> {
        let Verdict { reason, definition, stored } = self;
        let keep = || StoredVerdict::new(partition.clone(), offset, reason, definition.clone());
        (!stored).then(keep)
    }
}

impl Folder {
    /// Takes in verdicts of partitions that were just acquired: to repeat, or to ask about. None of them is this
    /// generation's own yet.
    pub(super) fn recall_verdicts(
        &mut self,
        acquired: &Acquired,
        ends: &[(TopicPartition, Position)],
    ) {
        for lease in &acquired.leases {
            self.verdicts.retain(|(partition, _), _| *partition != lease.partition);
            self.asked.places.retain(|(partition, _)| *partition != lease.partition);
        }
        for StoredVerdict { partition, offset, reason, definition, holds } in &acquired.verdicts {
            let place = (partition.clone(), *offset);
            if *holds {
                let (reason, definition) = (reason.clone(), definition.clone());
                self.verdicts.insert(place, Verdict { reason, definition, stored: false });
            } else {
                self.asked.ask(place, ends);
            }
        }
        let parked = Arc::clone(&self.asked.parked);
        for place in parked.iter() {
            let ahead = |lease: &Lease| lease.partition == place.0 && lease.position.0 <= place.1;
            if acquired.leases.iter().any(ahead) && !self.verdicts.contains_key(place) {
                self.asked.ask(place.clone(), ends);
            }
        }
    }

    /// Learns the rows of an asked record that `batch` holds.
    pub(super) fn note_asked(&mut self, batch: &Batch) {
        if batch.alone.is_some() {
            self.asked.keys.extend(batch.keys().cloned());
        }
    }

    /// The store refused a record alone. A constraint may fire before a stale state shows, and another may come
    /// before anyone looks which it was: only the same answer twice, from fresh states, is a verdict.
    pub(super) fn blame(&mut self, place: Place, error: &Error) {
        let definition = error.definition().map(str::to_owned);
        let seen = Some((place, definition));
        if self.asked.suspect != seen {
            self.asked.suspect = seen;
            return;
        }
        if let Some((place, definition)) = self.asked.suspect.take() {
            self.asked.places.remove(&place);
            let verdict = Verdict { reason: error.to_string(), definition, stored: false };
            self.verdicts.insert(place, verdict);
        }
    }
}
