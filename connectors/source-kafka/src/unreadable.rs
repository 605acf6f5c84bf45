//! A batch that librdkafka cannot hand out: what is told of it, and where the log goes on behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foldline_api::error::Error;
use foldline_api::record::{Position, TopicPartition};
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::config::KafkaConfig;
use crate::context::{Context, Member};
use crate::error::from_code;
use crate::native::{Event, EventQueue, Failure, list};

/// The whole search is given so long.
const SEARCH: Duration = Duration::from_secs(10);
/// And one fetch of it.
const FETCH: Duration = Duration::from_secs(3);

/// Whether `code` is told of a batch whose records cannot be had, this time or ever.
pub(crate) fn is_unreadable(code: Code) -> bool {
    matches!(
        code,
        Code::BadCompression
            | Code::UnsupportedCompressionType
            | Code::BadMessage
            | Code::InvalidMessage
            | Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
    )
}

/// What is wrong with the batch, and the property that may cure it.
fn cause(config: &KafkaConfig, code: Code, reason: &str) -> String {
    let property = match code {
        Code::BadCompression | Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            let now = config.number("receive.message.max.bytes").unwrap_or(100_000_000);
            format!(
                ". Unpacked it may be larger than `receive.message.max.bytes` ({now}): raise that in the source's \
                 `properties`, up to 2147483647, and give the worker the memory"
            )
        }
        _ => String::new(),
    };
    format!("a batch cannot be read ({reason}){property}")
}

/// The error for a member of the group: what to raise, or how to go on behind the batch.
pub(crate) fn error(
    config: &KafkaConfig,
    failure: &Failure,
    of: &TopicPartition,
    at: i64,
) -> Error {
    let Failure { code, reason, .. } = failure;
    let to = behind(config, of, at).map_or_else(|| "OFFSET".to_owned(), |to| to.to_string());
    let (cause, topic, number) = (cause(config, *code, reason), &of.topic, of.partition);
    Error::config(format!(
        "`{of}` at offset {at}: {cause}. Or leave it out: `foldline stop NAME`, `foldline offsets NAME --skip-to \
         {topic}:{number}={to}`, `foldline resume NAME`; `status` shows the hole, and rebuilds repeat it"
    ))
    .with_code(format!("{code:?}"))
}

/// The error where the log is read beside the group: there nothing is left out.
pub(crate) fn beside(config: &KafkaConfig, failure: &Failure, of: &TopicPartition) -> Error {
    let at = failure.at.as_ref().map_or(0, |(_, at)| *at);
    let cause = cause(config, failure.code, &failure.reason);
    from_code(format!("reading `{of}` at offset {at}: {cause}"), failure.code)
}

/// Where the log goes on behind the batch that begins at `base`. No answer of a broker's says so, and
/// librdkafka does not hand the batch's header out; but a fetch from within the batch meets it again,
/// and one from behind it does not.
fn behind(config: &KafkaConfig, of: &TopicPartition, base: i64) -> Option<Position> {
    let probe = Probe::new(config, of, base)?;
    let (_, end) = probe.consumer.fetch_watermarks(&of.topic, of.partition, FETCH).ok()?;
    let (mut inside, mut step) = (base, 1);
    let mut outside = (base + step).min(end);
    while outside < end && probe.meets(outside)? {
        step *= 2;
        (inside, outside) = (outside, (base + step).min(end));
    }
    while outside - inside > 1 {
        let middle = inside + (outside - inside) / 2;
        if probe.meets(middle)? {
            inside = middle;
        } else {
            outside = middle;
        }
    }
    Some(Position(outside))
}

/// A consumer that is assigned by hand.
struct Probe<'a> {
    // Before the consumer: its handle must be gone when the consumer is.
    queue: EventQueue<Context>,
    consumer: Arc<Member>,
    of: &'a TopicPartition,
    base: i64,
    until: Instant,
}

impl<'a> Probe<'a> {
    fn new(config: &KafkaConfig, of: &'a TopicPartition, base: i64) -> Option<Self> {
        let consumer =
            config.reading(1).create_with_context::<_, BaseConsumer<Context>>(Context::default());
        let consumer = Arc::new(consumer.ok()?);
        let queue = EventQueue::of(&consumer)?;
        Some(Probe { queue, consumer, of, base, until: Instant::now() + SEARCH })
    }

    /// Whether a fetch from `offset` meets the batch; none where it could not be told in time.
    fn meets(&self, offset: i64) -> Option<bool> {
        let from = list([(self.of, Offset::Offset(offset))]);
        self.consumer.incremental_assign(&from).ok()?;
        let until = self.until.min(Instant::now() + FETCH);
        let mut met = None;
        while met.is_none() && Instant::now() < until {
            met = match self.queue.poll(Duration::from_millis(50)) {
                Some(Event::Record(_) | Event::End(..)) => Some(false),
                Some(Event::Failed(Failure { code, at: Some((_, at)), .. }))
                    if is_unreadable(code) =>
                {
                    Some(at == self.base)
                }
                _ => None,
            };
        }
        self.consumer.incremental_unassign(&from).ok()?;
        met
    }
}
