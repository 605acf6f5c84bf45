//! Rebuilds of a connector: how they begin and end, and what is shown while only readers are served.

use std::time::Duration;

use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::rebuild::By;
use foldline_api::sink::{DesiredState, Opened, Target, Waits};
use foldline_api::source::PartitionInfo;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::session::{FOLLOW_EVERY, SessionEnd};
use super::{Connector, State};
use crate::pace::Looks;
use crate::rebuild;
use crate::topic_ids::folded;

/// How often a worker that waits to be replaced looks whether it still has to.
const REPLACED_EVERY: Duration = Duration::from_secs(10);

impl Connector {
    /// Begins a rebuild beside the live generation, or finds the one under way; its generation.
    pub(super) async fn begin_rebuild(
        &self,
        target: &dyn Target,
        books: &Opened,
        infos: &[PartitionInfo],
        (by, from_earliest): (By, bool),
    ) -> Result<u64> {
        let beginnings = rebuild::beginnings(&self.spec.name, books, infos, from_earliest)?;
        let goals = rebuild::goals(infos);
        let generation =
            self.retry("rebuild", || target.rebuilds().begin(by, &beginnings, &goals)).await?;
        tracing::info!(connector = %self.spec.name, generation, "rebuilding beside the live generation");
        self.watch.wake();
        self.pace.wake();
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
        let mut looks = Looks::new(&self.pace);
        loop {
            let next = Instant::now() + FOLLOW_EVERY;
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(SessionEnd::Cancelled),
                () = self.restart.notified() => return Ok(SessionEnd::Again),
                () = looks.due(next) => {}
            }
            let Ok(books) = target.status().await else { continue };
            if books.generation != opened.generation || books.desired == DesiredState::Stopped {
                return Ok(SessionEnd::Again);
            }
        }
    }

    /// Another config's projection folds the target, or is about to: this worker is to be replaced.
    pub(super) async fn wait_to_be_replaced(
        &self,
        target: &dyn Target,
        reason: &str,
        cancel: &CancellationToken,
    ) -> Result<SessionEnd> {
        tracing::warn!("{reason}");
        let mut reason = reason.to_owned();
        let mut looks = Looks::new(&self.pace);
        loop {
            let next = Instant::now() + REPLACED_EVERY;
            self.set_state(State::Unassigned, Some(reason.clone()));
            // It is meant to be idle: nothing is to be alerted of.
            self.ready.send_replace(true);
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(SessionEnd::Cancelled),
                () = self.restart.notified() => return Ok(SessionEnd::Again),
                () = looks.due(next) => {}
            }
            match target.open().await {
                Ok(Opened { waits: Some(Waits::Replaced(now)), desired, generation, .. })
                    if desired != DesiredState::Stopped =>
                {
                    self.shown().generation = generation;
                    reason = now;
                }
                Err(error) if error.class() == ErrorClass::Retriable => {}
                Ok(_) | Err(_) => return Ok(SessionEnd::Again),
            }
        }
    }

    /// Empties the target and folds everything again; with `from_earliest`, from what the log still
    /// has. Returns the new generation. `expected` is the live one that whoever asks has seen: where another one is
    /// live by now, it was emptied already, or someone did something else, and nothing is done.
    ///
    /// # Errors
    /// When the log has lost its beginning, another generation is live, or the books cannot be reached.
    pub async fn rebuild_in_place(
        &self,
        from_earliest: bool,
        expected: Option<u64>,
    ) -> Result<u64> {
        let target = self.opened_target()?;
        // The books are readable even where the projection changed and the session refused to run.
        let (books, found) = (target.status().await?, self.spec.log.survey().await?);
        self.expect_live(expected.unwrap_or(books.generation), books.generation)?;
        let infos = found.of_all(folded(&books.positions))?;
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
        // The books are readable even where the projection changed and the session refused to run.
        let (books, found) = (target.status().await?, self.spec.log.survey().await?);
        let infos = found.of_all(folded(&books.positions))?;
        let generation = self
            .begin_rebuild(target.as_ref(), &books, &infos, (By::Operator, from_earliest))
            .await?;
        // One that failed over its changed projection, or waits to be replaced, now waits for the rebuild.
        if matches!(self.view().state, State::Failed | State::Unassigned) {
            self.restart();
        }
        Ok(generation)
    }

    /// Ends the rebuild under way and drops what it made; its generation, if there was one. `expected` is the one that
    /// whoever asks has seen: another one is left alone.
    ///
    /// # Errors
    /// When another one is under way, or the books cannot be reached.
    pub async fn cancel_rebuild(&self, expected: Option<u64>) -> Result<Option<u64>> {
        let target = self.opened_target()?;
        let cancelled = target.rebuilds().cancel(expected).await?;
        self.watch.wake();
        self.pace.wake();
        Ok(cancelled)
    }

    /// Makes the generation that was live before live again, at its own positions. Returns the number of the live
    /// one. `from` is the live one that whoever asks has seen, else what this worker shows: where another one is live
    /// by now, someone was faster, and once more would go forth again.
    ///
    /// # Errors
    /// When none is kept, a rebuild is under way, another generation is live, or the books cannot be reached.
    pub async fn roll_back(&self, from: Option<u64>) -> Result<u64> {
        let target = self.opened_target()?;
        let books = target.status().await?.generation;
        let shown = Some(self.view().generation).filter(|shown| *shown > 0);
        let from = from.or(shown).unwrap_or(books);
        self.expect_live(from, books)?;
        let live = self.retry("rebuild", || target.rebuilds().roll_back(Some(from))).await?;
        tracing::warn!(connector = %self.spec.name, generation = live, "rolled back");
        self.restart();
        self.watch.wake();
        Ok(live)
    }

    /// A command is about the generation that whoever gives it has seen.
    fn expect_live(&self, seen: u64, live: u64) -> Result<()> {
        if seen == live {
            return Ok(());
        }
        // What is shown from here on is what the next command carries.
        self.shown().generation = live;
        Err(Error::fenced(format!(
            "generation {seen} of {} is no longer live, {live} is: look at its status, and ask again",
            self.spec.name
        )))
    }
}
