//! What the worker asks of a source.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, Result};
use crate::record::{Headers, Position, Record, TopicPartition};

/// A connector's view of the log it reads: one per connector, before and beside its tasks.
#[async_trait]
pub trait Log: Send + Sync {
    /// What tells this log from another: Kafka's cluster id, a file log's own id.
    async fn identity(&self) -> Result<String>;

    /// The partitions of the connector's topics as they are now, and which listed topics there are not.
    ///
    /// # Errors
    /// Where the log does not answer.
    async fn survey(&self) -> Result<Survey>;

    /// The partitions of the connector's topics as they are now.
    ///
    /// # Errors
    /// A config error where a listed topic does not exist.
    async fn partitions(&self) -> Result<Vec<PartitionInfo>> {
        self.survey().await?.of_all(|_| true)
    }

    /// Whether the config describes topics, so that [`Log::settle_topics`] has something to do.
    fn describes_topics(&self) -> bool {
        false
    }

    /// Makes the topics that the config describes and that are missing, but none of `held`, whose positions are stored: what was
    /// lost with a topic does not come back with an empty one. Those that are there are compared and stay as they are: a
    /// sentence for each difference.
    ///
    /// # Errors
    /// Where the log does not answer, or refuses to make one.
    async fn settle_topics(&self, _held: &[Arc<str>]) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// The ids of these topics as they are now, in their order, asked anew each time; none where the log cannot tell.
    ///
    /// # Errors
    /// A retriable error while there is no such topic: the next one of its name has another id.
    async fn topic_ids(&self, topics: &[Arc<str>]) -> Result<Vec<Option<String>>>;

    /// Where `start` lies in each of `partitions`.
    async fn find(&self, partitions: &[TopicPartition], start: Start) -> Result<Vec<Position>>;

    /// The group's committed offsets with their metadata; partitions without one are left out.
    async fn committed(&self) -> Result<Vec<Commit>>;

    /// Commits for the group while no task runs. A group with members elsewhere refuses: then it
    /// returns an error of class Fenced.
    async fn commit(&self, commits: &[Commit]) -> Result<()>;

    /// How many members the group has now, wherever they run.
    async fn members(&self) -> Result<usize>;

    /// Deletes the group with its offsets; false where there is none.
    ///
    /// # Errors
    /// Of class Fenced while it has members.
    async fn delete_group(&self) -> Result<bool> {
        Err(Error::config("this log deletes no groups"))
    }

    /// Who folds what for the group now, wherever it runs. Empty where the log does not tell.
    async fn fleet(&self) -> Result<Vec<FleetMember>> {
        Ok(Vec::new())
    }

    /// A consuming member of the group, for one task. `memory` bounds its queue, in bytes.
    fn source(&self, task: u32, memory: usize) -> Result<Box<dyn Source>>;

    /// What reads given stretches of the log beside the group and its offsets, for `verify` and
    /// `explain`.
    fn reader(&self) -> Result<Box<dyn Reader>>;
}

/// What a log has of a connector's topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Their partitions.
    pub partitions: Vec<PartitionInfo>,
    /// The listed topics that do not exist.
    pub missing: Vec<MissingTopic>,
}

/// A listed topic that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingTopic {
    /// Its name.
    pub name: Arc<str>,
    /// How to make it.
    pub way_out: String,
}

impl Survey {
    /// The partitions, where no topic is missing that `needed` names: what was folded of one that is gone, nothing brings
    /// back.
    ///
    /// # Errors
    /// A config error for the first that is.
    pub fn of_all(self, needed: impl Fn(&str) -> bool) -> Result<Vec<PartitionInfo>> {
        match self.missing.iter().find(|topic| needed(&topic.name)) {
            Some(topic) => Err(topic.error()),
            None => Ok(self.partitions),
        }
    }
}

impl MissingTopic {
    /// What there is to say of it.
    #[must_use]
    pub fn error(&self) -> Error {
        let MissingTopic { name, way_out } = self;
        Error::config(format!(
            "topic `{name}` does not exist; correct the name in `topics`, or create it: {way_out}"
        ))
        .with_code("UnknownTopicOrPartition")
    }
}

/// One task's member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetMember {
    /// What tells its worker from the others.
    pub worker: String,
    /// Which of its worker's tasks it is.
    pub task: u32,
    /// What it folds.
    pub partitions: Vec<TopicPartition>,
}

/// Reads stretches of a log. It joins no group and commits nothing.
#[async_trait]
pub trait Reader: Send {
    /// The next records of one of `wanted`, of the first that has some here, and not much more than `bytes`
    /// of them. What is asked for lies in the log already, so they come soon; but it waits no longer than
    /// a moment, and then the chunk is empty and ends where it began.
    ///
    /// # Errors
    /// A config error where the log no longer has the beginning of a stretch.
    async fn read(&mut self, wanted: &[Stretch], bytes: usize) -> Result<Chunk>;
}

/// A stretch of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The partition.
    pub partition: TopicPartition,
    /// The first offset.
    pub from: Position,
    /// The offset behind the last.
    pub to: Position,
}

/// What a [`Reader`] read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Of which of the stretches that were asked for.
    pub of: usize,
    /// Records in offset order. May be empty: compaction and aborted transactions leave holes.
    pub records: Vec<Record>,
    /// Where to read on; the stretch's end once nothing before it is left.
    pub next: Position,
}

/// Where a first start begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first record that the log still has.
    Earliest,
    /// The end.
    Latest,
    /// The first record at or after this moment, in milliseconds since the epoch.
    Timestamp(i64),
}

/// One partition as the log knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The partition.
    pub partition: TopicPartition,
    /// The topic's id, which a topic recreated under the same name does not share; none where the
    /// broker cannot tell.
    pub topic_id: Option<String>,
    /// The first position the log still has.
    pub low: Position,
    /// The position after the last record that may be read.
    pub high: Position,
}

/// One committed offset, or one to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset to read.
    pub position: Position,
    /// The metadata text: Foldline's mark, or empty.
    pub metadata: String,
}

/// What happened to a source.
#[derive(Debug)]
pub enum SourceEvent {
    /// Records, in offset order within each partition. Never empty.
    Records(Vec<Record>),
    /// The group gave these partitions to this member. Nothing of them is read until
    /// [`Source::start`] says from where.
    Assigned(Vec<TopicPartition>),
    /// The group takes these partitions back. It waits, for a bounded time, until
    /// [`Source::release`].
    Revoked(Vec<TopicPartition>),
    /// These partitions are gone already; they may have another owner. Nothing is to be committed.
    Lost(Vec<TopicPartition>),
    /// All records of this partition that may be read now have been delivered; the position may lie
    /// past the last record, behind transaction markers.
    End(TopicPartition, Position),
    /// All records before this place were delivered, and what stands there, in a batch that may begin before,
    /// cannot be read: nothing of this partition comes any more, until it is started elsewhere.
    Broken(TopicPartition, Position, Error),
}

/// What a task can take in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Anything.
    All,
    /// Rebalances and errors only: the task is paused, or full while its sink is down, and must see a
    /// revocation all the same.
    Control,
}

/// One consuming member of the group. Only its task calls it.
#[async_trait]
pub trait Source: Send {
    /// Waits for the next thing that happened and is wanted; what is not stays queued, and rebalances
    /// overtake records. Cancel-safe. Errors of class Retriable are for the log: the source goes on by
    /// itself; call again.
    async fn next(&mut self, wanted: Wanted) -> Result<SourceEvent>;

    /// Reads assigned partitions from these positions on: the answer to `Assigned`, and later a seek.
    /// Records of the old position that are still queued are not delivered any more.
    fn start(&mut self, from: &[(TopicPartition, Position)]) -> Result<()>;

    /// The answer to `Revoked`: the task has let go of these.
    fn release(&mut self, partitions: &[TopicPartition]) -> Result<()>;

    /// What commits for this member, usable while the loop goes on.
    fn committer(&self) -> Arc<dyn Committer>;

    /// The last known end of each assigned partition (next offset to be written), from memory.
    fn ends(&self) -> Vec<(TopicPartition, Position)>;

    /// Leaves the group and frees what it holds.
    async fn close(self: Box<Self>);
}

/// Commits durable positions to the group.
#[async_trait]
pub trait Committer: Send + Sync {
    /// Commits, and waits for the answer.
    ///
    /// # Errors
    /// Class Fenced where the partition is not this member's any more; Retriable otherwise. Neither
    /// loses anything: the sink's positions win.
    async fn commit(&self, commits: &[Commit]) -> Result<()>;
}

/// A record to set aside, with the reason in its headers. It has no timestamp: it lives from when it is
/// written, or the retention of its topic would take the letter of an old record at once, and a broker
/// refuse that of one from the future.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The record's partition.
    pub partition: TopicPartition,
    /// The record's offset.
    pub offset: i64,
    /// The record's key, as it was.
    pub key: Option<Bytes>,
    /// The record's value, as it was.
    pub value: Option<Bytes>,
    /// The record's headers, then Kafka Connect's `__connect.errors.*`.
    pub headers: Headers,
}

/// The name of the header that says what of a record its letter leaves out, as all of it does not fit into
/// the dead-letter topic.
pub const LETTER_OMITS: &str = "__connect.errors.omitted";
/// What every header of a dead letter that is not its record's begins with, as Kafka Connect has it.
pub const LETTER_PREFIX: &str = "__connect.errors.";

/// Where dead letters go.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Sends the letters and waits until the log has them (acks=all). At-least-once. What became of each, in
    /// their order: after an error only those that failed are to be sent again.
    async fn send(&self, letters: &[DeadLetter]) -> Vec<Result<()>>;

    /// Appends records to the partitions that they name, with the time of now, and waits until the log has them. What became
    /// of each, in their order.
    async fn put_back(&self, records: &[DeadLetter]) -> Vec<Result<()>> {
        let nowhere = || Err(Error::config("these letters have no log to go back to"));
        records.iter().map(|_| nowhere()).collect()
    }
}
