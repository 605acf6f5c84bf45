//! The ends of the log that a swap waits for, where readers may see rows of events behind the positions.

use foldline_api::error::Result;
use foldline_api::rebuild::{Build, Rebuilds};
use foldline_api::record::{Position, TopicPartition};

use crate::connector_spec::ConnectorSpec;
use crate::topic_ids::folded;

/// The log's ends as they were when nobody wrote to the held generation any more: none of its rows is of a later event. With the
/// build that holds it, since what another one waited for says nothing of this one.
#[derive(Debug, Default)]
pub(super) struct Ends(Option<(u64, Vec<(TopicPartition, Position)>)>);

impl Ends {
    /// Where the log ends now, if readers may see that much of it.
    async fn now(
        spec: &ConnectorSpec,
        rebuilds: &dyn Rebuilds,
        build: &Build,
    ) -> Result<Vec<(TopicPartition, Position)>> {
        if !rebuilds.rows_precede_positions() {
            return Ok(Vec::new());
        }
        let found = spec.rebuild_log.survey().await?;
        Ok(super::goals(&found.of_all(folded(&build.positions))?))
    }

    /// How many offsets a build is behind what readers may see now. A hold is begun only where that is little: it would
    /// not be reached in time.
    pub(super) async fn behind(
        spec: &ConnectorSpec,
        rebuilds: &dyn Rebuilds,
        build: &Build,
    ) -> Result<i64> {
        Ok(build.behind_log(&Self::now(spec, rebuilds, build).await?))
    }

    /// How many offsets a build is behind what readers may see of the generation that it holds.
    pub(super) async fn missing(
        &mut self,
        spec: &ConnectorSpec,
        rebuilds: &dyn Rebuilds,
        build: &Build,
    ) -> Result<i64> {
        let known = self.0.take().filter(|(generation, _)| *generation == build.generation);
        let (_, ends) = match known {
            Some(known) => self.0.insert(known),
            None => {
                rebuilds.fence(build.generation).await?;
                // Only now: what was written before is of events before this end.
                self.0.insert((build.generation, Self::now(spec, rebuilds, build).await?))
            }
        };
        Ok(build.behind_log(ends))
    }
}
