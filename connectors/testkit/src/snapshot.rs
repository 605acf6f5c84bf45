//! Rows and books of one moment: a copy.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::model::{Key, Row};
use foldline_api::sink::{Books, Loaded, Marks, Snapshot, TargetSpec, Version};
use foldline_api::{Error, Result};

use crate::store::{Entry, Kept, Spelling, State, version_of};

/// See the module.
pub(crate) struct MemorySnapshot {
    books: Books,
    rows: BTreeMap<Key, Loaded>,
    unread: VecDeque<Key>,
    spelling: Option<Spelling>,
    /// All targets, and whose snapshot it is.
    state: State,
    spec: Arc<TargetSpec>,
}

impl MemorySnapshot {
    pub(crate) fn of(entry: &Entry, state: &State, spec: &Arc<TargetSpec>) -> Self {
        let rule = spec.expire.as_ref();
        let loaded = |kept: &Kept| Loaded {
            row: kept.row.clone(),
            version: version_of(Some(kept)),
            marks: kept.marks.clone(),
        };
        let rows = entry.table.iter().flat_map(|table| &table.rows);
        let rows: BTreeMap<Key, Loaded> =
            rows.map(|(key, kept)| (key.clone(), loaded(kept))).collect();
        let books = Books {
            generation: entry.generation(),
            positions: entry.live_positions(),
            verdicts: entry.verdicts(entry.generation()),
            continued: entry.is_continued(),
            horizon: rule.and_then(|rule| entry.horizon(rule)),
        };
        let unread = rows.keys().cloned().collect();
        let state = State { entries: state.entries.clone(), counter: state.counter };
        let (spelling, spec) = (entry.spelling.clone(), Arc::clone(spec));
        MemorySnapshot { books, rows, unread, spelling, state, spec }
    }
}

#[async_trait]
impl Snapshot for MemorySnapshot {
    fn books(&self) -> &Books {
        &self.books
    }

    async fn next(&mut self, max: usize) -> Result<Vec<(Key, Loaded)>> {
        let keys: Vec<Key> = self.unread.drain(..max.min(self.unread.len())).collect();
        let rows = self.load(&keys).await?;
        Ok(keys.into_iter().zip(rows).collect())
    }

    async fn load(&mut self, keys: &[Key]) -> Result<Vec<Loaded>> {
        if let Some(reason) = self.spelling.as_ref().and_then(|of| keys.iter().find_map(|k| of(k)))
        {
            return Err(Error::record(reason));
        }
        let absent = || Loaded { row: None, version: Version::Absent, marks: Marks::new() };
        Ok(keys.iter().map(|key| self.rows.get(key).cloned().unwrap_or_else(absent)).collect())
    }

    async fn shown(&mut self, rows: &[Row]) -> Result<Vec<Option<Row>>> {
        let Some(joins) = &self.spec.joins else {
            return Ok(rows.iter().cloned().map(Some).collect());
        };
        let waits = |row: &Row| self.state.waits(&self.spec, self.books.generation, row);
        let shown = rows.iter().map(|row| {
            (!waits(row)).then(|| self.state.completed(joins, &self.spec.model.key_of(row), row))
        });
        Ok(shown.collect())
    }
}
