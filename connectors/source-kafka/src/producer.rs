//! A producer that waits until all replicas have what it sent.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foldline_api::error::{Error, Result};
use foldline_api::record::Headers;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use crate::config::KafkaConfig;
use crate::context::log;
use crate::error::from_kafka;

/// A record to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// The key; records of one key go to one partition.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Headers,
    /// Milliseconds since the epoch; now where there is none.
    pub timestamp: Option<i64>,
    /// The partition; by the key's hash where there is none.
    pub partition: Option<i32>,
}

impl Outgoing {
    fn bytes(&self) -> usize {
        let len = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(n, v)| n.len() + len(v)).sum();
        len(&self.key) + len(&self.value) + headers
    }
}

struct Logging;

impl ClientContext for Logging {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level as i32, facility, line);
    }

    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer");
    }
}

type Client = FutureProducer<Logging>;

/// Sends records, idempotently and acknowledged by all replicas.
pub struct KafkaProducer {
    config: ClientConfig,
    /// None before the first send, since an idle client costs threads that poll, and after a fatal error.
    client: Mutex<Option<Client>>,
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
        let config = config.producer();
        config.create_native_config().map_err(|error| from_kafka("the Kafka producer", &error))?;
        Ok(KafkaProducer { config, client: Mutex::default() })
    }

    /// Sends the records to `topic`, in order within a partition, and waits until it has them all.
    ///
    /// # Errors
    /// Of the first record that failed: class Record where the topic refuses it, for its size for
    /// instance; Retriable otherwise. Records beside it may have been sent.
    pub async fn send(&self, topic: &str, records: &[Outgoing]) -> Result<()> {
        self.send_each(topic, records).await.into_iter().collect()
    }

    /// The same, with what became of each, in their order.
    pub async fn send_each(&self, topic: &str, records: &[Outgoing]) -> Vec<Result<()>> {
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => return failed(&error, records.len()),
        };
        let mut sent = Vec::with_capacity(records.len());
        for record in records {
            sent.push(enqueue(&client, topic, record).await);
        }
        let mut ends = Vec::with_capacity(records.len());
        for (record, sent) in records.iter().zip(sent) {
            let end = match sent {
                Ok(delivery) => delivery.await,
                Err(error) => {
                    ends.push(Err(explain(topic, record, &error)));
                    continue;
                }
            };
            ends.push(match end {
                Ok(Ok(_)) => Ok(()),
                Ok(Err((error, _))) => Err(explain(topic, record, &error)),
                Err(_) => Err(Error::retriable("the Kafka producer was dropped before its answer")),
            });
        }
        if client.client().fatal_error().is_some() {
            self.lock().take();
        }
        ends
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Result<Client> {
        let mut client = self.lock();
        match &*client {
            Some(client) => Ok(client.clone()),
            None => Ok(client.insert(make(&self.config)?).clone()),
        }
    }
}

fn make(config: &ClientConfig) -> Result<Client> {
    config.create_with_context(Logging).map_err(|error| from_kafka("the Kafka producer", &error))
}

/// Hands one record to librdkafka, waiting while its queue is full.
async fn enqueue(
    client: &Client,
    topic: &str,
    record: &Outgoing,
) -> std::result::Result<DeliveryFuture, KafkaError> {
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (key, value) in &record.headers {
        headers = headers.insert(Header { key, value: value.as_deref() });
    }
    loop {
        let message: FutureRecord<'_, [u8], [u8]> = FutureRecord {
            topic,
            partition: record.partition,
            key: record.key.as_deref(),
            payload: record.value.as_deref(),
            timestamp: record.timestamp,
            headers: (!record.headers.is_empty()).then(|| headers.clone()),
        };
        match client.send_result(message) {
            Ok(delivery) => return Ok(delivery),
            Err((KafkaError::MessageProduction(Code::QueueFull), _)) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// The same end for so many records.
pub(crate) fn failed(error: &Error, count: usize) -> Vec<Result<()>> {
    let copy = || {
        let copied = Error::new(error.class(), error.message());
        Err(match error.code() {
            Some(code) => copied.with_code(code),
            None => copied,
        })
    };
    (0..count).map(|_| copy()).collect()
}

/// Whether the broker, the topic or the producer has refused a record for its size.
pub(crate) fn is_too_large(error: &Error) -> bool {
    TOO_LARGE.iter().any(|code| error.code() == Some(&format!("{code:?}")))
}

const TOO_LARGE: [Code; 2] = [Code::MessageSizeTooLarge, Code::InvalidMessageSize];

fn explain(topic: &str, record: &Outgoing, error: &KafkaError) -> Error {
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
pub async fn produce(config: &KafkaConfig, topic: &str, records: &[Outgoing]) -> Result<()> {
    KafkaProducer::new(config)?.send(topic, records).await
}
