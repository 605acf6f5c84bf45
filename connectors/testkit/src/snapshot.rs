//! Rows and books of one moment: a copy.

use std::collections::{BTreeMap, VecDeque};

use async_trait::async_trait;
use foldline_api::model::Key;
use foldline_api::sink::{Books, Loaded, Marks, Snapshot, Version};
use foldline_api::{Error, Result};

use crate::store::{Entry, Kept, Spelling, version_of};

/// See the module.
pub(crate) struct MemorySnapshot {
    books: Books,
    rows: BTreeMap<Key, Loaded>,
    unread: VecDeque<Key>,
    spelling: Option<Spelling>,
}

impl MemorySnapshot {
    pub(crate) fn of(entry: &Entry) -> Self {
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
        };
        let unread = rows.keys().cloned().collect();
        MemorySnapshot { books, rows, unread, spelling: entry.spelling.clone() }
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
}
