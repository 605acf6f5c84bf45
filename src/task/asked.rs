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
use foldline_api::sink::StoredVerdict;

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

    /// A record to be asked about; where the log ended says how far its rows are written alone.
    pub(super) fn ask(&mut self, place: Place, ends: &[(TopicPartition, Position)]) {
        let end = ends.iter().find(|(of, _)| *of == place.0).map(|(_, end)| *end);
        self.ends.insert(place.0.clone(), end.unwrap_or_default());
        self.places.insert(place);
    }

    /// A partition was just acquired: what is to be asked of it is told anew.
    pub(super) fn forget(&mut self, of: &TopicPartition) {
        self.places.retain(|(partition, _)| partition != of);
    }

    /// What the live generation has parked since the store refused it.
    pub(super) fn parked(&self) -> Arc<[Place]> {
        Arc::clone(&self.parked)
    }

    /// An asked record touches these rows.
    pub(super) fn touches<'k>(&mut self, keys: impl Iterator<Item = &'k Key>) {
        self.keys.extend(keys.cloned());
    }

    /// The store refused a record alone. A constraint may fire before a stale state shows, and another may come
    /// before anyone looks which it was: only the same answer twice, from fresh states, is a verdict.
    pub(super) fn refused(&mut self, place: Place, error: &Error) -> Option<(Place, Verdict)> {
        let seen = Some((place, error.definition().map(str::to_owned)));
        if self.suspect != seen {
            self.suspect = seen;
            return None;
        }
        let (place, definition) = self.suspect.take()?;
        self.places.remove(&place);
        Some((place, Verdict { reason: error.to_string(), definition, stored: false }))
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

/// A refusal by the store, and whether the store knows of it already.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) reason: String,
    pub(crate) definition: Option<String>,
    pub(crate) stored: bool,
}

impl Verdict {
    /// What a flush keeps of it, where the store does not have it yet.
    pub(super) fn to_keep(&self, partition: &TopicPartition, offset: i64) -> Option<StoredVerdict> {
        let Verdict { reason, definition, stored } = self;
        let keep = || StoredVerdict::new(partition.clone(), offset, reason, definition.clone());
        (!stored).then(keep)
    }
}
