//! What a restore from a backup left is taken over: `foldline adopt`.
//!
//! The worker's part is what no store can tell: that nobody folds, and that the log is the one that was folded. What
//! a copy must be is decided in `foldline_api::lifecycle`.

use std::fmt;
use std::sync::Arc;

use foldline_api::error::Result;
use foldline_api::lifecycle::LogNow;
use foldline_api::parked::Which;
use foldline_api::sink::{Adopted, DesiredState, Opened};
use foldline_api::source::PartitionInfo;

use crate::connector_spec::ConnectorSpec;

/// What was taken over, to be printed.
#[derive(Debug)]
pub(crate) struct Report {
    connector: String,
    adopted: Adopted,
    books: Opened,
    parked: usize,
    infos: Vec<PartitionInfo>,
}

/// Takes the target of a connector over as it stands.
///
/// # Errors
/// Config errors name what stands against it and the way out; nothing is changed then.
pub(crate) async fn adopt(spec: &ConnectorSpec) -> Result<Report> {
    let target = (spec.target)(spec.log.identity().await?)?;
    let infos = spec.log.partitions().await?;
    let mut topics: Vec<(Arc<str>, Option<String>)> = infos
        .iter()
        .map(|info| (Arc::clone(&info.partition.topic), info.topic_id.clone()))
        .collect();
    topics.dedup();
    let members = spec.log.members().await? + spec.rebuild_log.members().await?;
    let adopted = target.adopt(&LogNow { members, topics }).await?;
    let books = target.status().await?;
    let parked = target.parking().parked(adopted.generation, &Which::default()).await?.len();
    Ok(Report { connector: spec.name.clone(), adopted, books, parked, infos })
}

impl Report {
    /// Where the log no longer has, or does not have yet, what a position names.
    fn gaps(&self) -> Vec<String> {
        let gap = |stored: &foldline_api::sink::StoredPosition| {
            let info = self.infos.iter().find(|info| info.partition == stored.partition)?;
            let (partition, at) = (&stored.partition, stored.position);
            if at < info.low {
                return Some(format!(
                    "{partition} stands at {at}, and its log begins at {}: retention took what lies between, and the \
                     connector will stop there. Restore a newer backup, or leave it out: `foldline stop {1}`, \
                     `foldline offsets {1} --skip-to {partition}={0}`",
                    info.low, self.connector
                ));
            }
            (at > info.high).then(|| {
                format!(
                    "{partition} stands at {at}, and its log ends at {}: it lost events, and the connector will stop \
                     there",
                    info.high
                )
            })
        };
        self.books.positions.iter().filter_map(gap).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Adopted { generation, copied, has_rows, beside, notices } = &self.adopted;
        let connector = &self.connector;
        let took = match (copied, has_rows) {
            (true, true) => format!("took generation {generation} over, with its rows"),
            (true, false) => format!("took generation {generation} over, which has no rows"),
            (false, _) => {
                format!(
                    "generation {generation} is the one that its books mean, there was nothing to take over"
                )
            }
        };
        writeln!(f, "{connector}: {took}")?;
        for stored in &self.books.positions {
            let info = self.infos.iter().find(|info| info.partition == stored.partition);
            let behind = info.map_or_else(String::new, |info| {
                format!(", {} to fold", (info.high.0 - stored.position.0).max(0))
            });
            writeln!(f, "{} at {}{behind}", stored.partition, stored.position)?;
        }
        writeln!(f, "parked events: {}", self.parked)?;
        let numbers: Vec<String> = beside.iter().map(u64::to_string).collect();
        let numbers = if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") };
        writeln!(f, "other generations: {numbers}")?;
        for warning in notices.iter().cloned().chain(self.gaps()) {
            writeln!(f, "warning: {warning}")?;
        }
        match self.books.desired {
            DesiredState::Running => write!(
                f,
                "`foldline run` goes on from there (`foldline restart {connector}` where a worker runs that had failed)"
            ),
            _ => write!(
                f,
                "it is stopped or paused, as it was left: `foldline run`, then `foldline resume {connector}`"
            ),
        }
    }
}
