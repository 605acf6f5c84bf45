//! What a store gives of a row: its state, its version, its marks.

use smallvec::SmallVec;

use crate::model::Row;
use crate::record::{Position, TopicPartition};

/// The version of a row as the store counts them. A write is applied only to the version it was
/// folded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// There is no row: the write is an insert that does nothing where there is one.
    Absent,
    /// The row's version: PostgreSQL's `xmin`, Elasticsearch's sequence number and primary term,
    /// SQLite's hash of what is stored.
    At(u64, u64),
}

/// How far a partition's events are already in a row: the position after the last one applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The partition.
    pub partition: TopicPartition,
    /// The position after the last applied event.
    pub position: Position,
}

impl Mark {
    /// Whether it says that the event at `offset` of `partition` is in the row.
    #[must_use]
    pub fn holds(&self, partition: &TopicPartition, offset: i64) -> bool {
        self.partition == *partition && self.position.0 > offset
    }
}

/// A row's marks, one per partition that touched it; nearly always one.
pub type Marks = SmallVec<[Mark; 1]>;

/// A key's state as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The row; none where there is none, or only a tombstone document.
    pub row: Option<Row>,
    /// Its version; a tombstone document has one too.
    pub version: Version,
    /// Its marks; empty where rows and positions move together.
    pub marks: Marks,
}

impl Loaded {
    /// The state of a key that the store does not have.
    #[must_use]
    pub fn absent() -> Self {
        Loaded { row: None, version: Version::Absent, marks: Marks::new() }
    }

    /// Bytes on the heap, roughly: what a load is bounded by.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.row.as_ref().map_or(0, Row::heap_bytes)
    }
}
