//! What the operator asks of a connector.

use std::sync::{Arc, PoisonError};

use foldline_api::error::{Error, Result};
use foldline_api::expiry::Horizon;
use foldline_api::hole::Hole;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{DesiredState, Target};
use foldline_api::source::Start;

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
        self.opened_target()?.set_desired(desired).await?;
        self.pace.wake();
        Ok(())
    }

    /// Carries a command out: a session that ended or failed begins anew with it.
    ///
    /// # Errors
    /// When the books cannot be reached.
    pub async fn command(&self, desired: DesiredState) -> Result<()> {
        // Before it is kept: a session that met a `resume` first would let its tasks park as many as `errors.limit` says, and
        // the one that takes its place as many again.
        self.restart();
        self.set_desired(desired).await
    }

    /// Moves the horizon of `expire` to where the clocks say, by however much; from where to where.
    ///
    /// # Errors
    /// A config error where its rows do not expire; when the books cannot be reached.
    pub async fn resume_expiry(&self) -> Result<(Option<Horizon>, Horizon)> {
        let none = || Error::config(format!("no row of {} expires", self.spec.name));
        let expiry = self.spec.expiry.as_ref().ok_or_else(none)?;
        let target = self.opened_target()?;
        let (from, to) = expiry.go_on(target.horizons().ok_or_else(none)?).await?;
        tracing::warn!(connector = %self.spec.name, %to, "the horizon of `expire` was moved, as an operator asked");
        self.pace.wake();
        Ok((from, to))
    }

    /// Starts a new session.
    pub fn restart(&self) {
        self.restart.notify_one();
        self.pace.wake();
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

    /// Where the partitions of the fold would stand.
    ///
    /// # Errors
    /// When the books or the log cannot be reached.
    pub async fn offsets_at(&self, start: Start) -> Result<Vec<(TopicPartition, Position)>> {
        let books = self.opened_target()?.status().await?;
        let partitions: Vec<TopicPartition> =
            books.positions.into_iter().map(|stored| stored.partition).collect();
        let found = self.spec.log.find(&partitions, start).await?;
        Ok(partitions.into_iter().zip(found).collect())
    }

    /// Moves positions forward past events that the live generation leaves out; all of its holes then.
    ///
    /// # Errors
    /// A config error where a partition stands further on, or its log ends before.
    pub async fn skip(&self, to: &[(TopicPartition, Position)]) -> Result<Vec<Hole>> {
        let target = self.opened_target()?;
        let infos = self.spec.log.survey().await?.partitions;
        for (partition, to) in to {
            let info = infos.iter().find(|info| info.partition == *partition);
            let high = info.map(|info| info.high).ok_or_else(|| {
                Error::config(format!("`{partition}` is no partition of this fold"))
            })?;
            if *to > high {
                return Err(Error::config(format!("`{partition}` ends at {high}, before {to}")));
            }
        }
        let generation = target.status().await?.generation;
        target.holes().skip(generation, to).await?;
        // A stopped connector's positions have moved: what it leaves is another state now.
        if let Err(error) = target.note_stopped().await {
            tracing::warn!(%error, "what the stopped connector leaves is not noted: restart it");
        }
        let holes = target.holes().holes(generation).await?;
        for hole in &holes {
            tracing::warn!("{hole} are left out, as an operator asked; {}", hole.fate());
        }
        self.shown().holes.clone_from(&holes);
        self.pace.wake();
        Ok(holes)
    }

    /// Lets the next generation fold what the live one leaves out; all holes of the live one then.
    ///
    /// # Errors
    /// When the books cannot be reached.
    pub async fn forget_holes(&self) -> Result<Vec<Hole>> {
        let target = self.opened_target()?;
        let generation = target.status().await?.generation;
        target.holes().forget(generation).await?;
        let holes = target.holes().holes(generation).await?;
        self.shown().holes.clone_from(&holes);
        Ok(holes)
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
