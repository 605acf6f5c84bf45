//! One consuming member of the group.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::error::{Error, Result};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::source::{Committer, Source, SourceEvent, Wanted};
use rdkafka::ClientConfig;
use tokio::sync::oneshot;

use crate::commit::KafkaCommitter;
use crate::config::{GroupProtocol, KafkaConfig};
use crate::consumer::{Ends, PollState, Poller};
use crate::context::{Context, Member};
use crate::error::from_kafka;
use crate::native::EventQueue;
use crate::queue::Inbox;
use crate::topics::TopicFilter;

/// How long `close` waits for the consumer to leave its group.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// A member: its thread polls, this is the task's end of it.
pub(crate) struct KafkaSource {
    inbox: Arc<Inbox>,
    /// To wake the thread. It keeps the consumer alive, so it goes first when the source closes.
    queue: Option<Arc<EventQueue<Context>>>,
    committer: Arc<KafkaCommitter>,
    ends: Ends,
    left: Option<oneshot::Receiver<()>>,
}

impl KafkaSource {
    /// Starts the thread. Half of `memory` is for its queue, half for librdkafka's prefetch.
    pub(crate) fn start(
        config: &KafkaConfig,
        topics: TopicFilter,
        task: u32,
        memory: usize,
    ) -> Result<Self> {
        let client: ClientConfig = config.member(task, memory / 2);
        let consumer: Member = client
            .create_with_context(Context::default())
            .map_err(|error| from_kafka("the Kafka consumer", &error))?;
        let consumer = Arc::new(consumer);
        let queue = EventQueue::of(&consumer)
            .map(Arc::new)
            .ok_or_else(|| Error::config("the Kafka consumer has no group"))?;
        let inbox = Arc::new(Inbox::new(memory / 2));
        let ends = Ends::default();
        let (leaving, left) = oneshot::channel();
        let refused = Arc::new(AtomicBool::new(false));
        let committer = Arc::new(KafkaCommitter::new(&consumer, Arc::clone(&refused)));
        let millis = |name, default| Duration::from_millis(config.number(name).unwrap_or(default));
        let poller = Poller {
            queue: Arc::clone(&queue),
            consumer,
            inbox: Arc::clone(&inbox),
            config: config.clone(),
            topics,
            ends: Arc::clone(&ends),
            refused,
            max_poll: millis("max.poll.interval.ms", 300_000),
            refresh: millis("topic.metadata.refresh.interval.ms", 10_000),
            group: config.group.clone(),
            is_classic: config.group_protocol == GroupProtocol::Classic,
            is_static: config.group_instance_id.is_some(),
            state: PollState::default(),
        };
        // What the thread logs is the task's.
        let span = tracing::Span::current();
        std::thread::Builder::new()
            .name(format!("kafka-{task}"))
            .spawn(move || {
                span.in_scope(|| poller.run());
                // The receiver is gone where nobody waits.
                let _ = leaving.send(());
            })
            .map_err(|e| Error::retriable("no thread for the Kafka consumer").with_source(e))?;
        Ok(KafkaSource { inbox, queue: Some(queue), committer, ends, left: Some(left) })
    }

    fn wake(&self) {
        if let Some(queue) = &self.queue {
            queue.wake();
        }
    }

    /// Sends the thread home.
    fn end(&mut self) {
        // First: the thread must be the last to hold the consumer, or it would be dropped here.
        if let Some(queue) = self.queue.take() {
            queue.wake();
        }
        self.inbox.close();
    }
}

#[async_trait]
impl Source for KafkaSource {
    async fn next(&mut self, wanted: Wanted) -> Result<SourceEvent> {
        self.inbox.next(wanted).await
    }

    fn start(&mut self, from: &[(TopicPartition, Position)]) -> Result<()> {
        self.inbox.start(from);
        self.wake();
        Ok(())
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.inbox.release(partitions);
        self.wake();
        Ok(())
    }

    fn committer(&self) -> Arc<dyn Committer> {
        Arc::clone(&self.committer) as Arc<dyn Committer>
    }

    fn ends(&self) -> Vec<(TopicPartition, Position)> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn close(mut self: Box<Self>) {
        self.end();
        let Some(left) = self.left.take() else { return };
        if tokio::time::timeout(CLOSE_TIMEOUT, left).await.is_err() {
            tracing::warn!("the Kafka consumer did not leave its group in time; it is let go");
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.end();
    }
}
