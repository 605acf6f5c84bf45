//! Reads stretches of partitions beside the group, one partition at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use foldline_api::error::{Error, Result};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::source::{Chunk, Reader};
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::burst::Burst;
use crate::config::KafkaConfig;
use crate::consumer::{Context, Member, log};
use crate::error::{class, from_code, from_kafka};
use crate::native::{Event, EventQueue, Failure, list};

const POLL: Duration = Duration::from_millis(100);
/// So long nothing may come before the read is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// A consumer that is assigned by hand. It works on the threads where waiting is allowed.
pub(crate) struct KafkaReader {
    config: KafkaConfig,
    /// None before the first read, and after one that was cut off.
    hand: Option<Hand>,
}

impl KafkaReader {
    pub(crate) fn new(config: &KafkaConfig) -> Self {
        KafkaReader { config: config.clone(), hand: None }
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        // Closing a consumer waits for its threads.
        if let (Some(hand), Ok(runtime)) = (self.hand.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn_blocking(move || drop(hand));
        }
    }
}

#[async_trait]
impl Reader for KafkaReader {
    async fn read(
        &mut self,
        partition: &TopicPartition,
        from: Position,
        to: Position,
        bytes: usize,
    ) -> Result<Chunk> {
        if from >= to {
            return Ok(Chunk { records: Vec::new(), next: from });
        }
        let (config, hand, partition) = (self.config.clone(), self.hand.take(), partition.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut hand = match hand {
                Some(hand) => hand,
                None => Hand::new(&config, bytes)?,
            };
            let chunk = hand.read(&partition, from, to, bytes)?;
            Ok((hand, chunk))
        });
        let read: Result<(Hand, Chunk)> =
            read.await.map_err(|e| Error::retriable("a read was abandoned").with_source(e))?;
        let (hand, chunk) = read?;
        self.hand = Some(hand);
        Ok(chunk)
    }
}

struct Hand {
    // Before the consumer: its handle must be gone when the consumer is.
    queue: EventQueue<Context>,
    consumer: Arc<Member>,
    /// What the consumer reads, and the next offset that was not taken from it.
    at: Option<(TopicPartition, Position)>,
}

impl Hand {
    fn new(config: &KafkaConfig, bytes: usize) -> Result<Self> {
        let consumer: Member = config
            .reading(bytes)
            .create_with_context::<_, BaseConsumer<Context>>(Context)
            .map_err(|error| from_kafka("the Kafka consumer", &error))?;
        let consumer = Arc::new(consumer);
        let queue = EventQueue::of(&consumer)
            .ok_or_else(|| Error::config("the Kafka consumer has no queue"))?;
        Ok(Hand { queue, consumer, at: None })
    }

    fn read(
        &mut self,
        partition: &TopicPartition,
        from: Position,
        to: Position,
        bytes: usize,
    ) -> Result<Chunk> {
        if self.at.take().is_none_or(|(at, next)| (&at, next) != (partition, from)) {
            let assign = list([(partition, Offset::Offset(from.0))]);
            let assigned = self.consumer.assign(&assign);
            assigned.map_err(|e| from_kafka(format!("reading `{partition}`"), &e))?;
        }
        let (mut burst, mut size, mut next) = (Burst::default(), 0, from);
        let mut heard = Instant::now();
        while next < to && size < bytes.max(1) {
            match self.queue.poll(POLL) {
                Some(Event::Record(record)) => {
                    let same = record.partition() == partition.partition
                        && record.topic() == *partition.topic;
                    if !same || record.offset() < next.0 {
                        continue;
                    }
                    heard = Instant::now();
                    if record.offset() >= to.0 {
                        // It was taken from the consumer: the next read begins anew.
                        return Ok(Chunk { records: burst.take(), next: to });
                    }
                    size += record.key().map_or(0, <[u8]>::len);
                    size += record.value().map_or(0, <[u8]>::len) + 64;
                    next = Position(record.offset() + 1);
                    burst.push(partition, &record);
                }
                Some(Event::End(of, at)) if of == *partition && at >= to => {
                    return Ok(Chunk { records: burst.take(), next: to });
                }
                Some(Event::Failed(failure)) => {
                    if let Some(error) = self.judge(&failure, partition, from) {
                        return Err(error);
                    }
                }
                Some(Event::Log(level, facility, line)) => log(level, &facility, &line),
                Some(_) | None => {}
            }
            if heard.elapsed() > SILENCE {
                return Err(Error::retriable(format!(
                    "`{partition}` gave nothing between {next} and {to} for {} s",
                    SILENCE.as_secs()
                )));
            }
        }
        self.at = Some((partition.clone(), next));
        Ok(Chunk { records: burst.take(), next })
    }

    /// The error that ends a read; none where librdkafka goes on by itself.
    fn judge(&self, failure: &Failure, of: &TopicPartition, from: Position) -> Option<Error> {
        match failure.code {
            Code::AutoOffsetReset | Code::OffsetOutOfRange => {
                let has = self.consumer.fetch_watermarks(&of.topic, of.partition, POLL * 50);
                let has = has.map_or_else(
                    |_| String::new(),
                    |(low, high)| format!(": the log has only {low} to {high}"),
                );
                Some(Error::config(format!("`{of}` cannot be read from offset {from}{has}")))
            }
            code if failure.fatal || class(code) != foldline_api::ErrorClass::Retriable => {
                Some(from_code(format!("reading `{of}`: {}", failure.reason), code))
            }
            _ => None,
        }
    }
}
