//! A bounded part of the log, folded again beside the running tasks: what `verify` and `explain` stand on.
//!
//! [`Merge`] reads given stretches of the partitions, merged by the records' timestamps (rule 16: the
//! best that can be done for keys that several partitions feed). [`Fold`] folds them with the task's
//! projection and decoders into [`States`], which spill to a temporary file when they outgrow their
//! budget. Both only ever go on: first to some positions, then to later ones.

mod fold;
mod merge;
mod placement;
mod states;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use foldline_api::error::{Error, Result};
use foldline_api::parked::{Parked, Which};
use foldline_api::sink::{Books, StoredPosition, StoredVerdict, Target};
use foldline_api::source::{Log, PartitionInfo, Stretch};
use foldline_language::projection::Projection;

use crate::decoding::Decoders;
use crate::policy::OnBadRecord;
use crate::topic_ids::{folded, recreated, same_topics};

pub(crate) use fold::{Fold, Folded, Outcome};
pub(crate) use merge::Merge;
pub(crate) use placement::{Placement, place};
pub(crate) use states::State;

/// What a replay needs of its connector; cheap to clone.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) connector: String,
    pub(crate) projection: Arc<Projection>,
    pub(crate) decoders: Arc<dyn Decoders>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) target: Arc<dyn Target>,
    /// What becomes of bad records, as the config says.
    pub(crate) on_bad_record: OnBadRecord,
    /// Bytes for records read ahead and for states before they spill.
    pub(crate) memory: usize,
}

impl Parts {
    /// A merge of nothing yet, and a fold of nothing yet.
    pub(crate) fn start(&self) -> Result<(Merge, Fold)> {
        let merge = Merge::new(self.log.reader()?, self.memory / 2);
        let (projection, decoders) = (Arc::clone(&self.projection), Arc::clone(&self.decoders));
        Ok((merge, Fold::new(projection, decoders, self.memory / 2)))
    }

    /// What is parked, as verdicts: a parked event is in no row.
    pub(crate) async fn parked(&self, generation: u64) -> Result<Vec<StoredVerdict>> {
        let parked = self.target.parking().parked(generation, &Which::default()).await?;
        let verdict = |Parked { partition, offset, reason, .. }| {
            let reason =
                reason.unwrap_or_else(|| "waits behind a parked event of its key".to_owned());
            StoredVerdict::new(partition, offset, reason, None)
        };
        Ok(parked.into_iter().map(verdict).collect())
    }

    /// The log's partitions, once it is sure that it still has all that was folded.
    ///
    /// # Errors
    /// A config error where a topic was made anew, retention took the fold's beginning, or another
    /// projection folded a part of the rows.
    pub(crate) async fn check_log(&self, books: &Books) -> Result<Vec<PartitionInfo>> {
        if books.continued {
            return Err(Error::config(format!(
                "generation {} of {:?} was begun by another projection and carried on by this one (on_change \
                 = \"continue\"): its rows are not what this projection alone makes of the log; `foldline \
                 rebuild {}` makes them so",
                books.generation, self.connector, self.connector
            )));
        }
        let infos = self.log.survey().await?.of_all(folded(&books.positions))?;
        for position in &books.positions {
            let info = infos.iter().find(|info| info.partition == position.partition);
            let Some(info) = info else { continue };
            if let (Some(old), Some(new)) = (&position.topic_id, &info.topic_id)
                && old != new
            {
                return Err(recreated(&position.partition.topic));
            }
            if info.low > position.beginning && position.position > position.beginning {
                return Err(Error::config(format!(
                    "{} now begins at offset {}, and the fold began at {}: what retention took cannot be \
                     folded again, so {:?} cannot be checked against the log",
                    position.partition, info.low, position.beginning, self.connector
                )));
            }
        }
        Ok(infos)
    }
}

impl Parts {
    /// Asks, after records were read, whether they were of the topics that the positions belong to.
    ///
    /// # Errors
    /// A config error where a topic was made anew meanwhile.
    pub(crate) async fn same_topics(&self, positions: &[StoredPosition]) -> Result<()> {
        let known = positions.iter().filter_map(|position| {
            Some((Arc::clone(&position.partition.topic), position.topic_id.clone()?))
        });
        same_topics(&*self.log, &known.collect()).await
    }
}

/// From the fold's beginnings to the positions.
pub(crate) fn whole(stored: &[StoredPosition]) -> Vec<Stretch> {
    let stretch = |stored: &StoredPosition| Stretch {
        partition: stored.partition.clone(),
        from: stored.beginning,
        to: stored.position,
    };
    stored.iter().map(stretch).collect()
}
