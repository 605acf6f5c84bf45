//! What the operator asks of a connector.

use std::sync::{Arc, PoisonError};

use foldline_api::error::{Error, Result};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{DesiredState, Target};

use super::Connector;
use crate::replay::Parts;

impl Connector {
    /// The target as the last session opened it.
    pub(super) fn opened_target(&self) -> Result<Arc<dyn Target>> {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        target.clone().ok_or_else(|| Error::retriable("the connector has not reached its log yet"))
    }

    /// Keeps what the operator wants; every worker of the fleet follows.
    ///
    /// # Errors
    /// When the books cannot be reached.
    pub async fn set_desired(&self, desired: DesiredState) -> Result<()> {
        self.opened_target()?.set_desired(desired).await
    }

    /// Starts a new session.
    pub fn restart(&self) {
        self.restart.notify_one();
    }

    /// What folds the log again beside the tasks, for `verify` and `explain`.
    ///
    /// # Errors
    /// While the log was not reached yet.
    pub(crate) fn parts(&self) -> Result<Parts> {
        Ok(Parts {
            connector: self.spec.name.clone(),
            projection: Arc::clone(&self.spec.projection),
            decoders: Arc::clone(&self.spec.decoders),
            log: Arc::clone(&self.spec.log),
            target: self.opened_target()?,
            on_bad_record: self.spec.on_bad_record,
            memory: self.spec.memory / 2,
        })
    }

    /// The group's view and the sink's, partition by partition.
    ///
    /// # Errors
    /// When the books cannot be reached.
    pub async fn offsets(&self) -> Result<Vec<(TopicPartition, Position)>> {
        let books = self.opened_target()?.status().await?;
        Ok(books.positions.into_iter().map(|p| (p.partition, p.position)).collect())
    }
}
