//! The transactions of one process: each is whole or not at all, and none after another process took over.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldline_api::failpoint::Failpoint;
use foldline_api::{Error, ErrorClass, Result};
use foldline_source_kafka::{KafkaConfig, from_kafka};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

/// A broker that does not answer for so long is away.
const ANSWERS: Duration = Duration::from_secs(30);
/// How long a record waits for room in librdkafka's queue before it is looked at what was delivered.
const ROOM: Duration = Duration::from_millis(20);
/// Reports of what was delivered are taken so often.
const REPORTS: Duration = Duration::from_millis(1);
/// librdkafka's `transaction.timeout.ms` where it is not passed, in milliseconds.
const TIMEOUT: u64 = 60_000;
/// Between two tries to begin a transaction while the markers of the one before are written; librdkafka waits ten times as
/// long otherwise.
const AGAIN_MS: &str = "2";

/// What was delivered of the transaction under way.
#[derive(Debug, Default)]
struct Delivered {
    /// The first and the last offset of each partition that has some.
    offsets: Vec<Span>,
    error: Option<KafkaError>,
}

/// The offsets of a transaction in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

#[derive(Default)]
struct Reports(Mutex<Delivered>);

impl Reports {
    fn lock(&self) -> std::sync::MutexGuard<'_, Delivered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Reports {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(target: "librdkafka", facility, "{line}");
    }

    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer of a state topic");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut delivered = self.lock();
        match result {
            Err((error, _)) => {
                delivered.error.get_or_insert_with(|| error.clone());
            }
            Ok(message) => {
                let (topic, partition, at) =
                    (message.topic(), message.partition(), message.offset());
                let known = |span: &&mut Span| span.partition == partition && span.topic == topic;
                match delivered.offsets.iter_mut().find(known) {
                    Some(span) => {
                        span.first = span.first.min(at);
                        span.last = span.last.max(at);
                    }
                    None => delivered.offsets.push(Span {
                        topic: topic.to_owned(),
                        partition,
                        first: at,
                        last: at,
                    }),
                }
            }
        }
    }
}

/// A producer that has fenced all others of its transactional id.
pub(crate) struct Transactions {
    producer: BaseProducer<Reports>,
    /// What it writes to, for sentences.
    topic: String,
    /// A broker takes a transaction back that is open for longer.
    timeout: Duration,
}

/// A transaction that is open.
pub(crate) struct Open<'a> {
    of: &'a Transactions,
    since: Instant,
}

impl Transactions {
    /// Fences the others: what they have not committed is taken back, and what they have is whole when this returns.
    pub(crate) fn begin_alone(config: &KafkaConfig, topic: &str, id: &str) -> Result<Self> {
        let what = format!("taking the state topic `{topic}` over");
        let mut client = config.producer();
        if config.number("retry.backoff.ms").is_none() {
            client.set("retry.backoff.ms", AGAIN_MS);
        }
        if config.number("linger.ms").is_none() {
            // A flush is handed over whole, and then waited for.
            client.set("linger.ms", "0");
        }
        client.set("transactional.id", id);
        let producer = client.create_with_context::<_, BaseProducer<Reports>>(Reports::default());
        let producer = producer.map_err(|error| from_kafka(&what, &error))?;
        let timeout = config.number("transaction.timeout.ms").unwrap_or(TIMEOUT);
        let timeout = Duration::from_millis(timeout);
        producer.init_transactions(ANSWERS).map_err(|error| explained(&what, &error))?;
        Ok(Transactions { producer, topic: topic.to_owned(), timeout })
    }

    pub(crate) fn begin(&self) -> Result<Open<'_>> {
        *self.producer.context().lock() = Delivered::default();
        let open = Open { of: self, since: Instant::now() };
        self.producer.begin_transaction().map_err(|error| open.failed(&error))?;
        Ok(open)
    }
}

/// An error of the class of its code; librdkafka's words for what transactions have of their own.
fn explained(what: &str, error: &KafkaError) -> Error {
    match error.rdkafka_error_code() {
        Some(Code::TransactionalIdAuthorizationFailed) => Error::retriable(format!(
            "{what}: give the user the right: kafka-acls.sh --bootstrap-server … --add --allow-principal User:NAME \
             --operation Write --operation Describe --transactional-id ID"
        ))
        .with_code("TransactionalIdAuthorizationFailed"),
        _ => from_kafka(what, error),
    }
}

/// Whether another producer of the same transactional id was made, or the broker ended this one's transaction.
fn is_fenced(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::Fenced
                | Code::ProducerFenced
                | Code::InvalidProducerEpoch
                | Code::InvalidProducerIdMapping
                | Code::TransactionCoordinatorFenced
        )
    )
}

impl Open<'_> {
    /// Hands a record over.
    ///
    /// # Errors
    /// Of class Record where it can never be taken.
    pub(crate) fn send(
        &self,
        topic: &str,
        partition: i32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).key(key);
        record.payload = value;
        loop {
            match self.of.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, again)) if error.rdkafka_error_code() == Some(Code::QueueFull) => {
                    self.of.producer.poll(ROOM);
                    record = again;
                    if self.since.elapsed() > self.of.timeout {
                        return Err(self.failed(&error));
                    }
                }
                Err((error, _)) => return Err(self.failed(&error)),
            }
        }
    }

    /// Waits until the brokers have all of it.
    ///
    /// # Errors
    /// Of class Record where the topic refused a record.
    pub(crate) fn deliver(&self) -> Result<()> {
        let producer = &self.of.producer;
        // The crate's own flush looks ten times a second.
        while producer.in_flight_count() > 0 {
            producer.poll(REPORTS);
            if self.since.elapsed() > self.of.timeout {
                return Err(self.failed(&KafkaError::Flush(Code::MessageTimedOut)));
            }
        }
        let refused = producer.context().lock().error.clone();
        if let Some(error) = refused {
            // What was thrown away does not say why: the transaction does.
            let purged =
                matches!(error.rdkafka_error_code(), Some(Code::PurgeQueue | Code::PurgeInflight));
            let told = if purged { producer.commit_transaction(ANSWERS).err() } else { None };
            return Err(self.failed(&told.unwrap_or(error)));
        }
        Failpoint::BeforePositions.reach();
        Ok(())
    }

    /// Makes all of it durable, once it was delivered; where it lies.
    ///
    /// # Errors
    /// The outcome is unknown then.
    pub(crate) fn commit(&self) -> Result<Vec<Span>> {
        let producer = &self.of.producer;
        loop {
            match producer.commit_transaction(ANSWERS) {
                Ok(()) => break,
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && self.since.elapsed() < self.of.timeout => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(std::mem::take(&mut producer.context().lock().offsets))
    }

    /// Takes all of it back.
    ///
    /// # Errors
    /// Where that is not known to have worked.
    pub(crate) fn abort(&self) -> Result<()> {
        self.of.producer.abort_transaction(ANSWERS).map_err(|error| self.failed(&error))
    }

    /// What an error is to the worker. A broker calls two things fenced: that another producer took over, and that it ended a
    /// transaction which was open for too long.
    fn failed(&self, error: &KafkaError) -> Error {
        let topic = &self.of.topic;
        let delivered = self.of.producer.context().lock().error.clone();
        // A record that was refused is why the transaction cannot be committed.
        if let Some(refused) = delivered.as_ref() {
            let refused = from_kafka(format!("writing to the state topic `{topic}`"), refused);
            if refused.class() == ErrorClass::Record {
                return refused;
            }
        }
        if !is_fenced(error) {
            return explained(&format!("writing to the state topic `{topic}`"), error);
        }
        let code = error.rdkafka_error_code().map(|code| format!("{code:?}")).unwrap_or_default();
        if self.since.elapsed() >= self.of.timeout {
            return Error::retriable(format!(
                "a transaction on the state topic `{topic}` took longer than transaction.timeout.ms ({} ms), and the \
                 broker took it back",
                self.of.timeout.as_millis()
            ))
            .with_code(code)
            .too_much();
        }
        Error::fenced(format!("another worker took the state topic `{topic}` over")).with_code(code)
    }
}
