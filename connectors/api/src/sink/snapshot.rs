//! Rows and books of one moment.

use async_trait::async_trait;

use super::{Loaded, StoredPosition, StoredVerdict};
use crate::error::Result;
use crate::expiry::Horizon;
use crate::model::{Key, Row};

/// What the books say at the moment of a [`Snapshot`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// The live generation.
    pub generation: u64,
    /// Its positions.
    pub positions: Vec<StoredPosition>,
    /// All verdicts of the generation: the records that it leaves out.
    pub verdicts: Vec<StoredVerdict>,
    /// Another projection began the generation, and this one carried it on (`continue`): its rows are
    /// not what a fold with this one alone gives.
    pub continued: bool,
    /// The horizon of the target's rule, if it has one: no earlier than what rows that were read are gone by. Where rows
    /// are read later than the books, it is told anew with them.
    pub horizon: Option<Horizon>,
}

/// Rows and books of one moment, while others write on. Each row holds exactly the events before the
/// positions; where rows carry marks, also those before its own marks, and it may be newer than the
/// positions by them. Holds no lock that a flush waits for.
#[async_trait]
pub trait Snapshot: Send {
    /// The books.
    fn books(&self) -> &Books;

    /// The next rows, about `max` of them and in no order; empty after the last. Tombstone documents
    /// are among them.
    async fn next(&mut self, max: usize) -> Result<Vec<(Key, Loaded)>>;

    /// The rows of `keys`, in their order.
    async fn load(&mut self, keys: &[Key]) -> Result<Vec<Loaded>>;

    /// Rows of a target that shows other targets' rows, as they would be with what those say at this moment; none where a
    /// note says that the row has still to be brought up to it. Pages and [`Snapshot::load`] have what is stored.
    async fn shown(&mut self, rows: &[Row]) -> Result<Vec<Option<Row>>> {
        Ok(rows.iter().cloned().map(Some).collect())
    }
}
