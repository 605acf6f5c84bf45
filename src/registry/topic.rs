//! Schemas that stand in a topic, under the fingerprints by which single-object encoding names them.
//!
//! Who produces writes a schema to the topic before the first record by it. So the topic is read to the end that it has once a batch of
//! records is here, and none of them is decoded before: whatever they were written by has been seen by then. That is done for each
//! batch, since a fingerprint leaves out what does not change the bytes: a decimal's scale may change under it, and records that were
//! written after that must not be read by the old schema. Two schemas under one fingerprint that read otherwise stop the connector.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::source::{Log, PartitionInfo, Reader, Start, Stretch};
use foldline_language::converter::SchemaId;
use foldline_language::converter::schema::{Answer, Registered, Schemas};
use tokio::time::Instant;

/// A producer may write its first records before its schema: so long the topic is read again.
const MISSING: Duration = Duration::from_secs(30);
/// What is not there is told to be so for so long, and then looked for again.
const GONE: Duration = Duration::from_secs(60);
/// After a failure others are told the same for so long, and do not wait for its timeouts in turn.
const FAILED: Duration = Duration::from_millis(500);
/// So much is read at a time.
const CHUNK: usize = 1 << 20;

/// The schemas of a topic.
pub(super) struct TopicSchemas {
    name: String,
    topic: String,
    log: Arc<dyn Log>,
    /// How many have asked.
    asked: AtomicU64,
    /// Whoever reads the topic has it; the others wait, and find what they wanted.
    follower: tokio::sync::Mutex<Follower>,
}

/// What was read of the topic, and how far.
#[derive(Default)]
struct Follower {
    lanes: Vec<Lane>,
    /// A look at the topic itself comes before the next read: it was never looked at, or what was known of it is not true any more.
    known: bool,
    settled: bool,
    /// All that had asked when the last read began: what they want is here, if it is anywhere.
    served: u64,
    failed: Option<(Instant, Error)>,
    there: HashMap<u64, Found>,
    /// What was told, for as long as nobody takes it back.
    told: HashMap<u64, Arc<Registered>>,
    missing: HashMap<u64, Missing>,
    /// Records whose keys are no fingerprints.
    unread: u64,
}

/// A partition, and how far it was read.
struct Lane {
    partition: TopicPartition,
    topic_id: Option<String>,
    next: Position,
}

/// What stands under a fingerprint.
enum Found {
    One(Arc<Registered>),
    /// Two that read otherwise, until a tombstone takes both away.
    Two(Arc<Registered>, Arc<Registered>),
}

/// A fingerprint that the topic does not have.
struct Missing {
    /// Since when it was asked for.
    since: Instant,
    /// Until when it is told to be gone, and how.
    gone: Option<(Instant, Arc<str>)>,
}

impl TopicSchemas {
    /// The schemas that `topic` of this log has. Nothing is read yet.
    pub(super) fn new(name: &str, topic: &str, log: Arc<dyn Log>) -> Self {
        let (name, topic) = (name.to_owned(), topic.to_owned());
        let (asked, follower) = (AtomicU64::new(0), tokio::sync::Mutex::default());
        TopicSchemas { name, topic, log, asked, follower }
    }

    fn outage(&self, why: &str) -> Error {
        let TopicSchemas { name, topic, .. } = self;
        Error::retriable(format!(
            "the schema registry {name:?} cannot tell: of its topic {topic:?}: {why}"
        ))
    }

    /// Reads to the end that the topic has now.
    async fn read_on(&self, follower: &mut Follower) -> Result<()> {
        follower.failed()?;
        // Before the end is asked for: whoever asked until now gets no older one.
        let asked = self.asked.load(Ordering::Acquire);
        match self.try_read_on(follower).await {
            Ok(()) => {
                follower.served = asked;
                Ok(())
            }
            Err(error) => {
                // Its records may have gone, or the whole topic.
                follower.known = false;
                let why = self.outage(error.message());
                follower.failed = Some((Instant::now() + FAILED, self.outage(error.message())));
                Err(why)
            }
        }
    }

    async fn try_read_on(&self, follower: &mut Follower) -> Result<()> {
        if !follower.known {
            self.look(follower).await?;
        }
        let mut ends = follower.ends(&*self.log).await?;
        if ends.iter().zip(&follower.lanes).any(|(end, lane)| *end < lane.next) {
            // It ends before what was read of it: another topic of the same name.
            self.look(follower).await?;
            ends = follower.ends(&*self.log).await?;
        }
        let mut reader: Option<Box<dyn Reader>> = None;
        loop {
            let lanes = follower.lanes.iter().zip(&ends).enumerate();
            let left: Vec<(usize, Stretch)> = lanes
                .filter(|(_, (lane, end))| lane.next < **end)
                .map(|(at, (lane, end))| (at, lane.until(*end)))
                .collect();
            if left.is_empty() {
                return Ok(());
            }
            let wanted: Vec<Stretch> = left.iter().map(|(_, stretch)| stretch.clone()).collect();
            let reader = match &mut reader {
                Some(reader) => reader,
                none => none.insert(self.log.reader()?),
            };
            let chunk = reader.read(&wanted, CHUNK).await?;
            chunk.records.iter().for_each(|record| follower.take(record));
            let read = left.get(chunk.of).and_then(|(at, _)| follower.lanes.get_mut(*at));
            if let Some(lane) = read {
                lane.next = chunk.next;
            }
        }
    }

    /// Looks at the topic: whether it is the one that was read, and which partitions it has.
    async fn look(&self, follower: &mut Follower) -> Result<()> {
        if !follower.settled && self.log.describes_topics() {
            for difference in self.log.settle_topics(&[]).await? {
                tracing::warn!("{difference}");
            }
        }
        follower.settled = true;
        let infos = self.log.partitions().await?;
        follower.turn_to(&infos);
        follower.known = true;
        Ok(())
    }

    /// What there is under an id; none where it is to be asked for again.
    fn answer(&self, follower: &mut Follower, id: SchemaId) -> Result<Option<Answer>> {
        let SchemaId::Fingerprint(fingerprint) = id else {
            let why = format!(
                "is of {id}, and the registry {:?} knows schemas by fingerprint alone",
                self.name
            );
            return Ok(Some(Answer::Gone(why.into())));
        };
        let found = match follower.there.get(&fingerprint) {
            None => return self.missing(follower, fingerprint),
            Some(Found::Two(one, other)) => return Err(self.two(id, one, other)),
            Some(Found::One(found)) => Arc::clone(found),
        };
        follower.missing.remove(&fingerprint);
        let told = follower.told.entry(fingerprint).or_insert_with(|| Arc::clone(&found));
        if !told.is_same(&found) {
            return Err(self.two(id, told, &found));
        }
        Ok(Some(Answer::Schema(Arc::clone(told))))
    }

    fn two(&self, id: SchemaId, one: &Registered, other: &Registered) -> Error {
        let TopicSchemas { name, topic, .. } = self;
        Error::config(format!(
            "the schema registry {name:?} has two schemas for {id} that read otherwise: {} and {}. Only who wrote the records knows \
             by which. Write a tombstone under that key to the topic {topic:?}, then the right one, and `foldline restart`",
            one.text, other.text
        ))
    }

    fn missing(&self, follower: &mut Follower, fingerprint: u64) -> Result<Option<Answer>> {
        let (now, id) = (Instant::now(), SchemaId::Fingerprint(fingerprint));
        let missing = Missing { since: now, gone: None };
        let missing = follower.missing.entry(fingerprint).or_insert(missing);
        if let Some((_, why)) = missing.gone.as_ref().filter(|(until, _)| now < *until) {
            return Ok(Some(Answer::Gone(Arc::clone(why))));
        }
        if now - missing.since < MISSING {
            return Ok(None);
        }
        if follower.there.is_empty() {
            let unread = follower.unread;
            return Err(self.outage(&format!(
                "it has no schemas at all, and {unread} records whose keys are no fingerprints"
            )));
        }
        let lost = follower.told.keys().find(|told| !follower.there.contains_key(told));
        if let Some(lost) = lost {
            let lost = SchemaId::Fingerprint(*lost);
            return Err(self.outage(&format!("it has lost {lost}, which it had: was it emptied?")));
        }
        let reversed = follower.there.contains_key(&fingerprint.swap_bytes());
        let hint = match (reversed, follower.unread) {
            (true, _) => {
                "; it has one whose key has these bytes in reverse: in keys they are big-endian"
                    .to_owned()
            }
            (false, 0) => String::new(),
            (false, unread) => {
                format!("; it has {unread} records whose keys are no fingerprints of eight bytes")
            }
        };
        let why: Arc<str> =
            format!("is of {id}, which the topic {:?} does not have{hint}", self.topic).into();
        tracing::warn!(registry = self.name, %id, "the topic does not have a schema that records name{hint}");
        missing.gone = Some((now + GONE, Arc::clone(&why)));
        Ok(Some(Answer::Gone(why)))
    }
}

impl Follower {
    /// The failure of a moment ago.
    fn failed(&self) -> Result<()> {
        match &self.failed {
            Some((until, error)) if Instant::now() < *until => {
                Err(Error::new(error.class(), error.message()))
            }
            _ => Ok(()),
        }
    }

    async fn ends(&self, log: &dyn Log) -> Result<Vec<Position>> {
        let partitions: Vec<TopicPartition> =
            self.lanes.iter().map(|lane| lane.partition.clone()).collect();
        log.find(&partitions, Start::Latest).await
    }

    /// Reads these from now on: from where it was, or all from the beginning where it is another topic.
    fn turn_to(&mut self, infos: &[PartitionInfo]) {
        let is_of = |lane: &Lane, info: &PartitionInfo| {
            lane.partition == info.partition
                && lane.topic_id == info.topic_id
                && lane.next <= info.high
        };
        if !self.lanes.iter().all(|lane| infos.iter().any(|info| is_of(lane, info))) {
            self.lanes.clear();
            self.there.clear();
            self.unread = 0;
        }
        for info in infos {
            match self.lanes.iter_mut().find(|lane| lane.partition == info.partition) {
                Some(lane) => lane.next = lane.next.max(info.low),
                None => self.lanes.push(Lane {
                    partition: info.partition.clone(),
                    topic_id: info.topic_id.clone(),
                    next: info.low,
                }),
            }
        }
    }

    /// Takes a record in.
    fn take(&mut self, record: &Record) {
        let key = record.key.as_deref().and_then(|key| <[u8; 8]>::try_from(key).ok());
        let Some(fingerprint) = key.map(u64::from_be_bytes) else {
            self.unread += 1;
            return;
        };
        let Some(value) = &record.value else {
            self.there.remove(&fingerprint);
            self.told.remove(&fingerprint);
            return;
        };
        let text = String::from_utf8_lossy(value).into_owned();
        let (kind, references) = (Some("AVRO".to_owned()), Vec::new());
        let new = Arc::new(Registered { kind, text, references });
        match self.there.get(&fingerprint) {
            Some(Found::Two(..)) => {}
            Some(Found::One(one)) if one.is_same(&new) => {}
            Some(Found::One(one)) => {
                let two = Found::Two(Arc::clone(one), new);
                self.there.insert(fingerprint, two);
            }
            None => {
                self.there.insert(fingerprint, Found::One(new));
            }
        }
    }

    /// Whether all of these can be told, or told to be gone.
    fn has_all(&self, ids: &[SchemaId]) -> bool {
        ids.iter().all(|id| match id {
            SchemaId::Fingerprint(one) => {
                let gone = self.missing.get(one).and_then(|missing| missing.gone.as_ref());
                self.there.contains_key(one)
                    || gone.is_some_and(|(until, _)| Instant::now() < *until)
            }
            _ => true,
        })
    }
}

impl Lane {
    fn until(&self, to: Position) -> Stretch {
        Stretch { partition: self.partition.clone(), from: self.next, to }
    }
}

#[async_trait]
impl Schemas for TopicSchemas {
    async fn get(&self, ids: &[SchemaId]) -> Result<Vec<Answer>> {
        let asked = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut follower = self.follower.lock().await;
        if follower.served < asked {
            self.read_on(&mut follower).await?;
        }
        if !follower.has_all(ids) {
            // It may be another topic, or have more partitions than it had.
            follower.known = false;
            self.read_on(&mut follower).await?;
        }
        let (mut answers, mut missing) = (Vec::with_capacity(ids.len()), None);
        for id in ids {
            match self.answer(&mut follower, *id)? {
                Some(answer) => answers.push(answer),
                // The others are asked for all the same: their half minutes pass at once.
                None => missing = Some(*id),
            }
        }
        match missing {
            None => Ok(answers),
            Some(id) => Err(self.outage(&format!(
                "it does not have {id}; it is read again for {} seconds before its records are bad",
                MISSING.as_secs()
            ))),
        }
    }

    async fn reach(&self) -> Result<()> {
        match self.log.partitions().await {
            Ok(_) => Ok(()),
            // It is made at the start.
            Err(error) if self.log.describes_topics() && error.class() == ErrorClass::Config => {
                Ok(())
            }
            Err(error) => Err(self.outage(error.message())),
        }
    }

    /// Never: another schema may be written under a fingerprint at any moment.
    fn is_sure(&self, _: SchemaId) -> bool {
        false
    }

    fn doubt(&self, id: SchemaId) {
        // Where it is being read, its reader finds what changed.
        if let (SchemaId::Fingerprint(one), Ok(mut follower)) = (id, self.follower.try_lock()) {
            follower.told.remove(&one);
        }
    }
}

impl fmt::Debug for TopicSchemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicSchemas").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
