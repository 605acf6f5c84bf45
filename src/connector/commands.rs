//! What the operator asks of a connector.

use std::sync::{Arc, PoisonError};

use foldline_api::error::{Error, Result};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Beginning, DesiredState, Target};

use super::Connector;
use super::opening::topics_recreated;

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

    /// Empties the target and folds everything again; with `from_earliest`, from what the log still
    /// has. Returns the new generation.
    ///
    /// # Errors
    /// When the log has lost its beginning, or the books cannot be reached.
    pub async fn rebuild_in_place(&self, from_earliest: bool) -> Result<u64> {
        let target = self.opened_target()?;
        let infos = self.spec.log.partitions().await?;
        // The books are readable even where the projection changed and the session refused to run.
        let books = target.status().await?;
        let generation = if from_earliest || topics_recreated(&books, &infos) {
            let beginnings: Vec<Beginning> = infos
                .iter()
                .map(|info| Beginning {
                    partition: info.partition.clone(),
                    topic_id: info.topic_id.clone(),
                    position: info.low,
                })
                .collect();
            target.rebuild(books.generation, Some(&beginnings)).await?
        } else {
            self.rebuild_on(target.as_ref(), books.generation, &infos, &books.positions).await?
        };
        self.restart();
        Ok(generation)
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
