//! The task's calls to sink, log and dead letters, each retried until the machine problem is over.
//! They run beside the loop, one on the writing side and one on the reading side, and own no state.

use std::future::Future;
use std::sync::Arc;

use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::model::Key;
use foldline_api::record::TopicPartition;
use foldline_api::sink::{Acquired, Beginning, Flush, Loaded, StoredPosition, Writer, Written};
use foldline_api::source::{DeadLetter, DeadLetters, Log};

use super::status::TaskStatus;
use crate::metrics::ConnectorMetrics;
use crate::policy::{Reaction, backoff, reaction};

/// What the calls need; cheap to clone.
#[derive(Clone)]
pub(crate) struct Ops {
    pub(crate) writer: Arc<dyn Writer>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    pub(crate) metrics: ConnectorMetrics,
    pub(crate) status: TaskStatus,
}

/// How a write ended.
#[derive(Debug)]
pub(crate) enum WriteEnd {
    /// The sink said so.
    Known(Written),
    /// The reply was lost, or the fence did not match: the positions as they stand now tell.
    Unknown(Vec<StoredPosition>),
}

/// Partitions taken over.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) acquired: Acquired,
    /// The topics' ids, in the order of the leases.
    pub(crate) topic_ids: Vec<Option<String>>,
}

impl Ops {
    /// Runs `call` until it succeeds or fails for a reason that waiting does not cure.
    async fn retry<T, F: Future<Output = Result<T>>>(
        &self,
        what: &'static str,
        mut call: impl FnMut() -> F,
    ) -> Result<T> {
        let mut attempt = 0;
        loop {
            match call().await {
                Ok(value) => {
                    if attempt > 0 {
                        tracing::info!(attempts = attempt + 1, "{what} works again");
                    }
                    self.status.clear_trouble();
                    return Ok(value);
                }
                Err(error) if reaction(error.class()) == Reaction::Retry => {
                    self.note(what, &error);
                    // The first failure and then every tenth: an outage is one story, not a flood.
                    if attempt % 10 == 0 {
                        tracing::warn!(%error, attempt, "{what} failed, trying again");
                    }
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn note(&self, what: &'static str, error: &Error) {
        self.metrics.retry(what).inc();
        self.metrics.error(what, error.class().label()).inc();
        self.status.trouble(error);
    }

    /// Takes partitions over; learns their topic's id first, since a position names its topic's life.
    pub(crate) async fn acquire(self, partitions: Vec<TopicPartition>) -> Result<Taken> {
        let infos = self.retry("acquire", || self.log.partitions()).await?;
        let stored = self.retry("acquire", || self.writer.positions(&partitions)).await?;
        let mut claims = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let info = infos.iter().find(|info| info.partition == partition);
            let topic_id = info.and_then(|info| info.topic_id.clone());
            let known = stored.iter().find(|known| known.partition == partition);
            if let (Some(Some(old)), Some(new)) = (known.map(|k| k.topic_id.as_ref()), &topic_id)
                && old != new
            {
                return Err(recreated(&partition.topic));
            }
            let position = info.map(|info| info.low).unwrap_or_default();
            claims.push(Beginning { partition, topic_id, position });
        }
        let acquired = self.retry("acquire", || self.writer.acquire(&claims)).await?;
        let topic_ids = claims.into_iter().map(|claim| claim.topic_id).collect();
        Ok(Taken { acquired, topic_ids })
    }

    /// Reads states.
    pub(crate) async fn load(self, keys: Vec<Key>) -> Result<Vec<(Key, Loaded)>> {
        let loaded = self.retry("load", || self.writer.load(&keys)).await?;
        if loaded.len() != keys.len() {
            return Err(Error::config("the sink answered for other keys than it was asked for"));
        }
        Ok(keys.into_iter().zip(loaded).collect())
    }

    /// Dead letters first, then rows and positions: a letter may come twice, but never not at all.
    pub(crate) async fn write(self, letters: Vec<DeadLetter>, flush: Flush) -> Result<WriteEnd> {
        if !letters.is_empty() {
            self.retry("dead_letter", || self.dead_letters.send(letters.clone())).await?;
        }
        match self.writer.write(&flush).await {
            Ok(Written::Fenced) => {}
            Ok(written) => {
                self.status.clear_trouble();
                return Ok(WriteEnd::Known(written));
            }
            Err(error) if error.class() == ErrorClass::Retriable => {
                self.note("write", &error);
                tracing::warn!(%error, "write failed, asking the sink what became of it");
                tokio::time::sleep(backoff(0)).await;
            }
            Err(error) if error.class() == ErrorClass::Fenced => {}
            Err(error) => return Err(error),
        }
        let partitions: Vec<TopicPartition> =
            flush.advances.iter().map(|advance| advance.partition.clone()).collect();
        let positions = self.retry("write", || self.writer.positions(&partitions)).await?;
        Ok(WriteEnd::Unknown(positions))
    }
}

/// The sentence for a topic that was deleted and made again under its name.
pub(crate) fn recreated(topic: &str) -> Error {
    Error::config(format!(
        "topic {topic:?} was deleted and created again since its events were folded: its offsets start \
         anew and the stored positions belong to the old one. Rebuild from the new topic with `foldline \
         rebuild NAME --in-place`, or restore the old topic"
    ))
}
