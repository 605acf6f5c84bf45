//! Rows that are newer than the fold: as they were found while there is room for them, else by name only.

use foldline_api::model::Key;
use foldline_api::sink::{Books, Loaded};

use super::is_ahead;
use crate::maps::HashMap;

/// See the module.
#[derive(Debug)]
pub(super) struct Ahead {
    /// As they were found.
    rows: HashMap<Key, Loaded>,
    /// Bytes of these rows, and how many they may be.
    bytes: usize,
    bytes_max: usize,
    /// Those that there was no room for: they are looked at again.
    unheld: Vec<Key>,
}

impl Ahead {
    pub(super) fn new(bytes_max: usize) -> Self {
        Ahead { rows: HashMap::default(), bytes: 0, bytes_max, unheld: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len() + self.unheld.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the rows that are held.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a row that is newer. One is held always, so that each round comes further.
    pub(super) fn keep(&mut self, key: Key, found: Loaded) {
        let bytes = found.heap_bytes();
        if self.rows.is_empty() || self.bytes.saturating_add(bytes) <= self.bytes_max {
            self.bytes += bytes;
            self.rows.insert(key, found);
        } else {
            self.unheld.push(key);
        }
    }

    /// A row as it was found.
    pub(super) fn get(&self, key: &Key) -> Option<&Loaded> {
        self.rows.get(key)
    }

    /// Lets go of all others.
    pub(super) fn retain(&mut self, kept: impl Fn(&Key) -> bool) {
        self.unheld.retain(&kept);
        for (_, found) in self.rows.extract_if(|key, _| !kept(key)) {
            self.bytes -= found.heap_bytes();
        }
    }

    /// Takes a row out.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Loaded> {
        let found = self.rows.remove(key)?;
        self.bytes -= found.heap_bytes();
        Some(found)
    }

    /// Takes out the keys that are to be looked at again: of rows that the fold, which stands at these books, has passed
    /// without meeting them, and of those that were not held.
    pub(super) fn passed(&mut self, books: &Books) -> Vec<Key> {
        let mut keys = std::mem::take(&mut self.unheld);
        let passed = self.rows.extract_if(|_, found| !is_ahead(&found.marks, books));
        for (key, found) in passed {
            self.bytes -= found.heap_bytes();
            keys.push(key);
        }
        keys
    }
}
