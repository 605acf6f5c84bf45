//! Reads stretches of partitions beside the group.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::source::{Chunk, Reader, Stretch};
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::burst::Burst;
use crate::config::KafkaConfig;
use crate::context::{Context, Member, log};
use crate::error::{class, from_code, from_kafka};
use crate::native::{Event, EventQueue, Failure, PartitionQueue, list};
use crate::unreadable::{self, is_unreadable};

/// A read waits so long for the first record.
const MOMENT: Duration = Duration::from_millis(10);
/// Questions to the broker are given so long.
const ASK: Duration = Duration::from_secs(5);
/// So long nothing may come before the read is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// Reads on the threads where waiting is allowed.
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
    async fn read(&mut self, wanted: &[Stretch], bytes: usize) -> Result<Chunk> {
        let (config, hand, wanted) = (self.config.clone(), self.hand.take(), wanted.to_vec());
        let read = tokio::task::spawn_blocking(move || {
            let mut hand = match hand {
                Some(hand) => hand,
                None => Hand::new(&config, bytes)?,
            };
            let chunk = hand.read(&wanted, bytes)?;
            Ok((hand, chunk))
        });
        let read: Result<(Hand, Chunk)> =
            read.await.map_err(|e| Error::retriable("a read was abandoned").with_source(e))?;
        let (hand, chunk) = read?;
        self.hand = Some(hand);
        Ok(chunk)
    }
}

/// A consumer that is assigned by hand. Each partition that is read has a queue of its own, so that all are
/// fetched ahead while one is read. It ends with the first error: what was taken from its queues is lost.
struct Hand {
    config: KafkaConfig,
    // Before the consumer: their handles must be gone when the consumer is.
    lanes: HashMap<TopicPartition, Lane>,
    queue: EventQueue<Context>,
    consumer: Arc<Member>,
    /// For so long nothing came.
    silent: Duration,
}

struct Lane {
    queue: PartitionQueue<Context>,
    /// The next offset that was not taken from it.
    next: Position,
}

impl Hand {
    fn new(config: &KafkaConfig, bytes: usize) -> Result<Self> {
        let consumer: Member = config
            .reading(bytes)
            .create_with_context::<_, BaseConsumer<Context>>(Context::default())
            .map_err(|error| from_kafka("the Kafka consumer", &error))?;
        let consumer = Arc::new(consumer);
        let queue = EventQueue::of(&consumer)
            .ok_or_else(|| Error::config("the Kafka consumer has no queue"))?;
        let (config, lanes) = (config.clone(), HashMap::new());
        Ok(Hand { config, lanes, queue, consumer, silent: Duration::ZERO })
    }

    fn read(&mut self, wanted: &[Stretch], bytes: usize) -> Result<Chunk> {
        let Some(first) = wanted.first() else { return Ok(Chunk::default()) };
        for stretch in wanted {
            self.turn_to(stretch)?;
        }
        self.hear(first)?;
        // The first is needed most, so that it is waited for.
        for patience in [Duration::ZERO, MOMENT] {
            for (of, stretch) in wanted.iter().enumerate() {
                let patience = if of == 0 { patience } else { Duration::ZERO };
                let (records, next) = self.read_lane(stretch, bytes, patience)?;
                if next > stretch.from || stretch.from >= stretch.to {
                    self.silent = Duration::ZERO;
                    return Ok(Chunk { of, records, next });
                }
            }
        }
        self.silent += MOMENT;
        let Stretch { partition, from, to } = first;
        if self.silent < SILENCE {
            return Ok(Chunk { of: 0, records: Vec::new(), next: *from });
        }
        Err(Error::retriable(format!(
            "`{partition}` gave nothing between {from} and {to} for {} s",
            SILENCE.as_secs()
        )))
    }

    /// Sees that the partition is fetched from where the stretch begins.
    fn turn_to(&mut self, wanted: &Stretch) -> Result<()> {
        let Stretch { partition, from, to } = wanted;
        if self.lanes.get(partition).is_some_and(|lane| lane.next == *from) || from >= to {
            return Ok(());
        }
        self.leave(partition);
        let queue = PartitionQueue::of(&self.consumer, partition)
            .ok_or_else(|| Error::config(format!("`{partition}` is no partition of Kafka's")))?;
        let assign = list([(partition, Offset::Offset(from.0))]);
        let assigned = self.consumer.incremental_assign(&assign);
        assigned.map_err(|e| from_kafka(format!("reading `{partition}`"), &e))?;
        self.lanes.insert(partition.clone(), Lane { queue, next: *from });
        Ok(())
    }

    /// Fetches no more of a partition.
    fn leave(&mut self, partition: &TopicPartition) {
        if self.lanes.remove(partition).is_none() {
            return;
        }
        let left = self.consumer.incremental_unassign(&list([(partition, Offset::Invalid)]));
        if let Err(error) = left {
            tracing::debug!(%error, %partition, "leaving a partition that was read");
        }
    }

    /// What is here of a stretch, and where to read on. Waits so long for the first record.
    fn read_lane(
        &mut self,
        wanted: &Stretch,
        bytes: usize,
        patience: Duration,
    ) -> Result<(Vec<Record>, Position)> {
        let Stretch { partition, from, to } = wanted;
        let (mut burst, mut size, mut next) = (Burst::default(), 0, *from);
        let Hand { config, lanes, consumer, .. } = self;
        let Some(lane) = lanes.get_mut(partition) else { return Ok((Vec::new(), next)) };
        while next < *to && size < bytes.max(1) {
            let patience = if burst.is_empty() { patience } else { Duration::ZERO };
            match lane.queue.poll(patience) {
                Some(Event::Record(record)) if record.offset() < next.0 => {}
                Some(Event::Record(record)) if record.offset() >= to.0 => next = *to,
                Some(Event::Record(record)) => {
                    size += record.key().map_or(0, <[u8]>::len);
                    size += record.value().map_or(0, <[u8]>::len) + 64;
                    next = Position(record.offset() + 1);
                    burst.push(partition, &record);
                }
                Some(Event::End(_, at)) if at >= *to => next = *to,
                // Fetched ahead: what lies behind the stretch concerns nobody.
                Some(Event::Failed(Failure { code, at: Some((_, at)), .. }))
                    if is_unreadable(code) && at >= to.0 =>
                {
                    next = *to;
                }
                Some(Event::Failed(failure)) => {
                    judge((config, consumer), &failure, partition, *from)?;
                }
                Some(_) => {}
                None => break,
            }
        }
        lane.next = next;
        if next >= *to {
            // Records behind may have been taken from its queue: who reads on begins anew.
            self.leave(partition);
        }
        Ok((burst.take(), next))
    }

    /// What concerns no partition alone.
    fn hear(&self, of: &Stretch) -> Result<()> {
        while let Some(event) = self.queue.poll(Duration::ZERO) {
            match event {
                Event::Failed(failure) => {
                    let of = (&of.partition, of.from);
                    judge((&self.config, &self.consumer), &failure, of.0, of.1)?;
                }
                Event::Log(level, facility, line) => {
                    self.consumer.client().context().heard.line(&facility, &line);
                    log(level, &facility, &line);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether librdkafka goes on by itself.
///
/// # Errors
/// What ends the read.
fn judge(
    (config, consumer): (&KafkaConfig, &Member),
    failure: &Failure,
    of: &TopicPartition,
    from: Position,
) -> Result<()> {
    match failure.code {
        Code::AutoOffsetReset | Code::OffsetOutOfRange => {
            let has = consumer.fetch_watermarks(&of.topic, of.partition, ASK);
            let has = has.map_or_else(
                |_| String::new(),
                |(low, high)| format!(": the log has only {low} to {high}"),
            );
            Err(Error::config(format!("`{of}` cannot be read from offset {from}{has}")))
        }
        code if is_unreadable(code) => Err(unreadable::beside(config, failure, of)),
        code if failure.fatal || class(code) != ErrorClass::Retriable => {
            Err(from_code(format!("reading `{of}`: {}", failure.reason), code))
        }
        _ => Ok(()),
    }
}
