//! The lag where nothing is fetched: of a paused connector, and of one that no task folds here since it is stopped, has
//! failed or waits.
//!
//! The log tells the ends; the store tells the positions, as seldom as an idle connector asks it ([`Pace`]). What
//! cannot be had is unknown, and no number stands for it. Where several workers are idle, each of them reports.
//!
//! [`Pace`]: crate::pace::Pace

use std::time::Duration;

use foldline_api::error::Result;
use foldline_api::sink::StoredPosition;
use foldline_api::source::{MissingTopic, PartitionInfo, Start};
use tokio_util::sync::CancellationToken;

use super::{Connector, State};
use crate::task::PartitionStatus;

/// How often the log is asked for its ends.
const EVERY: Duration = Duration::from_secs(2);

impl Connector {
    /// Shows the lag where no task can.
    pub(super) async fn watch_lag(&self, cancel: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            match cancel.run_until_cancelled(self.look_at_lag()).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::debug!(%error, "the lag is unknown");
                    self.show_unfolded(Vec::new());
                }
            }
        }
    }

    async fn look_at_lag(&self) -> Result<()> {
        let folds = self.shown().folds;
        let state = self.view().state;
        if folds {
            // Who holds no partition hears of no topic either.
            let waits = state == State::Unassigned;
            let known = self.shown().partitions.is_some_and(|partitions| partitions > 0);
            let misses = !self.shown().missing.is_empty();
            let asks = state == State::Paused || (waits && !known) || misses;
            let infos = if asks { self.survey().await? } else { Vec::new() };
            self.show_ends(&infos);
            let mut shown = self.shown();
            if asks || !waits {
                shown.partitions = waits.then_some(infos.len());
            }
            return Ok(());
        }
        let infos = self.survey().await?;
        let stored = self.stored_positions().await?;
        let place = |info| unfolded(info, &stored, self.spec.start);
        self.show_unfolded(infos.iter().map(place).collect());
        Ok(())
    }

    /// The partitions that there are. Which topics are missing is shown, and that one is not any more.
    async fn survey(&self) -> Result<Vec<PartitionInfo>> {
        let found = self.spec.log.survey().await?;
        self.show_missing(&found.missing);
        Ok(found.partitions)
    }

    /// Shows which listed topics do not exist: nothing of them is folded until they do.
    pub(super) fn show_missing(&self, missing: &[MissingTopic]) {
        let before = std::mem::replace(&mut self.shown().missing, missing.to_vec());
        for topic in missing.iter().filter(|topic| !before.contains(topic)) {
            tracing::warn!("{}", not_there(topic));
        }
        for topic in before.iter().filter(|topic| !missing.contains(topic)) {
            tracing::info!(topic = &*topic.name, "a topic that was missing is there");
        }
    }

    /// The store's positions. An idle connector's look reads them too, and is all that asks then.
    async fn stored_positions(&self) -> Result<Vec<StoredPosition>> {
        let before = self.shown().stored.clone();
        if let Some(stored) = before.filter(|_| self.pace.is_idle()) {
            return Ok(stored);
        }
        let stored = self.opened_target()?.status().await?.positions;
        self.shown().stored = Some(stored.clone());
        Ok(stored)
    }

    /// Tasks fold from here on, or no longer: who reports the lag.
    pub(super) fn set_folds(&self, folds: bool) {
        self.show_unfolded(Vec::new());
        let mut shown = self.shown();
        (shown.folds, shown.stored, shown.partitions) = (folds, None, None);
    }

    /// Tasks that are paused fetch nothing, and so hear of no end.
    fn show_ends(&self, infos: &[PartitionInfo]) {
        for task in &self.shown().tasks {
            let ends = infos.iter().map(|info| (info.partition.clone(), info.high)).collect();
            task.heard(ends, |p| self.spec.metrics.show_lag(&p.partition, p.lag()));
        }
    }

    /// Where no task folds.
    fn show_unfolded(&self, partitions: Vec<PartitionStatus>) {
        let mut shown = self.shown();
        // Tasks began while these were asked for.
        if shown.folds {
            return;
        }
        for gone in shown.unfolded.iter().map(|before| &before.partition) {
            if !partitions.iter().any(|now| now.partition == *gone) {
                self.spec.metrics.forget_lag(&gone.topic, gone.partition);
            }
        }
        partitions.iter().for_each(|p| self.spec.metrics.show_lag(&p.partition, p.lag()));
        shown.unfolded = partitions;
    }
}

/// That nothing of a topic is folded yet.
pub(super) fn not_there(topic: &MissingTopic) -> String {
    format!("{}. It is read from its start as soon as it is there", topic.error().message())
}

/// A partition as the log and the store have it. A position that belongs to another topic of this name tells nothing.
fn unfolded(info: &PartitionInfo, stored: &[StoredPosition], start: Start) -> PartitionStatus {
    let ours = |stored: &&StoredPosition| {
        let other = stored.topic_id.is_some() && info.topic_id.is_some();
        stored.partition == info.partition && !(other && stored.topic_id != info.topic_id)
    };
    let high = Some(info.high);
    let (position, end) = match (stored.iter().find(ours), start) {
        (Some(stored), _) => (stored.position.max(info.low), high),
        (None, Start::Earliest) => (info.low, high),
        (None, Start::Latest) => (info.high, high),
        // Where that is in the log nobody has asked yet.
        (None, Start::Timestamp(_)) => (info.low, None),
    };
    PartitionStatus { partition: info.partition.clone(), position, end }
}

#[cfg(test)]
mod tests {
    use foldline_api::record::{Position, TopicPartition};

    use super::*;

    #[test]
    fn what_is_not_folded_is_counted_from_the_position_that_belongs_to_this_topic() {
        let partition = TopicPartition::new("events", 0);
        let id = |id: &str| Some(id.to_owned());
        let info = PartitionInfo {
            partition: partition.clone(),
            topic_id: id("new"),
            low: Position(10),
            high: Position(30),
        };
        let stored = |topic_id, position| StoredPosition {
            partition: partition.clone(),
            topic_id,
            beginning: Position(0),
            position: Position(position),
            epoch: 1,
        };
        let lag = |stored: &[StoredPosition], start| unfolded(&info, stored, start).lag();
        assert_eq!(lag(&[stored(id("new"), 25)], Start::Earliest), Some(5));
        assert_eq!(lag(&[stored(None, 25)], Start::Earliest), Some(5));
        assert_eq!(
            lag(&[stored(id("new"), 3)], Start::Latest),
            Some(20),
            "the log lost the others"
        );
        assert_eq!(lag(&[stored(id("old"), 25)], Start::Earliest), Some(20));
        assert_eq!(lag(&[], Start::Latest), Some(0));
        assert_eq!(lag(&[], Start::Timestamp(5)), None);
        assert_eq!(lag(&[stored(id("new"), 40)], Start::Earliest), Some(0));
    }
}
