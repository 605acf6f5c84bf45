//! What a load is for: the states that one record needs whatever they take, as far as one record may touch them.

use foldline_api::budget::Together;
use foldline_api::model::Key;
use foldline_api::parked::Place;
use foldline_api::sink::Loaded;
use foldline_language::projection::Prepared;

use super::cache::Cache;

/// What the first record of a load needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Needed {
    /// So many of the first keys are its.
    pub(super) keys: usize,
    /// What its rows take that are there; none where that is not asked, see [`Prepared::is_weighed`].
    pub(super) together: Option<Together>,
    /// Where it lies, as long as a row may hold it that was not looked at. Such a record was applied before, so it is not
    /// asked either.
    pub(super) place: Option<Place>,
}

impl Needed {
    /// What an event at `place` needs beside what `cache` has: so many states. Where rows keep marks, one may hold it.
    pub(super) fn of(prepared: &Prepared, place: Place, cache: &Cache, keeps_marks: bool) -> Self {
        let rows = prepared.keys().iter().map(|key| cache.get(key));
        let keys = rows.clone().filter(Option::is_none).count();
        let mut together = prepared.is_weighed().then(Together::default);
        for entry in rows.flatten() {
            if keeps_marks && entry.has(&place.0, place.1) {
                together = None;
            }
            if let Some(together) = &mut together {
                together.add(entry.row.as_ref());
            }
        }
        Needed { keys, together, place: keeps_marks.then_some(place) }
    }

    /// One of its states came.
    pub(super) fn came(&mut self, loaded: &Loaded) {
        if self.holds(loaded) {
            self.together = None;
        }
        if let Some(together) = &mut self.together {
            together.add(loaded.row.as_ref());
        }
    }

    /// Whether this row holds the record already.
    pub(super) fn holds(&self, loaded: &Loaded) -> bool {
        let Some((partition, offset)) = &self.place else { return false };
        loaded.marks.iter().any(|mark| mark.holds(partition, *offset))
    }

    /// Whether what came is more than one record may touch.
    pub(super) fn is_over(&self) -> bool {
        self.together.is_some_and(|together| together.is_over())
    }
}

/// Keys with their states as the store has them.
#[derive(Debug, Default)]
pub(super) struct States {
    pub(super) loaded: Vec<(Key, Loaded)>,
    /// Those of them that the store cannot even name: absent, and so they stay.
    pub(super) nowhere: Vec<Key>,
    /// The first record's rows take more than one record may touch: the rest of them was not read.
    pub(super) over: bool,
}
