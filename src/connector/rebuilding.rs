//! Rebuilds of a connector: how they begin and end, and what is shown while only readers are served.

use foldline_api::error::Result;
use foldline_api::sink::{DesiredState, Opened, Target};
use foldline_api::source::PartitionInfo;
use tokio_util::sync::CancellationToken;

use super::session::{FOLLOW_EVERY, SessionEnd};
use super::{Connector, State};
use crate::rebuild;

impl Connector {
    /// Begins a rebuild beside the live generation, or finds the one under way; its generation.
    pub(super) async fn begin_rebuild(
        &self,
        target: &dyn Target,
        books: &Opened,
        infos: &[PartitionInfo],
        from_earliest: bool,
    ) -> Result<u64> {
        let beginnings = rebuild::beginnings(&self.spec.name, books, infos, from_earliest)?;
        let goals = rebuild::goals(infos);
        let generation =
            self.retry("rebuild", || target.rebuilds().begin(&beginnings, &goals)).await?;
        tracing::info!(connector = %self.spec.name, generation, "rebuilding beside the live generation");
        self.watch.wake();
        Ok(generation)
    }

    /// The live generation serves its readers, and nothing is folded into it.
    pub(super) async fn wait_for_rebuild(
        &self,
        target: &dyn Target,
        (opened, reason): (&Opened, &str),
        cancel: &CancellationToken,
    ) -> Result<SessionEnd> {
        self.set_state(State::Running, Some(reason.to_owned()));
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(SessionEnd::Cancelled),
                () = self.restart.notified() => return Ok(SessionEnd::Again),
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
            }
            let Ok(books) = target.status().await else { continue };
            if books.generation != opened.generation || books.desired == DesiredState::Stopped {
                return Ok(SessionEnd::Again);
            }
            let infos = self.spec.log.partitions().await.unwrap_or_default();
            for stored in &books.positions {
                let at = &stored.partition;
                if let Some(info) = infos.iter().find(|info| info.partition == *at) {
                    let lag = (info.high.0 - stored.position.0).max(0);
                    self.spec.metrics.lag(&at.topic, at.partition).set(lag);
                }
            }
        }
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
        let beginnings = rebuild::beginnings(&self.spec.name, &books, &infos, from_earliest)?;
        let generation = target.rebuild(books.generation, Some(&beginnings)).await?;
        self.restart();
        Ok(generation)
    }

    /// Folds everything again beside the live generation, which serves and consumes until the new one
    /// takes its place; with `from_earliest`, from what the log still has. Returns its number.
    ///
    /// # Errors
    /// When the log has lost its beginning, the target has what a swap would lose, or the books cannot be reached.
    pub async fn rebuild(&self, from_earliest: bool) -> Result<u64> {
        let target = self.opened_target()?;
        let infos = self.spec.log.partitions().await?;
        // The books are readable even where the projection changed and the session refused to run.
        let books = target.status().await?;
        let generation = self.begin_rebuild(target.as_ref(), &books, &infos, from_earliest).await?;
        // One that failed over its changed projection now waits for the rebuild.
        if self.view().state == State::Failed {
            self.restart();
        }
        Ok(generation)
    }

    /// Ends the rebuild under way and drops what it made; its generation, if there was one.
    ///
    /// # Errors
    /// When the books cannot be reached.
    pub async fn cancel_rebuild(&self) -> Result<Option<u64>> {
        let target = self.opened_target()?;
        let cancelled = target.rebuilds().cancel().await?;
        self.watch.wake();
        Ok(cancelled)
    }

    /// Makes the generation that was live before live again, at its own positions. Returns its number.
    ///
    /// # Errors
    /// When none is kept, a rebuild is under way, or the books cannot be reached.
    pub async fn roll_back(&self) -> Result<u64> {
        let target = self.opened_target()?;
        let live = self.retry("rebuild", || target.rebuilds().roll_back()).await?;
        tracing::warn!(connector = %self.spec.name, generation = live, "rolled back");
        self.restart();
        self.watch.wake();
        Ok(live)
    }
}
