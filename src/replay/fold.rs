//! The fold of a replay: what the task's fold does, without a sink.

use std::sync::Arc;

use foldline_api::budget::Together;
use foldline_api::error::{Error, Result};
use foldline_api::expiry::Horizon;
use foldline_api::model::Key;
use foldline_api::record::{Record, TopicPartition};
use foldline_api::sink::StoredVerdict;
use foldline_language::projection::{
    BadRecord, Effects, Prepared, Projection, StateRef, States as Read,
};

use super::states::{State, States};
use crate::decoding::{Decoders, UNPREPARED, decode};
use crate::maps::HashMap;

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It wrote the rows of these keys.
    Applied(Vec<Key>),
    /// It wrote nothing.
    Filtered,
    /// It is bad: stage and reason.
    Bad(&'static str, String),
    /// No key of it was asked for.
    Passed,
}

/// A folded record.
#[derive(Clone, Debug)]
pub(crate) struct Folded {
    /// The keys that it may touch; none where that could not be told.
    pub(crate) keys: Vec<Key>,
    /// The event's name.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) outcome: Outcome,
}

/// Which keys are folded.
enum Wanted {
    All,
    /// One in so many, by hash.
    Sample(u64),
    Only(Key),
}

/// See the module.
pub(crate) struct Fold {
    projection: Arc<Projection>,
    decoders: Arc<dyn Decoders>,
    verdicts: HashMap<(TopicPartition, i64), String>,
    states: States,
    wanted: Wanted,
    /// Of the books: events of rows that it has passed are left alone.
    horizon: Option<Horizon>,
    /// Whether other keys' states can be left out: no event has more than one key.
    alone: bool,
    /// Records folded.
    pub(crate) folded: u64,
}

impl Read for States {
    fn get(&self, key: &Key) -> Option<StateRef<'_>> {
        Some(StateRef { row: States::get(self, key).and_then(|state| state.row.as_ref()) })
    }
}

impl Fold {
    /// A fold of all keys; `memory` bounds the states before they spill, in bytes.
    pub(crate) fn new(
        projection: Arc<Projection>,
        decoders: Arc<dyn Decoders>,
        memory: usize,
    ) -> Self {
        Fold {
            states: States::new(Arc::clone(projection.model()), memory),
            alone: projection.has_one_key(),
            projection,
            decoders,
            verdicts: HashMap::default(),
            wanted: Wanted::All,
            horizon: None,
            folded: 0,
        }
    }

    /// Folds one key in `n`, chosen by hash.
    pub(crate) fn sample(&mut self, n: u64) {
        self.wanted = Wanted::Sample(n.max(1));
    }

    /// Folds one key.
    pub(crate) fn only(&mut self, key: Key) {
        self.wanted = Wanted::Only(key);
    }

    /// The horizon is there by now, as the books say.
    pub(crate) fn expire(&mut self, horizon: Option<Horizon>) {
        self.horizon = self.horizon.max(horizon);
    }

    /// The horizon that has passed rows of this key, if it has.
    pub(crate) fn passed_by(&self, key: &Key) -> Option<Horizon> {
        let rule = self.projection.rule()?;
        self.horizon.filter(|horizon| rule.has_passed(*horizon, key))
    }

    /// Whether `key` is folded.
    pub(crate) fn wants(&self, key: &Key) -> bool {
        self.is_asked(key) && self.passed_by(key).is_none()
    }

    fn is_asked(&self, key: &Key) -> bool {
        match &self.wanted {
            Wanted::All => true,
            Wanted::Sample(n) => hash(key).is_multiple_of(*n),
            Wanted::Only(only) => only == key,
        }
    }

    /// Repeats the store's verdicts, but for those whose cause is gone: the row should hold these events. How many are
    /// repeated of which only the store could say whether it would refuse the record again.
    pub(crate) fn repeat(&mut self, verdicts: &[StoredVerdict]) -> u64 {
        let mut unknown = 0;
        for verdict in verdicts {
            let mut reason = verdict.reason.clone();
            if verdict.is_unknown() {
                unknown += 1;
                reason.push_str(" (when it was folded; a rebuild asks the store again)");
            } else if !verdict.holds {
                continue;
            }
            self.verdicts.insert((verdict.partition.clone(), verdict.offset), reason);
        }
        unknown
    }

    /// The state of `key` after all that was folded; the default where no event wrote it.
    pub(crate) fn state(&mut self, key: &Key) -> Result<State> {
        self.states.bring(std::slice::from_ref(key))?;
        let state = self.states.get(key).cloned().unwrap_or_default();
        self.states.see(key);
        self.states.make_room()?;
        Ok(state)
    }

    /// Keys with a row whose state nobody asked for.
    pub(crate) fn unseen(&mut self) -> Result<Vec<Key>> {
        let mut keys = self.states.unseen()?;
        keys.retain(|key| self.wants(key));
        Ok(keys)
    }

    /// Folds the next record.
    pub(crate) fn fold(&mut self, record: &Record) -> Result<Folded> {
        self.folded += 1;
        let (event, mut prepared) = match decode(&self.projection, &*self.decoders, record) {
            Ok(decoded) => decoded,
            Err(bad) if bad.stage == UNPREPARED => return Err(Error::config(bad.reason)),
            Err(bad) => return Ok(self.bad(record, bad)),
        };
        let keys = prepared.keys().to_vec();
        if self.alone && !keys.is_empty() && !keys.iter().any(|key| self.is_asked(key)) {
            return Ok(Folded { keys, name: None, outcome: Outcome::Passed });
        }
        let name = self.projection.name_of(&event);
        if keys.is_empty() {
            let key = self.projection.key_by_record_key(event.key);
            return Ok(Folded {
                keys: key.into_iter().collect(),
                name,
                outcome: Outcome::Filtered,
            });
        }
        if keys.iter().any(|key| self.passed_by(key).is_some()) {
            return Ok(Folded { keys, name, outcome: Outcome::Filtered });
        }
        let done = |outcome| Folded { keys: keys.clone(), name: name.clone(), outcome };
        let partition = record.topic_partition();
        if let Some(reason) = self.verdicts.get(&(partition.clone(), record.offset)) {
            return Ok(done(Outcome::Bad("sink", reason.clone())));
        }
        self.bring(&mut prepared)?;
        let outcome = match self.projection.apply(&event, &prepared, &self.states) {
            Ok(Effects::Applied { writes, .. }) => {
                let written = writes.iter().map(|(key, _)| key.clone()).collect();
                for (key, row) in writes {
                    self.states.put(key, row, &partition, record.next());
                }
                Outcome::Applied(written)
            }
            Ok(Effects::Filtered { .. }) => Outcome::Filtered,
            Err(bad) => Outcome::Bad(bad.stage, bad.reason),
        };
        self.states.make_room()?;
        Ok(done(outcome))
    }

    /// Brings the rows of an event into memory, up to what one record may touch.
    fn bring(&mut self, prepared: &mut Prepared) -> Result<()> {
        let (weighed, mut together) = (prepared.is_weighed(), Together::default());
        for key in prepared.keys() {
            self.states.bring(std::slice::from_ref(key))?;
            if weighed {
                together.add(self.states.get(key).and_then(|state| state.row.as_ref()));
            }
            if together.is_over() {
                break;
            }
        }
        if together.is_over() {
            prepared.exceed();
        }
        Ok(())
    }

    /// A record that is bad before any state is known. Where rows go by the record's key, it still
    /// tells whose event it was.
    fn bad(&self, record: &Record, bad: BadRecord) -> Folded {
        let key = self.decoders.of(&record.topic).decode_key(record).unwrap_or_default();
        let key = self.projection.key_by_record_key(key);
        let outcome = Outcome::Bad(bad.stage, bad.reason);
        Folded { keys: key.into_iter().collect(), name: None, outcome }
    }
}

/// The same in every run, so that a sample is of the same keys each time.
fn hash(key: &Key) -> u64 {
    // FNV-1a, then spread: its low bits alone are poor.
    let text = key.to_string();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ (hash >> 32)
}
