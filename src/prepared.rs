//! A log whose records can be decoded as they come: what their converters need from outside (a schema) is asked for
//! where records are read, once a batch, so that nobody who decodes has to wait or to tell an outage from a bad record.
//!
//! The four places at which records come to a fold: a task's intake ([`Source`]), the merge of a load and of a replay
//! ([`Reader`]), and parked events, which come from the store and not from the log (`task::requests`, by [`prepare`]).
//! An error of class Retriable is told as one of the log's: the task shows it (`status`) and goes on asking, while
//! rebalances go through; one of class Config stops the connector. Records wait here meanwhile, none is dropped but
//! those of partitions that went or that are read again.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::error::{Error, Result};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::source::{
    Chunk, Commit, Committer, FleetMember, Log, Reader, Source, SourceEvent, Start, Stretch,
    Survey, Wanted,
};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::decoding::Decoders;
use crate::policy::backoff;

/// Gets what these records name, the records of a topic together.
///
/// # Errors
/// As of [`foldline_language::converter::SchemaConverter::prepare`].
pub(crate) async fn prepare(decoders: &dyn Decoders, records: &[Record]) -> Result<()> {
    let mut topics: Vec<(&Arc<str>, Vec<&Record>)> = Vec::new();
    for record in records {
        match topics.iter_mut().find(|(topic, _)| **topic == record.topic) {
            Some((_, of)) => of.push(record),
            None => topics.push((&record.topic, vec![record])),
        }
    }
    for (topic, records) in topics {
        decoders.of(topic).prepare(&records).await.map_err(Error::of_schemas)?;
    }
    Ok(())
}

/// `log`, its records prepared for these decoders; the log itself where they need nothing.
pub(crate) fn prepared(log: Arc<dyn Log>, decoders: &Arc<dyn Decoders>) -> Arc<dyn Log> {
    if !decoders.need_schemas() {
        return log;
    }
    Arc::new(PreparedLog { inner: log, decoders: Arc::clone(decoders) })
}

struct PreparedLog {
    inner: Arc<dyn Log>,
    decoders: Arc<dyn Decoders>,
}

#[async_trait]
impl Log for PreparedLog {
    async fn identity(&self) -> Result<String> {
        self.inner.identity().await
    }

    async fn survey(&self) -> Result<Survey> {
        self.inner.survey().await
    }

    fn describes_topics(&self) -> bool {
        self.inner.describes_topics()
    }

    async fn settle_topics(&self, held: &[Arc<str>]) -> Result<Vec<String>> {
        self.inner.settle_topics(held).await
    }

    async fn topic_ids(&self, topics: &[Arc<str>]) -> Result<Vec<Option<String>>> {
        self.inner.topic_ids(topics).await
    }

    async fn find(&self, partitions: &[TopicPartition], start: Start) -> Result<Vec<Position>> {
        self.inner.find(partitions, start).await
    }

    async fn committed(&self) -> Result<Vec<Commit>> {
        self.inner.committed().await
    }

    async fn commit(&self, commits: &[Commit]) -> Result<()> {
        self.inner.commit(commits).await
    }

    async fn members(&self) -> Result<usize> {
        self.inner.members().await
    }

    async fn delete_group(&self) -> Result<bool> {
        self.inner.delete_group().await
    }

    async fn fleet(&self) -> Result<Vec<FleetMember>> {
        self.inner.fleet().await
    }

    fn source(&self, task: u32, memory: usize) -> Result<Box<dyn Source>> {
        Ok(Box::new(PreparedSource {
            inner: self.inner.source(task, memory)?,
            decoders: Arc::clone(&self.decoders),
            batch: Batch::None,
            behind: VecDeque::new(),
            gone: Vec::new(),
            attempt: 0,
        }))
    }

    fn reader(&self) -> Result<Box<dyn Reader>> {
        let (inner, decoders) = (self.inner.reader()?, Arc::clone(&self.decoders));
        Ok(Box::new(PreparedReader { inner, decoders, read: None }))
    }
}

/// The batch that waits here.
enum Batch {
    None,
    /// To be asked about, at once or from that moment on.
    Waiting(Vec<Record>, Option<Instant>),
    /// What it names is asked for.
    Asking(AbortOnDropHandle<(Vec<Record>, Result<()>)>),
    Ready(Vec<Record>),
}

struct PreparedSource {
    inner: Box<dyn Source>,
    decoders: Arc<dyn Decoders>,
    batch: Batch,
    /// What came behind the batch.
    behind: VecDeque<SourceEvent>,
    /// Partitions whose records in the batch are not to be delivered any more.
    gone: Vec<TopicPartition>,
    /// Attempts in a row that failed.
    attempt: u32,
}

impl PreparedSource {
    /// What may be delivered now.
    fn deliver(&mut self) -> Option<SourceEvent> {
        loop {
            match std::mem::replace(&mut self.batch, Batch::None) {
                Batch::None => match self.behind.pop_front()? {
                    SourceEvent::Records(records) => self.batch = Batch::Waiting(records, None),
                    event => return Some(event),
                },
                Batch::Ready(mut records) => {
                    let gone = std::mem::take(&mut self.gone);
                    records.retain(|record| !is_of_any(record, &gone));
                    if !records.is_empty() {
                        return Some(SourceEvent::Records(records));
                    }
                }
                unready => {
                    self.batch = unready;
                    return None;
                }
            }
        }
    }

    /// What the log said, where it is for the caller at once.
    fn take(&mut self, event: SourceEvent) -> Option<SourceEvent> {
        match event {
            SourceEvent::Lost(partitions) => {
                self.forget(&partitions);
                Some(SourceEvent::Lost(partitions))
            }
            // Rebalances overtake records.
            SourceEvent::Assigned(_) | SourceEvent::Revoked(_) => Some(event),
            event => {
                self.behind.push_back(event);
                None
            }
        }
    }

    /// Delivers nothing of these that came until now.
    fn forget(&mut self, partitions: &[TopicPartition]) {
        if !matches!(self.batch, Batch::None) {
            self.gone.extend_from_slice(partitions);
        }
        self.behind.retain_mut(|event| match event {
            SourceEvent::Records(records) => {
                records.retain(|record| !is_of_any(record, partitions));
                !records.is_empty()
            }
            SourceEvent::End(of, _) | SourceEvent::Broken(of, ..) => !partitions.contains(of),
            SourceEvent::Assigned(_) | SourceEvent::Revoked(_) | SourceEvent::Lost(_) => true,
        });
    }

    /// Asks for what the batch names, until it is there. Cancel-safe: what is asked for comes beside the caller.
    async fn ask(batch: &mut Batch, decoders: &Arc<dyn Decoders>, attempt: &mut u32) -> Result<()> {
        loop {
            match batch {
                Batch::None | Batch::Ready(_) => return Ok(()),
                Batch::Waiting(records, due) => {
                    if let Some(due) = due {
                        tokio::time::sleep_until(*due).await;
                    }
                    let (records, decoders) = (std::mem::take(records), Arc::clone(decoders));
                    *batch = Batch::Asking(AbortOnDropHandle::new(tokio::spawn(async move {
                        let prepared = prepare(&*decoders, &records).await;
                        (records, prepared)
                    })));
                }
                Batch::Asking(asking) => {
                    // The records are gone with it, so the task must not go on.
                    let broke_off = |e| Error::config(format!("asking for schemas broke off: {e}"));
                    let (records, prepared) = asking.await.map_err(broke_off)?;
                    if let Err(error) = prepared {
                        *batch = Batch::Waiting(records, Some(Instant::now() + backoff(*attempt)));
                        *attempt += 1;
                        return Err(error);
                    }
                    *attempt = 0;
                    *batch = Batch::Ready(records);
                }
            }
        }
    }
}

#[async_trait]
impl Source for PreparedSource {
    async fn next(&mut self, wanted: Wanted) -> Result<SourceEvent> {
        loop {
            if wanted == Wanted::All
                && let Some(event) = self.deliver()
            {
                return Ok(event);
            }
            let PreparedSource { inner, decoders, batch, behind, attempt, .. } = self;
            let waits = !matches!(batch, Batch::None) || !behind.is_empty();
            let event = tokio::select! {
                biased;
                event = inner.next(if waits { Wanted::Control } else { wanted }) => event?,
                asked = Self::ask(batch, decoders, attempt), if waits && wanted == Wanted::All => {
                    asked?;
                    continue;
                }
            };
            if let Some(event) = self.take(event) {
                return Ok(event);
            }
        }
    }

    fn start(&mut self, from: &[(TopicPartition, Position)]) -> Result<()> {
        let partitions: Vec<TopicPartition> = from.iter().map(|(of, _)| of.clone()).collect();
        self.forget(&partitions);
        self.inner.start(from)
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.forget(partitions);
        self.inner.release(partitions)
    }

    fn committer(&self) -> Arc<dyn Committer> {
        self.inner.committer()
    }

    fn ends(&self) -> Vec<(TopicPartition, Position)> {
        self.inner.ends()
    }

    async fn close(self: Box<Self>) {
        self.inner.close().await;
    }
}

fn is_of_any(record: &Record, partitions: &[TopicPartition]) -> bool {
    partitions.iter().any(|of| record.partition == of.partition && record.topic == of.topic)
}

struct PreparedReader {
    inner: Box<dyn Reader>,
    decoders: Arc<dyn Decoders>,
    /// What was read of these stretches and is not prepared yet.
    read: Option<(Vec<Stretch>, Chunk)>,
}

#[async_trait]
impl Reader for PreparedReader {
    async fn read(&mut self, wanted: &[Stretch], bytes: usize) -> Result<Chunk> {
        let known = self.read.take_if(|(of, _)| of == wanted).map(|(_, chunk)| chunk);
        let chunk = match known {
            Some(chunk) => chunk,
            None => self.inner.read(wanted, bytes).await?,
        };
        match prepare(&*self.decoders, &chunk.records).await {
            Ok(()) => Ok(chunk),
            Err(error) => {
                self.read = Some((wanted.to_vec(), chunk));
                Err(error)
            }
        }
    }
}
