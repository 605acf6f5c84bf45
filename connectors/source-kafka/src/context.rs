//! What librdkafka calls back: its log, its errors, its rebalances.

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;

use crate::heard::Heard;

/// The consumer's context: logs go to the worker's log. Rebalances come as events and are handled by
/// the thread, but for the last one, while the consumer is dropped.
#[derive(Default)]
pub(crate) struct Context {
    /// Why its connections failed.
    pub(crate) heard: Heard,
}

/// The consumer of one member.
pub(crate) type Member = BaseConsumer<Context>;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.heard.line(facility, line);
        log(level as i32, facility, line);
    }

    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.heard.line("FAIL", reason);
        tracing::debug!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let done = match Code::from(code) {
            Code::AssignPartitions => consumer.incremental_assign(&TopicPartitionList::new()),
            // While closing, librdkafka takes this for all partitions.
            _ => consumer.incremental_unassign(partitions),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "answering a rebalance while closing");
        }
    }
}

/// A line of librdkafka's own log, at a fitting level.
pub(crate) fn log(level: i32, facility: &str, line: &str) {
    match level {
        // A broker that is away is told once, as an event; its many log lines are for debugging.
        ..=4 => tracing::debug!(target: "librdkafka", facility, "{line}"),
        _ => tracing::trace!(target: "librdkafka", facility, "{line}"),
    }
}
