//! The dead-letter topic.

use std::time::Duration;

use async_trait::async_trait;
use foldline_api::error::{Error, Result};
use foldline_api::source::{DeadLetter, DeadLetters};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::sync::OnceCell;

use crate::admin::asking;
use crate::config::KafkaConfig;
use crate::error::{from_code, from_kafka};
use crate::producer::{KafkaProducer, Outgoing};

const ASK: Duration = Duration::from_secs(10);
/// A dead letter is its record and the reason, so the topic takes more than brokers do by default.
const MAX_BYTES: &str = "67108864";

/// Sends dead letters to one topic, which is created when it is first needed: one partition, the
/// broker's replication, records up to 64 MiB.
///
/// Nothing is dropped: a letter that the topic refuses for its size is an error of class Record that
/// says what to raise; all else is tried again.
#[derive(Debug)]
pub struct KafkaDeadLetters {
    config: KafkaConfig,
    topic: String,
    producer: KafkaProducer,
    exists: OnceCell<()>,
}

impl KafkaDeadLetters {
    /// Checks the config without asking the cluster.
    ///
    /// # Errors
    /// Class Config.
    pub fn new(config: KafkaConfig, topic: impl Into<String>) -> Result<Self> {
        config.check()?;
        let producer = KafkaProducer::new(&config)?;
        Ok(KafkaDeadLetters { config, topic: topic.into(), producer, exists: OnceCell::new() })
    }

    /// Creates the topic where it is missing.
    async fn ensure_topic(&self) -> Result<()> {
        let (config, topic) = (self.config.clone(), self.topic.clone());
        let found = tokio::task::spawn_blocking(move || exists(&config, &topic)).await;
        if found.map_err(|e| Error::retriable("a question was abandoned").with_source(e))?? {
            return Ok(());
        }
        let what = || format!("creating the dead-letter topic `{}`", self.topic);
        let admin: AdminClient<DefaultClientContext> =
            self.config.producer().create().map_err(|e| from_kafka(what(), &e))?;
        let new = NewTopic::new(&self.topic, 1, TopicReplication::Fixed(-1))
            .set("max.message.bytes", MAX_BYTES);
        let options = AdminOptions::new().request_timeout(Some(ASK)).operation_timeout(Some(ASK));
        let created = admin.create_topics([&new], &options).await;
        let created = created.map_err(|e| from_kafka(what(), &e))?;
        match created.into_iter().next() {
            Some(Err((_, Code::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => Err(from_code(what(), code)),
            Some(Ok(_)) | None => {
                tracing::info!(topic = self.topic, "created the dead-letter topic");
                Ok(())
            }
        }
    }
}

/// Asked by a consumer: a producer's question would make the topic, with the broker's defaults.
fn exists(config: &KafkaConfig, topic: &str) -> Result<bool> {
    let what = || format!("asking for the dead-letter topic `{topic}`");
    let client = asking(config)?;
    let metadata =
        client.fetch_metadata(Some(topic), ASK).map_err(|error| from_kafka(what(), &error))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found.and_then(|found| found.error()).map(Code::from) {
        None => Ok(found.is_some()),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(false),
        Some(code) => Err(from_code(what(), code)),
    }
}

#[async_trait]
impl DeadLetters for KafkaDeadLetters {
    async fn send(&self, letters: Vec<DeadLetter>) -> Result<()> {
        self.exists.get_or_try_init(|| self.ensure_topic()).await?;
        let records: Vec<Outgoing> = letters
            .into_iter()
            .map(|letter| Outgoing {
                key: letter.key,
                value: letter.value,
                headers: letter.headers,
                timestamp: letter.timestamp,
                partition: None,
            })
            .collect();
        self.producer.send(&self.topic, &records).await
    }
}
