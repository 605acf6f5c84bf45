//! Whose turn it is to run a connector, where one worker at a time does.

use async_trait::async_trait;

/// This worker's place among those that would run a connector. It spares them from fencing each other; that no two of them write
/// is the fence's to see to.
#[async_trait]
pub trait Turn: Send + Sync {
    /// Stands in line, if this worker does not yet.
    fn join(&self);

    /// Whether it is this worker's turn.
    fn is_mine(&self) -> bool;

    /// Waits until it is, or is not. Cancel-safe.
    async fn wait(&self, mine: bool);

    /// Leaves the line, so that another worker takes over; waits a moment until that is known.
    async fn leave(&self);
}
