//! What rows of the store in memory show of other targets' rows, and the notes that keep it so.

use std::sync::Arc;

use foldline_api::lookup::{Gather, Joins};
use foldline_api::model::{Key, Row};
use foldline_api::sink::{Flush, Refreshed, TargetSpec};
use foldline_api::value::Value;

use crate::store::{Entry, State, Table};

/// So many notes of one generation become one that says: all rows.
const NOTES_MAX: usize = 50;

/// What a generation has still to look at.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    generation: u64,
    looked_up: String,
    /// Rows that show the other row of this key; all rows behind `after` where there is none.
    key: Option<Key>,
    after: Option<Key>,
}

impl Entry {
    fn live_row(&self, key: &Key) -> Option<&Row> {
        self.table.as_ref()?.rows.get(key)?.row.as_ref()
    }

    /// Nobody notes keys any more for a generation that is live no longer.
    pub(crate) fn end_lookups(&mut self, generation: u64) {
        self.lookups.retain(|(of, _), _| *of != generation);
        self.notes.retain(|_, note| note.generation != generation);
    }

    /// Whether rows of a generation have still to be looked at.
    pub(crate) fn has_notes(&self, generation: u64) -> bool {
        self.notes.values().any(|note| note.generation == generation)
    }

    fn note(&mut self, id: u64, note: Note) {
        let same =
            |other: &Note| other.generation == note.generation && other.looked_up == note.looked_up;
        if self.notes.values().filter(|other| same(other)).count() >= NOTES_MAX {
            self.notes.retain(|_, other| !same(other));
            self.notes.insert(id, Note { key: None, after: None, ..note });
            return;
        }
        self.notes.insert(id, note);
    }
}

impl State {
    /// The row with what it looks up now.
    pub(crate) fn completed(&self, joins: &Joins, own: &Key, row: &Row) -> Row {
        let other = |lookup: &foldline_api::lookup::Lookup| {
            let value = row.get(lookup.via);
            let key = (!value.is_null()).then(|| Key::of(value.clone()))?;
            self.entries.get(&lookup.target)?.live_row(&key)
        };
        joins.complete(
            row,
            joins.lookups().iter().map(other),
            joins.gathers().iter().map(|it| self.children(it, own)),
        )
    }

    fn children(&self, gather: &Gather, own: &Key) -> Value {
        let table = self.entries.get(&gather.target).and_then(|entry| entry.table.as_ref());
        let rows = table.into_iter().flat_map(|table| table.rows.values());
        let rows = rows.filter_map(|kept| kept.row.as_ref());
        gather.children(rows.filter(|row| gather.owner(row).as_ref() == Some(own)).collect()).0
    }

    /// Whether what a row shows may change with another target's row.
    fn is_about(
        &self,
        joins: &Joins,
        row: &Row,
        (looked_up, key): (&str, &Key),
        own: &Key,
    ) -> bool {
        let shows = joins.lookups().iter().any(|lookup| {
            lookup.target == looked_up && Key::of(row.get(lookup.via).clone()) == *key
        });
        shows
            || joins.gathers().iter().filter(|gather| gather.target == looked_up).any(|gather| {
                let entry = self.entries.get(looked_up);
                let other = entry.and_then(|entry| entry.live_row(key));
                let holds = other.and_then(|other| gather.owner(other)).as_ref() == Some(own);
                holds || gather.held(row).any(|held| held == *key)
            })
    }

    /// A flush with what its rows look up.
    pub(crate) fn joined(&self, spec: &TargetSpec, flush: &Flush) -> Flush {
        let mut flush = flush.clone();
        if let Some(joins) = &spec.joins {
            for write in &mut flush.writes {
                if let Some(row) = &mut write.row {
                    *row = self.completed(joins, &write.key, row);
                }
            }
        }
        flush
    }

    fn life(&self, spec: &TargetSpec, looked_up: &str) -> String {
        let entry = self.entries.get(looked_up);
        let live = entry.map_or(0, Entry::generation);
        let physical = entry.and_then(|entry| entry.table.as_ref()).map_or(0, |it| it.physical);
        format!("{} {live} {physical}", spec.fingerprint)
    }

    /// Makes sure that flushes of what is looked up note their keys for a generation, and that its rows are all looked
    /// at where the other target lives another life than they were looked at for; whether that was so.
    pub(crate) fn observe(&mut self, spec: &TargetSpec, generation: u64, new: bool) -> bool {
        let Some(joins) = &spec.joins else { return false };
        let targets: Vec<String> = joins.targets().into_iter().map(str::to_owned).collect();
        let mut changed = false;
        for looked_up in targets {
            let (life, id) = (self.life(spec, &looked_up), self.tick());
            let Some(entry) = self.entries.get_mut(&spec.target) else { continue };
            let place = (generation, looked_up.clone());
            match entry.lookups.get(&place) {
                Some(seen) if *seen == life || new => continue,
                None if !new => continue,
                _ => {}
            }
            entry.lookups.insert(place, life);
            entry.note(id, Note { generation, looked_up, key: None, after: None });
            changed = true;
        }
        changed
    }

    /// Notes keys that a live generation of `target` wrote, for all generations that show its rows.
    pub(crate) fn note_followers(&mut self, target: &str, flush: &Flush) {
        for write in &flush.writes {
            let id = self.tick();
            for entry in self.entries.values_mut() {
                let followers: Vec<u64> = entry
                    .lookups
                    .keys()
                    .filter(|(_, looked_up)| looked_up == target)
                    .map(|(generation, _)| *generation)
                    .collect();
                for (at, generation) in (0..).zip(followers) {
                    let (looked_up, key) = (target.to_owned(), Some(write.key.clone()));
                    // Ids of one tick: there are few generations.
                    entry.note(id * 8 + at, Note { generation, looked_up, key, after: None });
                }
            }
        }
    }

    /// Whether a note says that a row has still to be looked at, or would once the other target is seen.
    pub(crate) fn waits(&self, spec: &TargetSpec, generation: u64, row: &Row) -> bool {
        let Some((joins, entry)) = spec.joins.as_ref().zip(self.entries.get(&spec.target)) else {
            return false;
        };
        let own = spec.model.key_of(row);
        joins.targets().into_iter().any(|target| {
            let seen = entry.lookups.get(&(generation, target.to_owned()));
            let mine = |note: &&Note| note.generation == generation && note.looked_up == target;
            let noted = entry.notes.values().filter(mine);
            let about = |key: &Key| self.is_about(joins, row, (target, key), &own);
            seen != Some(&self.life(spec, target))
                || noted.into_iter().any(|note| note.key.as_ref().is_none_or(about))
        })
    }

    /// One step of bringing rows up to what they show.
    pub(crate) fn refresh(
        &mut self,
        spec: &Arc<TargetSpec>,
        (generation, building): (u64, bool),
        rows_max: usize,
    ) -> Refreshed {
        let Some(joins) = &spec.joins else { return Refreshed::default() };
        if self.observe(spec, generation, false) {
            return Refreshed { rows: 0, waits: Some(0.0), more: true };
        }
        let first = |state: &State| {
            let entry = state.entries.get(&spec.target)?;
            let (id, note) = entry.notes.iter().find(|(_, note)| note.generation == generation)?;
            Some((*id, note.clone()))
        };
        let Some((id, note)) = first(self) else { return Refreshed::default() };
        let table = |state: &mut State| -> Option<Table> {
            state.entries.get_mut(&spec.target)?.table_of(generation, building).cloned()
        };
        let Some(rows) = table(self) else { return Refreshed::default() };
        let all = rows.rows.iter().filter_map(|(key, kept)| Some((key, kept.row.as_ref()?)));
        let all = all.filter(|(own, row)| match &note.key {
            None => note.after.as_ref().is_none_or(|after| *own > after),
            Some(key) => self.is_about(joins, row, (&note.looked_up, key), own),
        });
        let wrong: Vec<(Key, Row)> = all
            .map(|(key, row)| (key.clone(), row.clone(), self.completed(joins, key, row)))
            .filter(|(_, row, completed)| row != completed)
            .map(|(key, _, completed)| (key, completed))
            .collect();
        let (version, done) = (self.tick(), wrong.len() <= rows_max);
        let now: Vec<(Key, Row)> = wrong.into_iter().take(rows_max).collect();
        let last = now.last().map(|(key, _)| key.clone());
        let count = now.len() as u64;
        if let Some(entry) = self.entries.get_mut(&spec.target) {
            if let Some(table) = entry.table_of(generation, building) {
                for (key, row) in now {
                    if let Some(kept) = table.rows.get_mut(&key) {
                        (kept.row, kept.version) = (Some(row), version);
                    }
                }
            }
            if done {
                entry.notes.remove(&id);
            } else if let Some(note) = entry.notes.get_mut(&id).filter(|note| note.key.is_none()) {
                note.after = last;
            }
        }
        let more = first(self).is_some();
        Refreshed { rows: count, waits: more.then_some(0.0), more }
    }
}
