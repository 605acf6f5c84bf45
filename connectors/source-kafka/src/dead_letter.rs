//! The dead-letter topic.

use async_trait::async_trait;
use bytes::Bytes;
use foldline_api::error::{Error, Result};
use foldline_api::producer::{NewRecord, Producer, Undelivered};
use foldline_api::source::{DeadLetter, DeadLetters, LETTER_OMITS, LETTER_PREFIX};
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::sync::OnceCell;

use crate::admin::asking;
use crate::config::KafkaConfig;
use crate::declared::{create, find};
use crate::producer::{KafkaProducer, failed, is_too_large};

/// A dead letter is its record and the reason, so the topic takes more than brokers do by default.
const MAX_BYTES: &str = "67108864";

/// Sends dead letters to one topic, which is created when it is first needed: one partition, the
/// broker's replication, records up to 64 MiB, and the broker's clock: retention counts from when a letter was
/// written, whatever its record's time is.
///
/// A letter that does not fit is sent without the record's value, and if that is not enough without its key
/// and headers too; a header names what is left out. Where it says in which place of the log the record
/// is, and why it is bad. All else is tried again.
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
        let what = format!("creating the dead-letter topic `{}`", self.topic);
        let new = NewTopic::new(&self.topic, 1, TopicReplication::Fixed(-1))
            .set("max.message.bytes", MAX_BYTES)
            .set("message.timestamp.type", "LogAppendTime");
        if create(&self.config, &new, &what).await? {
            tracing::info!(topic = self.topic, "created the dead-letter topic");
        }
        Ok(())
    }
}

/// Asked by a consumer: a producer's question would make the topic, with the broker's defaults.
fn exists(config: &KafkaConfig, topic: &str) -> Result<bool> {
    let what = format!("asking for the dead-letter topic `{topic}`");
    Ok(find(&asking(config)?, topic, &what, |_| ())?.is_some())
}

/// How much of its record a letter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Whole,
    /// All but the value.
    NoValue,
    /// Where the record is and why it is bad.
    Place,
}

impl Form {
    /// The letter in this form. Without a timestamp: it lives from now.
    fn of(self, letter: &DeadLetter) -> NewRecord {
        let DeadLetter { key, value, headers, .. } = letter.clone();
        let mut out = NewRecord { key, value, headers, ..NewRecord::default() };
        let omits = match self {
            Form::Whole => return out,
            Form::NoValue => "value",
            Form::Place => {
                out.key = None;
                out.headers.retain(|(name, _)| name.starts_with(LETTER_PREFIX));
                "key,value,headers"
            }
        };
        out.value = None;
        out.headers.push((LETTER_OMITS.into(), Some(Bytes::from_static(omits.as_bytes()))));
        out
    }
}

impl KafkaDeadLetters {
    /// A letter that was refused for its size: alone first, since a batch is refused as a whole, then with as
    /// much as fits.
    async fn fit(&self, letter: &DeadLetter) -> Result<()> {
        let forms = [Form::Whole, Form::NoValue, Form::Place];
        let mut end = Ok(());
        for form in
            forms.into_iter().filter(|form| *form != Form::NoValue || letter.value.is_some())
        {
            end = self.producer.send(&self.topic, &[form.of(letter)]).await;
            if !end.as_ref().is_err_and(is_too_large) {
                break;
            }
        }
        end
    }
}

#[async_trait]
impl DeadLetters for KafkaDeadLetters {
    async fn send(&self, letters: &[DeadLetter]) -> Vec<Result<()>> {
        if let Err(error) = self.exists.get_or_try_init(|| self.ensure_topic()).await {
            return failed(&error, letters.len()).into_iter().map(Err).collect();
        }
        let records: Vec<NewRecord> = letters.iter().map(|letter| Form::Whole.of(letter)).collect();
        let ends = self.producer.send_each(&self.topic, &records).await.into_iter();
        // One that may be written all the same is sent again: twice is better than not at all.
        let mut ends: Vec<Result<()>> =
            ends.map(|end| end.map(drop).map_err(Error::from)).collect();
        for (letter, end) in letters.iter().zip(&mut ends) {
            if end.as_ref().is_err_and(is_too_large) {
                *end = self.fit(letter).await;
            }
        }
        ends.into_iter().map(|end| end.map_err(by_the_clock)).collect()
    }

    async fn put_back(&self, records: &[DeadLetter]) -> Vec<Result<()>> {
        let mut ends = Vec::with_capacity(records.len());
        for of in records.chunk_by(|a, b| a.partition.topic == b.partition.topic) {
            let Some(first) = of.first() else { continue };
            let partition = |one: &DeadLetter| Some(one.partition.partition);
            let out: Vec<NewRecord> = of
                .iter()
                .map(|one| NewRecord { partition: partition(one), ..Form::Whole.of(one) })
                .collect();
            let sent = self.producer.send_each(&first.partition.topic, &out).await;
            ends.extend(sent.into_iter().map(|end| end.map(drop).map_err(in_doubt)));
        }
        ends
    }
}

/// What was sent without an answer is not sent again by itself: its event would count twice.
fn in_doubt(end: Undelivered) -> Error {
    let Undelivered { error, may_be_written } = end;
    if !may_be_written {
        return error;
    }
    let message =
        format!("{}: it may be written all the same, look before you try again", error.message());
    Error::new(error.class(), message).with_source(error)
}

/// A letter's time is this machine's: where the broker refuses it, a clock is wrong, and no record.
fn by_the_clock(error: Error) -> Error {
    let code = format!("{:?}", Code::InvalidTimestamp);
    if error.code() != Some(&code) {
        return error;
    }
    Error::retriable(format!(
        "{}: the clocks of this machine and of the broker differ",
        error.message()
    ))
    .with_code(code)
}
