//! What a connector is made of, and what each of its tasks has of it.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::error::Result;
use foldline_api::sink::Target;
use foldline_api::source::{DeadLetters, Log, Start};
use foldline_language::projection::Projection;

use crate::decoding::Decoders;
use crate::expiry::Expiry;
use crate::metrics::ConnectorMetrics;
use crate::policy::OnBadRecord;
use crate::task::Limits;

/// What a connector is made of; made once from the config.
pub(crate) struct ConnectorSpec {
    pub(crate) name: String,
    /// Where the config has it: file, line and key path.
    pub(crate) place: String,
    pub(crate) group: String,
    /// The topics that it reads, for a sentence.
    pub(crate) topics: String,
    pub(crate) tasks_max: usize,
    pub(crate) start: Start,
    pub(crate) limits: Limits,
    pub(crate) on_bad_record: OnBadRecord,
    /// More bad records than this in an hour pause the connector.
    pub(crate) errors_max: Option<u64>,
    /// More events than this parked in an hour do, too.
    pub(crate) parked_max: u64,
    pub(crate) projection: Arc<Projection>,
    pub(crate) decoders: Arc<dyn Decoders>,
    pub(crate) log: Arc<dyn Log>,
    /// The same log for the group that folds a rebuild.
    pub(crate) rebuild_log: Arc<dyn Log>,
    /// So many generations that were live are kept for a rollback.
    pub(crate) keep_generations: usize,
    /// How long a swap waits for transactions that are open since before the end of the load.
    pub(crate) snapshot_wait: Duration,
    /// How often it asks its store while it is idle; none where it does not.
    pub(crate) idle_poll_interval: Option<Duration>,
    /// Makes the target once the log's identity is known.
    pub(crate) target: Box<dyn Fn(String) -> Result<Arc<dyn Target>> + Send + Sync>,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    /// Makes the log of the topic that they go to.
    pub(crate) letters: Box<dyn Fn() -> Result<Arc<dyn Log>> + Send + Sync>,
    pub(crate) metrics: ConnectorMetrics,
    /// Which rows the clock deletes; none where the projection's do not expire.
    pub(crate) expiry: Option<Arc<Expiry>>,
    /// Bytes for the queues and the caches of all its tasks.
    pub(crate) memory: usize,
}

/// One batch's records take at most this part of a task's memory. What is folded and written at once should fit into a
/// processor's cache; while a write is under way the next batch grows anyway.
const IN_FLIGHT: usize = 128;

/// What one task has of its connector's memory.
pub(crate) struct Share {
    /// Bytes for what was fetched and not taken in.
    pub(crate) fetched: usize,
    /// Bytes for states.
    pub(crate) cache: usize,
    /// What bounds a batch.
    pub(crate) limits: Limits,
}

impl ConnectorSpec {
    /// How many tasks there are for so many partitions.
    pub(crate) fn tasks(&self, partitions: usize) -> usize {
        self.tasks_max.min(partitions).max(1)
    }

    /// The memory of one of `tasks` tasks: a twelfth for what was fetched, half for states. The rest is in
    /// flight: what waits, decoded, folded, being written and encoded, a batch takes some ten times its
    /// records.
    pub(crate) fn share(&self, tasks: usize) -> Share {
        let share = self.memory / tasks;
        let bytes = self.limits.bytes.min(share / IN_FLIGHT);
        let limits = Limits { bytes, ..self.limits };
        Share { fetched: share / 12, cache: share / 2, limits }
    }
}
