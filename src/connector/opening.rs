//! How a session begins: open the target, record or check where the fold stands, look at the group.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use foldline_api::error::Result;
use foldline_api::rebuild::By;
use foldline_api::record::TopicPartition;
use foldline_api::sink::{Beginning, Configured, Opened, Target, Waits};
use foldline_api::source::{Commit, PartitionInfo};
use tokio::time::Instant;

use super::Connector;
use crate::reset::{self, Verdict};
use crate::topic_ids::{folded, recreated};

/// What the log said before the store was open counts for so long.
const INFOS_FRESH: Duration = Duration::from_secs(5);

impl Connector {
    /// Opens the target and looks at the group; retries outages for ever.
    pub(super) async fn open(&self) -> Result<(Arc<dyn Target>, Opened, Vec<PartitionInfo>)> {
        let log = &self.spec.log;
        let began = Instant::now();
        let ((target, opened), mut found) = if log.describes_topics() {
            let (target, opened) = self.open_target().await?;
            self.settle_topics(&opened).await?;
            ((target, opened), self.retry("open", || log.survey()).await?)
        } else {
            // The log and the store are asked at once: a start is a chain of round trips.
            tokio::try_join!(self.open_target(), self.retry("open", || log.survey()))?
        };
        if began.elapsed() > INFOS_FRESH {
            // The store kept it waiting: the log may be another by now.
            found = self.retry("open", || log.survey()).await?;
        }
        self.show_missing(&found.missing);
        let infos = found.of_all(folded(&opened.positions))?;
        self.show_generation(opened.generation);
        match &opened.waits {
            Some(Waits::Rebuild(_)) => {
                check_topics(&opened, &infos)?;
                let asked = (By::Deploy, false);
                self.begin_rebuild(target.as_ref(), &opened, &infos, asked).await?;
            }
            Some(Waits::Replaced(_)) => {}
            None if opened.positions.is_empty() => {
                self.begin(target.as_ref(), &opened, &infos).await?;
            }
            None => {
                check_topics(&opened, &infos)?;
                self.look_at_group(target.as_ref(), &opened, &infos).await?;
            }
        }
        if opened.waits.is_none() && self.configured.get().is_none() {
            self.configure(target.as_ref(), &opened, &infos).await?;
        }
        let holes = self.retry("open", || target.holes().holes(opened.generation)).await?;
        self.shown().holes = holes;
        Ok((target, opened, infos))
    }

    /// Makes the topics that the config describes, once it is known which of them were folded.
    async fn settle_topics(&self, opened: &Opened) -> Result<()> {
        let topics = opened.positions.iter().map(|stored| Arc::clone(&stored.partition.topic));
        let held: Vec<Arc<str>> = topics.collect();
        let differences = self.retry("open", || self.spec.log.settle_topics(&held)).await?;
        for difference in differences {
            tracing::warn!("{difference}");
        }
        Ok(())
    }

    fn show_generation(&self, generation: u64) {
        self.spec.metrics.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.shown().generation = generation;
    }

    /// Makes the target of the log that is there, and opens it.
    async fn open_target(&self) -> Result<(Arc<dyn Target>, Opened)> {
        let log = &self.spec.log;
        let identity = self.retry("open", || log.identity()).await?;
        self.identity.get_or_init(|| identity.clone());
        let target = (self.spec.target)(identity)?;
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&target));
        let opened = match self.retry("open", || target.open()).await {
            Ok(opened) => opened,
            Err(error) => {
                // Another generation may be live than the one that this worker folded last.
                if let Ok((generation, _)) = target.live().await {
                    self.show_generation(generation);
                }
                return Err(error);
            }
        };
        for notice in &opened.notices {
            tracing::info!("{notice}");
        }
        Ok((target, opened))
    }

    /// Makes the target what the config says of it beside the projection, once in this worker's life.
    async fn configure(
        &self,
        target: &dyn Target,
        opened: &Opened,
        infos: &[PartitionInfo],
    ) -> Result<()> {
        match self.retry("open", || target.configure()).await? {
            Configured::AsItIs => {}
            Configured::Changed(notice) => tracing::warn!("{notice}"),
            Configured::Outdated(_) if opened.positions.is_empty() => {}
            Configured::Outdated(reason) => {
                tracing::warn!("{reason}: it is rebuilt beside, as on_change says");
                self.begin_rebuild(target, opened, infos, (By::Deploy, false)).await?;
            }
        }
        self.configured.get_or_init(|| ());
        Ok(())
    }

    /// The first start: where the fold begins in every partition, also in those of other workers.
    async fn begin(
        &self,
        target: &dyn Target,
        opened: &Opened,
        infos: &[PartitionInfo],
    ) -> Result<()> {
        let partitions: Vec<TopicPartition> = infos.iter().map(|i| i.partition.clone()).collect();
        let starts =
            self.retry("open", || self.spec.log.find(&partitions, self.spec.start)).await?;
        let beginnings: Vec<Beginning> = infos
            .iter()
            .zip(starts)
            .map(|(info, position)| Beginning {
                partition: info.partition.clone(),
                topic_id: info.topic_id.clone(),
                position,
            })
            .collect();
        self.retry("open", || target.begin(opened.generation, &beginnings)).await
    }

    /// Tells a reset from a missing group and from someone else's offsets (rule 12).
    async fn look_at_group(
        &self,
        target: &dyn Target,
        opened: &Opened,
        infos: &[PartitionInfo],
    ) -> Result<()> {
        let committed = self.retry("open", || self.spec.log.committed()).await?;
        let name = &self.spec.name;
        match reset::judge(&committed, &opened.positions, infos) {
            Verdict::Ours => {}
            Verdict::Missing => tracing::warn!(
                group = %self.spec.group,
                "the group has no committed offsets (expired or deleted): resuming from the sink's positions"
            ),
            Verdict::Foreign => tracing::warn!(
                group = %self.spec.group,
                "someone else set offsets of this group to somewhere in the log: not obeyed, since a fold \
                 that starts there would be wrong. Going on from the sink's positions. To fold everything \
                 again: `foldline rebuild {name}`, or reset the whole group to the earliest offset"
            ),
            Verdict::Reset => {
                tracing::warn!(
                    group = %self.spec.group,
                    "the group was reset to the beginning: folding everything again"
                );
                self.begin_rebuild(target, opened, infos, (By::Operator, false)).await?;
                self.mark_group(opened, infos).await;
            }
        }
        Ok(())
    }

    /// Commits marked positions for all partitions, so that no second start sees the reset again.
    async fn mark_group(&self, opened: &Opened, infos: &[PartitionInfo]) {
        let commits: Vec<Commit> = opened
            .positions
            .iter()
            .map(|stored| {
                let info = infos.iter().find(|info| info.partition == stored.partition);
                let topic_id = info.and_then(|info| info.topic_id.as_deref());
                Commit {
                    partition: stored.partition.clone(),
                    position: stored.position,
                    metadata: reset::mark(topic_id, opened.generation),
                }
            })
            .collect();
        // Refused while members live elsewhere; their commits carry the mark then.
        if let Err(error) = self.spec.log.commit(&commits).await {
            tracing::info!(%error, "marking the group is left to its members");
        }
    }
}

/// Another topic id stops the connector: a position names its topic's life (rule 2).
fn check_topics(opened: &Opened, infos: &[PartitionInfo]) -> Result<()> {
    for stored in &opened.positions {
        let info = infos.iter().find(|info| info.partition == stored.partition);
        if let (Some(old), Some(new)) =
            (&stored.topic_id, info.and_then(|info| info.topic_id.as_ref()))
            && old != new
        {
            return Err(recreated(&stored.partition.topic));
        }
    }
    Ok(())
}
