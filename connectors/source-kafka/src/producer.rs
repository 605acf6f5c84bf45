//! A producer that waits until all replicas have what it sent.
#![expect(
    unsafe_code,
    reason = "the safe crate drops whether a record may be written all the same"
)]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::error::{Error, Result};
use foldline_api::producer::{NewRecord, Producer, Undelivered, Written};
use rdkafka::ClientConfig;
use rdkafka::bindings as rd;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use tokio::sync::oneshot;

use crate::config::KafkaConfig;
use crate::context::log;
use crate::error::from_kafka;
use crate::heard::Heard;

/// What librdkafka says of a record at the end.
type Report = std::result::Result<Written, Failed>;

struct Failed {
    error: KafkaError,
    may_be_written: bool,
}

struct Reporting {
    /// Why its connections failed.
    heard: Heard,
}

impl ClientContext for Reporting {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.heard.line(facility, line);
        log(level as i32, facility, line);
    }

    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.heard.line("FAIL", reason);
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Reporting {
    type DeliveryOpaque = Box<oneshot::Sender<Report>>;

    fn delivery(&self, result: &DeliveryResult<'_>, ask: Self::DeliveryOpaque) {
        let report = match result {
            Ok(message) => Ok(Written { partition: message.partition(), offset: message.offset() }),
            Err((error, message)) => {
                Err(Failed { error: error.clone(), may_be_written: may_be_written(message) })
            }
        };
        // Whoever asked may be gone.
        drop(ask.send(report));
    }
}

/// Whether librdkafka has ever handed the record to a broker without learning that it was refused.
fn may_be_written(message: &BorrowedMessage<'_>) -> bool {
    // SAFETY: the message is borrowed, so librdkafka keeps it, and the call reads one field of it.
    let status = unsafe { rd::rd_kafka_message_status(message.ptr()) };
    !matches!(status, rd::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED)
}

type Client = Arc<ThreadedProducer<Reporting>>;

/// Sends records, idempotently and acknowledged by all replicas.
pub struct KafkaProducer {
    config: ClientConfig,
    /// None before the first send, since an idle client costs threads that poll, and after a fatal error.
    client: Mutex<Option<Client>>,
    heard: Heard,
}

impl std::fmt::Debug for KafkaProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KafkaProducer")
    }
}

impl KafkaProducer {
    /// Checks the config without asking the cluster. `group` and `topics` are not used.
    ///
    /// # Errors
    /// Class Config, with a sentence that names the property, never its value.
    pub fn new(config: &KafkaConfig) -> Result<Self> {
        Self::with(config.producer())
    }

    /// The same for topics that are there: one that is missing is an error, and not made with the broker's defaults.
    ///
    /// # Errors
    /// As [`KafkaProducer::new`].
    pub fn of_known_topics(config: &KafkaConfig) -> Result<Self> {
        let mut config = config.producer();
        config.set("allow.auto.create.topics", "false");
        Self::with(config)
    }

    fn with(config: ClientConfig) -> Result<Self> {
        config.create_native_config().map_err(|error| from_kafka("the Kafka producer", &error))?;
        Ok(KafkaProducer { config, client: Mutex::default(), heard: Heard::default() })
    }

    /// Sends the records to `topic`, in order within a partition, and waits until it has them all.
    ///
    /// # Errors
    /// Of the first record that failed: class Record where the topic refuses it, for its size for
    /// instance; Retriable otherwise. Records beside it may have been sent.
    pub async fn send(&self, topic: &str, records: &[NewRecord]) -> Result<()> {
        let ends = self.send_each(topic, records).await;
        ends.into_iter().try_for_each(|end| end.map(drop).map_err(Error::from))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Result<Client> {
        let mut client = self.lock();
        match &*client {
            Some(client) => Ok(client.clone()),
            None => Ok(client.insert(make(&self.config, &self.heard)?).clone()),
        }
    }

    fn failed(&self, topic: &str, record: &NewRecord, failed: &Failed) -> Undelivered {
        let error = self.heard.explain(explain(topic, record, &failed.error));
        Undelivered { error, may_be_written: failed.may_be_written }
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    async fn send_each(
        &self,
        topic: &str,
        records: &[NewRecord],
    ) -> Vec<std::result::Result<Written, Undelivered>> {
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => {
                let ends = failed(&error, records.len()).into_iter();
                return ends.map(|error| Err(Undelivered::not_written(error))).collect();
            }
        };
        let mut sent = Vec::with_capacity(records.len());
        for record in records {
            sent.push(enqueue(&client, topic, record).await);
        }
        let mut ends = Vec::with_capacity(records.len());
        for (record, sent) in records.iter().zip(sent) {
            let report = match sent {
                Ok(report) => report.await,
                Err(error) => Ok(Err(Failed { error, may_be_written: false })),
            };
            ends.push(match report {
                Ok(Ok(written)) => Ok(written),
                Ok(Err(failed)) => Err(self.failed(topic, record, &failed)),
                Err(_) => {
                    let error =
                        Error::retriable("the Kafka producer was dropped before its answer");
                    Err(Undelivered { error, may_be_written: true })
                }
            });
        }
        if client.client().fatal_error().is_some() {
            self.lock().take();
        }
        ends
    }
}

fn make(config: &ClientConfig, heard: &Heard) -> Result<Client> {
    let reporting = Reporting { heard: heard.clone() };
    let made: std::result::Result<ThreadedProducer<Reporting>, _> =
        config.create_with_context(reporting);
    made.map(Arc::new).map_err(|error| from_kafka("the Kafka producer", &error))
}

/// Hands one record to librdkafka, waiting while its queue is full.
async fn enqueue(
    client: &Client,
    topic: &str,
    record: &NewRecord,
) -> std::result::Result<oneshot::Receiver<Report>, KafkaError> {
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (key, value) in &record.headers {
        headers = headers.insert(Header { key, value: value.as_deref() });
    }
    let (ask, report) = oneshot::channel();
    let mut ask = Box::new(ask);
    loop {
        let message: BaseRecord<'_, [u8], [u8], _> = BaseRecord {
            topic,
            partition: record.partition,
            key: record.key.as_deref(),
            payload: record.value.as_deref(),
            timestamp: record.timestamp,
            headers: (!record.headers.is_empty()).then(|| headers.clone()),
            delivery_opaque: ask,
        };
        match client.send(message) {
            Ok(()) => return Ok(report),
            Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                ask = back.delivery_opaque;
            }
            Err((error, _)) => return Err(error),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same error so many times.
pub(crate) fn failed(error: &Error, count: usize) -> Vec<Error> {
    let copy = || {
        let copied = Error::new(error.class(), error.message());
        match error.code() {
            Some(code) => copied.with_code(code),
            None => copied,
        }
    };
    (0..count).map(|_| copy()).collect()
}

/// Whether the broker, the topic or the producer has refused a record for its size.
pub(crate) fn is_too_large(error: &Error) -> bool {
    TOO_LARGE.iter().any(|code| error.code() == Some(&format!("{code:?}")))
}

const TOO_LARGE: [Code; 2] = [Code::MessageSizeTooLarge, Code::InvalidMessageSize];

fn explain(topic: &str, record: &NewRecord, error: &KafkaError) -> Error {
    match error.rdkafka_error_code() {
        Some(code) if TOO_LARGE.contains(&code) => Error::record(format!(
            "topic `{topic}` refuses a record of {} bytes; raise its `max.message.bytes`",
            record.bytes()
        ))
        .with_code(format!("{code:?}")),
        _ => from_kafka(format!("sending to topic `{topic}`"), error),
    }
}

/// Sends the records to `topic` with a producer of its own, and waits until it has them all.
///
/// # Errors
/// As [`KafkaProducer::new`] and [`KafkaProducer::send`].
pub async fn produce(config: &KafkaConfig, topic: &str, records: &[NewRecord]) -> Result<()> {
    KafkaProducer::new(config)?.send(topic, records).await
}
